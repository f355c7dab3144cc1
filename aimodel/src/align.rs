//! Two graphs side by side: which ops correspond, and what is changed, removed or added.
//!
//! It skips ops that only one graph has. Ops are compared by what they do: name, types, properties, regions, small
//! constants, and what kind of op makes each operand. Weights (blobs and constants of more than [`SMALL`] bytes, dequantized or not)
//! are all alike here: their contents are compared elsewhere. So is a small constant whose counterpart is a blob: where constants
//! are stored does not matter, nor do their keys.

mod graph;
mod matching;
mod names;

use std::collections::HashMap;

use serde::Serialize;

use crate::describe::describe_attribute_within;
use crate::module::{OpId, ValueId};
use crate::opcode::Opcode;
use matching::matching;

pub use graph::{Graph, GraphPort};
pub use names::adopt_names;

/// Bytes up to which an inline constant is part of the ops that use it.
pub const SMALL: usize = 64;
/// Bytes after which an attribute is cut.
const LONGEST: usize = 200;

/// One difference between two corresponding ops.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// Part of the op, such as `operand 1`.
    pub what: String,
    /// What the left graph has there.
    pub left: String,
    /// What the right graph has there.
    pub right: String,
}

/// An op of either graph, or one of each.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The same op in both, except for its changes.
    Both {
        /// Of the left graph.
        left: OpId,
        /// Of the right graph.
        right: OpId,
        /// None if the ops are equal.
        changes: Vec<Change>,
    },
    /// An op that only the left graph has.
    Left(OpId),
    /// An op that only the right graph has.
    Right(OpId),
}

/// Aligns the ops of two graphs, constants left out, in the order of both.
pub fn align(left: &Graph<'_>, right: &Graph<'_>) -> Vec<Step> {
    let (ours, theirs) = (left.code(), right.code());
    let signatures =
        |graph: &Graph<'_>, ops: &[OpId]| ops.iter().map(|op| graph.signature(*op)).collect::<Vec<_>>();
    let mut steps = Vec::with_capacity(ours.len().max(theirs.len()));
    let (mut settled_left, mut settled_right) = (0, 0);
    for (at_left, at_right) in matching(&signatures(left, &ours), &signatures(right, &theirs)) {
        settle(left, right, &ours[settled_left..at_left], &theirs[settled_right..at_right], &mut steps);
        steps.push(both(ours[at_left], theirs[at_right]));
        (settled_left, settled_right) = (at_left + 1, at_right + 1);
    }
    settle(left, right, &ours[settled_left..], &theirs[settled_right..], &mut steps);
    find_changes(left, right, &mut steps);
    steps
}

/// What differs in the graphs themselves: types, names and order of inputs and outputs, and how others may use them.
pub fn compare_declarations(left: &Graph<'_>, right: &Graph<'_>) -> Vec<Change> {
    let mut changes = Changes(Vec::new());
    compare_properties((left, left.op()), (right, right.op()), &mut changes);
    changes.0
}

fn both(left: OpId, right: OpId) -> Step {
    Step::Both { left, right, changes: Vec::new() }
}

/// Pairs ops of the same name in a range where the graphs differ.
fn settle(left: &Graph<'_>, right: &Graph<'_>, ours: &[OpId], theirs: &[OpId], steps: &mut Vec<Step>) {
    let names = |graph: &Graph<'_>, ops: &[OpId]| -> Vec<Opcode> {
        ops.iter().map(|op| graph.module().op(*op).opcode).collect()
    };
    let (mut settled_left, mut settled_right) = (0, 0);
    let mut lone = |steps: &mut Vec<Step>, left: usize, right: usize| {
        steps.extend(ours[settled_left..left].iter().map(|op| Step::Left(*op)));
        steps.extend(theirs[settled_right..right].iter().map(|op| Step::Right(*op)));
        (settled_left, settled_right) = (left + 1, right + 1);
    };
    for (at_left, at_right) in matching(&names(left, ours), &names(right, theirs)) {
        lone(steps, at_left, at_right);
        steps.push(both(ours[at_left], theirs[at_right]));
    }
    lone(steps, ours.len(), theirs.len());
}

/// Goes through pairs in order, remembers which values correspond, and notes what differs.
fn find_changes(left: &Graph<'_>, right: &Graph<'_>, steps: &mut [Step]) {
    let mut comparison = Comparison { left, right, same: HashMap::new() };
    let mut others: HashMap<&str, ValueId> = HashMap::new();
    for (port, value) in right.inputs() {
        others.entry(&port.name).or_insert(value);
    }
    for (port, value) in left.inputs() {
        comparison.same.extend(others.get(port.name.as_str()).map(|other| (value, *other)));
    }
    for step in steps {
        if let Step::Both { left: a, right: b, changes } = step {
            *changes = comparison.changes(*a, *b);
        }
    }
}

