//! What a call of a function costs: computed from the graph, not measured.

use std::collections::BTreeSet;

use super::{Function, Weight};
use crate::module::{Definition, ValueId};
use crate::opcode::Opcode;
use crate::package::Package;

/// Largest number of views that are followed: a damaged program may have cycles.
const MOST_VIEWS: usize = 8;

/// Work of a function that is due to its weights, without attention to earlier positions, which grows with their number.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Work {
    /// Multiply-adds of products with weights, for each position.
    pub multiply_adds: u64,
    /// Bytes of the weights in products: read once a call, however many positions it takes.
    pub call_bytes: u64,
    /// Bytes of rows that are looked up for each position.
    pub row_bytes: u64,
}

impl Work {
    /// Bytes of weights for each position, in calls of `positions`.
    pub fn bytes_per_position(&self, positions: u64) -> f64 {
        self.call_bytes as f64 / positions.max(1) as f64 + self.row_bytes as f64
    }
}

impl Package {
    /// What a function of this package costs.
    pub fn work(&self, function: &Function<'_>) -> Work {
        let module = &self.bytecode.module;
        let mut work = Work::default();
        let mut read = BTreeSet::new();
        for op in module.block(function.body).ops.iter().map(|op| module.op(*op)) {
            match (op.opcode, &op.operands[..]) {
                (Opcode::BatchMatmul | Opcode::BroadcastingBatchMatmul, [_, right]) => {
                    let Some((source, weight)) = self.weight_behind(*right) else { continue };
                    let elements = self.elements_of(*right);
                    work.multiply_adds = work.multiply_adds.saturating_add(elements);
                    if read.insert(source) {
                        let all = weight
                            .stored()
                            .shape
                            .iter()
                            .fold(1, |all: u64, extent| all.saturating_mul(*extent));
                        let bytes = share(weight.bytes(), elements, all);
                        work.call_bytes = work.call_bytes.saturating_add(bytes);
                    }
                }
                (Opcode::GatherNd | Opcode::GatherAlongAxis, [table, ..]) => {
                    let Some(weight) = self.weight(*table) else { continue };
                    let rows = weight.stored().shape.first().copied().unwrap_or(1);
                    work.row_bytes = work.row_bytes.saturating_add(weight.bytes() / rows.max(1));
                }
                _ => {}
            }
        }
        work
    }

    /// The weight that a value is a transposed, cut or reshaped view of, and the value that it is itself.
    fn weight_behind(&self, mut value: ValueId) -> Option<(ValueId, Weight)> {
        let module = &self.bytecode.module;
        for _ in 0..MOST_VIEWS {
            if let Some(weight) = self.weight(value) {
                return Some((value, weight));
            }
            let Definition::Result { op, .. } = module.value(value).definition else { return None };
            let op = module.op(op);
            let is_view = matches!(op.opcode, Opcode::Transpose | Opcode::Slice | Opcode::Reshape);
            value = *op.operands.first().filter(|_| is_view)?;
        }
        None
    }

    fn elements_of(&self, value: ValueId) -> u64 {
        self.bytecode.module.tensor(value).and_then(|ty| ty.elements()).unwrap_or_default()
    }
}

/// The part of `bytes` that `part` of `whole` elements take.
fn share(bytes: u64, part: u64, whole: u64) -> u64 {
    (u128::from(bytes) * u128::from(part.min(whole)) / u128::from(whole.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_rounded_down_and_never_more_than_the_whole() {
        assert_eq!(share(100, 1, 3), 33);
        assert_eq!(share(100, 5, 3), 100);
        assert_eq!(share(u64::MAX, u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(share(7, 0, 0), 0);
    }

    #[test]
    fn chunks_share_what_is_read_once() {
        let work = Work { multiply_adds: 10, call_bytes: 640, row_bytes: 3 };
        assert_eq!(work.bytes_per_position(64), 13.0);
        assert_eq!(work.bytes_per_position(0), 643.0);
    }
}
