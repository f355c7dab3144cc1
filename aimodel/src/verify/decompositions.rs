//! Compares the stored decomposition of every composite op with the one that its operands' types call for.

use std::collections::HashMap;

use super::{Verifier, VerifyError, is_decomposable};
use crate::build::decomposition;
use crate::describe::describe_type_within;
use crate::module::{BlockId, Module, OpId, ValueId};
use crate::opcode::Opcode;

/// [`super::verify`], and then every composite op of a graph: its region must be, op for op, the one that
/// [`decomposition`] writes. Returns the number of regions compared; those nested in them are compared along with them.
///
/// Loaders that know an op never look inside its region; it is there for those that do not.
pub fn verify_decompositions(module: &Module) -> Result<usize, VerifyError> {
    super::verify(module)?;
    let mut scratch = module.without_code();
    let mut verifier = Verifier::new(module);
    verifier.path.push("asset".to_owned());
    let mut compared = 0;
    for graph in module.graphs() {
        verifier.path.push(verifier.segment(0, graph));
        let ops = module.body(graph).map_or(&[][..], |block| &module.block(block).ops);
        for (at, op) in ops.iter().enumerate().filter(|(_, op)| module.op(**op).opcode.is_composite()) {
            verifier.path.push(verifier.segment(at, *op));
            verifier.check(compare(module, *op, &mut scratch))?;
            verifier.path.pop();
            compared += 1;
        }
        verifier.path.pop();
    }
    Ok(compared)
}

/// Writes the decomposition again, in `scratch`, whose types and attributes are those of the module, and compares.
fn compare(module: &Module, op: OpId, scratch: &mut Module) -> Result<(), String> {
    let original = module.op(op);
    let elements = original.operands.iter().filter_map(|value| module.tensor(*value)).map(|ty| ty.element);
    if let Some(element) = elements.into_iter().find(|element| !is_decomposable(*element)) {
        return Err(format!("no decomposition of {} for {element} is known", original.opcode));
    }
    scratch.clear_code();
    let stand_in = scratch.add_op(Opcode::Asset, original.location);
    let region = scratch.add_region(stand_in);
    let block = scratch.add_block(region);
    let again = scratch.add_op(original.opcode, original.location);
    for value in &original.operands {
        let argument = scratch.add_argument(block, module.value(*value).ty, module.location_of(*value));
        scratch.op_mut(again).operands.push(argument);
    }
    decomposition(scratch, again);
    let (Some(stored), Some(expected)) = (module.body(op), scratch.body(again)) else {
        return Err("its region is not one block".to_owned());
    };
    Comparison { stored: module, expected: scratch, same: HashMap::new() }.blocks(stored, expected)
}

struct Comparison<'c> {
    stored: &'c Module,
    expected: &'c Module,
    /// The value that corresponds to each expected value.
    same: HashMap<ValueId, ValueId>,
}

impl Comparison<'_> {
    fn blocks(&mut self, stored: BlockId, expected: BlockId) -> Result<(), String> {
        let (stored, expected) = (self.stored.block(stored), self.expected.block(expected));
        self.values("argument", &stored.arguments, &expected.arguments)?;
        for (at, (stored, expected)) in stored.ops.iter().zip(&expected.ops).enumerate() {
            let name = self.expected.op(*expected).opcode;
            self.ops(*stored, *expected)
                .map_err(|reason| format!("op {at} {name} of its region: {reason}"))?;
        }
        if stored.ops.len() != expected.ops.len() {
            return Err(format!("its region has {} ops instead of {}", stored.ops.len(), expected.ops.len()));
        }
        Ok(())
    }

    fn ops(&mut self, stored_id: OpId, expected_id: OpId) -> Result<(), String> {
        let (stored, expected) = (self.stored.op(stored_id), self.expected.op(expected_id));
        if stored.opcode != expected.opcode {
            return Err(format!("{} is there instead", stored.opcode));
        }
        if stored.properties != expected.properties {
            return Err("its properties differ".to_owned());
        }
        if stored.location != expected.location {
            return Err("its location differs".to_owned());
        }
        let operands: Vec<_> = expected.operands.iter().map(|value| self.same.get(value).copied()).collect();
        if operands != stored.operands.iter().copied().map(Some).collect::<Vec<_>>() {
            return Err("its operands differ".to_owned());
        }
        self.values("result", &stored.results, &expected.results)?;
        match (self.stored.body(stored_id), self.expected.body(expected_id)) {
            (Some(stored), Some(expected)) => self.blocks(stored, expected),
            (None, None) => Ok(()),
            _ => Err("its regions differ".to_owned()),
        }
    }

    /// Types and locations of values that are made in one place must be equal.
    fn values(&mut self, what: &str, stored: &[ValueId], expected: &[ValueId]) -> Result<(), String> {
        if stored.len() != expected.len() {
            return Err(format!("{} {what}s instead of {}", stored.len(), expected.len()));
        }
        for (at, (a, b)) in stored.iter().zip(expected).enumerate() {
            let (found, wanted) = (self.stored.value(*a).ty, self.expected.value(*b).ty);
            if found != wanted {
                let found = describe_type_within(self.stored, found, super::LONGEST);
                let wanted = describe_type_within(self.expected, wanted, super::LONGEST);
                return Err(format!("{what} {at} is {found} instead of {wanted}"));
            }
            if self.stored.location_of(*a) != self.expected.location_of(*b) {
                return Err(format!("{what} {at} has another location"));
            }
            self.same.insert(*b, *a);
        }
        Ok(())
    }
}