struct Comparison<'c, 'm> {
    left: &'c Graph<'m>,
    right: &'c Graph<'m>,
    /// Values of the right graph by the corresponding ones of the left graph.
    same: HashMap<ValueId, ValueId>,
}

/// What differs in two ops, gathered.
struct Changes(Vec<Change>);

impl Changes {
    /// Two different entries can have the same description: values of one name, or texts that were cut.
    fn note(&mut self, what: String, left: String, right: String) {
        let right = if left == right { format!("another {right}") } else { right };
        self.0.push(Change { what, left, right });
    }
}

/// One op in words.
fn shown<T>(part: Option<T>, words: impl FnOnce(T) -> String) -> String {
    part.map_or_else(|| "absent".to_owned(), words)
}

fn compare_properties((left, a): (&Graph<'_>, OpId), (right, b): (&Graph<'_>, OpId), changes: &mut Changes) {
    let (a, b) = (left.module().op(a), right.module().op(b));
    let pairs = a.properties.iter().zip(&b.properties);
    for (name, (ours, theirs)) in a.opcode.properties().iter().zip(pairs) {
        let print = |graph: &Graph<'_>, property: Option<_>| property.map(|id| graph.attribute_print(id));
        if print(left, *ours) != print(right, *theirs) {
            let words = |graph: &Graph<'_>, property| {
                shown(property, |id| describe_attribute_within(graph.module(), id, LONGEST))
            };
            let (ours, theirs) = (words(left, *ours), words(right, *theirs));
            changes.note(name.trim_end_matches('?').to_owned(), ours, theirs);
        }
    }
}

impl Comparison<'_, '_> {
    fn changes(&mut self, a: OpId, b: OpId) -> Vec<Change> {
        let mut changes = Changes(Vec::new());
        self.compare_operands(a, b, &mut changes);
        compare_properties((self.left, a), (self.right, b), &mut changes);
        self.compare_results(a, b, &mut changes);
        if changes.0.is_empty() && self.left.regions(a) != self.right.regions(b) {
            let count = |graph: &Graph<'_>, op| format!("{} ops", graph.region_ops(op));
            changes.note("decomposition".to_owned(), count(self.left, a), count(self.right, b));
        }
        changes.0
    }

    fn compare_operands(&self, a: OpId, b: OpId, changes: &mut Changes) {
        let (left, right) = (&self.left.module().op(a).operands, &self.right.module().op(b).operands);
        let print = |graph: &Graph<'_>, value: Option<&_>| value.map(|value| graph.type_print(*value));
        // An offset has the type of the codes: weights of another format differ by that once.
        let is_typed = self.left.module().op(a).opcode != Opcode::BlockwiseShiftScale
            || print(self.left, left.first()) == print(self.right, right.first());
        for at in 0..left.len().max(right.len()) {
            let (ours, theirs) = (left.get(at).copied(), right.get(at).copied());
            let is_same = |ours, theirs| self.stand_for_each_other(ours, theirs, is_typed);
            if !matches!((ours, theirs), (Some(ours), Some(theirs)) if is_same(ours, theirs)) {
                let ours = shown(ours, |value| self.left.describe_value(value));
                changes.note(
                    format!("operand {at}"),
                    ours,
                    shown(theirs, |value| self.right.describe_value(value)),
                );
            }
        }
    }

    fn compare_results(&mut self, a: OpId, b: OpId, changes: &mut Changes) {
        let (left, right) = (&self.left.module().op(a).results, &self.right.module().op(b).results);
        for at in 0..left.len().max(right.len()) {
            let (ours, theirs) = (left.get(at).copied(), right.get(at).copied());
            if let (Some(ours), Some(theirs)) = (ours, theirs) {
                self.same.insert(ours, theirs);
            }
            let print = |graph: &Graph<'_>, value: Option<_>| value.map(|value| graph.type_print(value));
            if print(self.left, ours) != print(self.right, theirs) {
                let ours = shown(ours, |value| self.left.describe_type(value));
                let theirs = shown(theirs, |value| self.right.describe_type(value));
                changes.note(format!("type of result {at}"), ours, theirs);
            }
        }
    }

    /// Small constants have one type, too, if `is_typed`.
    fn stand_for_each_other(&self, ours: ValueId, theirs: ValueId, is_typed: bool) -> bool {
        if self.same.get(&ours) == Some(&theirs) {
            return true;
        }
        let has_one_type = || !is_typed || self.left.type_print(ours) == self.right.type_print(theirs);
        match (self.left.small_constant(ours), self.right.small_constant(theirs)) {
            (Some(ours), Some(theirs)) => ours == theirs && has_one_type(),
            (None, None) => {
                self.left.is_weight(ours)
                    && self.right.is_weight(theirs)
                    && self.left.extents(ours) == self.right.extents(theirs)
            }
            // One is a blob.
            _ => self.left.has_content(ours) && self.right.has_content(theirs) && has_one_type(),
        }
    }
}
