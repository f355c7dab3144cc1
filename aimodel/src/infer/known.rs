//! Elements of small integer tensors, as far as they are known without running the graph.

use std::collections::HashMap;

use crate::attribute::Attribute;
use crate::element::Element;
use crate::module::{Module, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::Dim;

/// Longest vector that is tracked: shapes, axes and permutations are far shorter.
const LONGEST: u64 = 64;

/// Elements of integer tensors of rank 0 and 1, each either known or not.
#[derive(Clone, Default, Debug)]
pub struct Known {
    elements: HashMap<ValueId, Vec<Option<i64>>>,
}

impl Known {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Elements of a value, if anything is known of them.
    pub fn elements(&self, value: ValueId) -> Option<&[Option<i64>]> {
        self.elements.get(&value).map(Vec::as_slice)
    }

    /// Elements of a value, if all are known.
    pub fn all(&self, value: ValueId) -> Option<Vec<i64>> {
        self.elements(value)?.iter().copied().collect()
    }

    /// Copies what is known of a value to another one, such as a region's argument.
    pub(crate) fn adopt(&mut self, argument: ValueId, known: &Known, operand: ValueId) {
        if let Some(elements) = known.elements.get(&operand) {
            self.elements.insert(argument, elements.clone());
        }
    }

    /// Learns what can be derived about an op's result. Call it for ops in program order.
    pub fn learn(&mut self, module: &Module, op: OpId) {
        let [result] = module.op(op).results[..] else { return };
        let Some(tensor) = module.tensor(result) else { return };
        let small = tensor.rank() <= 1 && tensor.elements().is_some_and(|count| count <= LONGEST);
        if !small || !tensor.element.is_integer() {
            return;
        }
        let elements =
            self.evaluate(module, op).filter(|found| Some(found.len() as u64) == tensor.elements());
        if let Some(elements) = elements {
            self.elements.insert(result, elements);
        }
    }

    fn evaluate(&self, module: &Module, op: OpId) -> Option<Vec<Option<i64>>> {
        let op = module.op(op);
        let operand = |at: usize| self.elements(*op.operands.get(at)?);
        match op.opcode {
            Opcode::Constant => {
                let tensor = module.tensor(*op.results.first()?)?;
                let value = module.constant(*op.results.first()?)?;
                Some(
                    constant_elements(value, tensor.element, tensor.elements()?)?
                        .into_iter()
                        .map(Some)
                        .collect(),
                )
            }
            Opcode::GetShape => {
                let shape = module.tensor(*op.operands.first()?)?.shape;
                Some(
                    shape
                        .into_iter()
                        .map(|dim| dim.fixed().and_then(|extent| i64::try_from(extent).ok()))
                        .collect(),
                )
            }
            Opcode::Cast | Opcode::Reshape => operand(0).map(<[_]>::to_vec),
            Opcode::Concat => {
                let mut joined = Vec::new();
                for value in op.operands.iter().skip(1) {
                    match self.elements(*value) {
                        Some(elements) => joined.extend_from_slice(elements),
                        None => {
                            let length =
                                module.tensor(*value)?.elements().filter(|length| *length <= LONGEST)?;
                            joined.resize(joined.len() + length as usize, None);
                        }
                    }
                }
                Some(joined)
            }
            Opcode::Slice => {
                let (start, end, stride) =
                    (self.one(&op.operands, 1)?, self.one(&op.operands, 2)?, self.one(&op.operands, 3)?);
                let elements = operand(0)?;
                let range = slice_range(elements.len() as u64, start, end, stride)?;
                Some(range.map(|at| elements[at as usize]).collect())
            }
            _ => None,
        }
    }

    fn one(&self, operands: &[ValueId], at: usize) -> Option<i64> {
        match self.elements(*operands.get(at)?)? {
            [element] => *element,
            _ => None,
        }
    }
}

/// Positions that a slice takes from an axis of `extent`: negatives count from the end once, then everything is clamped.
pub(super) fn slice_range(
    extent: u64,
    start: i64,
    end: i64,
    stride: i64,
) -> Option<impl Iterator<Item = u64> + use<>> {
    let extent = i64::try_from(extent).ok()?;
    let clamp = |at: i64| if at < 0 { at + extent } else { at }.clamp(0, extent);
    let stride = usize::try_from(stride).ok().filter(|stride| *stride > 0)?;
    Some((clamp(start)..clamp(end)).step_by(stride).map(|at| at as u64))
}

/// Number of positions that [`slice_range`] returns.
pub(super) fn slice_extent(extent: Dim, start: Option<i64>, end: Option<i64>, stride: Option<i64>) -> Dim {
    let length = || {
        let range = slice_range(extent.fixed()?, start?, end?, stride?)?;
        Some(range.size_hint().0 as u64)
    };
    length().map_or(Dim::Dynamic, Dim::Fixed)
}

fn constant_elements(value: &Attribute, element: Element, count: u64) -> Option<Vec<i64>> {
    let Attribute::DenseElements { splat, bytes } = value else { return None };
    let width = element.inline_bytes() as usize;
    let stored: Vec<i64> = bytes.chunks_exact(width).map(|chunk| integer(chunk, element)).collect();
    match (splat, stored.first()) {
        (true, Some(first)) => Some(vec![*first; usize::try_from(count).ok()?]),
        _ => (stored.len() as u64 == count).then_some(stored),
    }
}

fn integer(bytes: &[u8], element: Element) -> i64 {
    let mut wide = [0_u8; 8];
    let length = bytes.len().min(8);
    wide[..length].copy_from_slice(&bytes[..length]);
    let unused = 64 - element.bits().min(64);
    let shifted = i64::from_le_bytes(wide) << unused;
    if element.is_signed_integer() { shifted >> unused } else { ((shifted as u64) >> unused) as i64 }
}
