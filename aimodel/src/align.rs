//! Two graphs side by side: which ops of one are those of the other, and what is changed, removed or added.
//!
//! Unlike [`crate::compare`], which goes through both in step, this finds its way past ops that only one graph has. Ops are told
//! apart by what they do: name, types, properties, regions, small constants, and what kind of op makes each operand. Weights
//! (constants of more than [`SMALL`] bytes, dequantized or not) are all alike here: their contents are for others to compare.

mod graph;
mod names;

use std::collections::HashMap;
use std::ops::Range;

use similar::{Algorithm, DiffOp, capture_diff_slices};

use crate::describe::describe_attribute_within;
use crate::module::{OpId, ValueId};
use crate::opcode::Opcode;

pub use graph::{Graph, Port};
pub use names::adopt_names;

/// Bytes up to which an inline constant is part of the ops that use it.
pub const SMALL: usize = 64;
/// Bytes after which an attribute is cut.
const LONGEST: usize = 200;

/// One way in which two ops differ that stand for each other.
#[derive(Clone, PartialEq, Eq, Debug)]
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
    /// The same op in both, but for its changes.
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

/// Sets the ops of two graphs beside each other, constants left out, in the order of both.
pub fn align(left: &Graph<'_>, right: &Graph<'_>) -> Vec<Step> {
    let (ours, theirs) = (left.code(), right.code());
    let mut numbers = HashMap::new();
    let signatures = |graph: &Graph<'_>, ops: &[OpId], numbers: &mut HashMap<String, usize>| -> Vec<usize> {
        ops.iter()
            .map(|op| {
                let next = numbers.len();
                *numbers.entry(graph.signature(*op)).or_insert(next)
            })
            .collect()
    };
    let a = signatures(left, &ours, &mut numbers);
    let b = signatures(right, &theirs, &mut numbers);
    let mut steps = Vec::with_capacity(ours.len().max(theirs.len()));
    let mut hunk = (0..0, 0..0);
    for piece in capture_diff_slices(Algorithm::Myers, &a, &b) {
        if let DiffOp::Equal { old_index, new_index, len } = piece {
            settle(left, right, (&ours, &theirs), &hunk, &mut steps);
            let pairs = ours[old_index..old_index + len].iter().zip(&theirs[new_index..new_index + len]);
            steps.extend(pairs.map(|(left, right)| both(*left, *right)));
            hunk = (old_index + len..old_index + len, new_index + len..new_index + len);
        } else {
            hunk = (hunk.0.start..piece.old_range().end, hunk.1.start..piece.new_range().end);
        }
    }
    settle(left, right, (&ours, &theirs), &hunk, &mut steps);
    find_changes(left, right, &mut steps);
    steps
}

fn both(left: OpId, right: OpId) -> Step {
    Step::Both { left, right, changes: Vec::new() }
}

/// Pairs ops of the same name in a stretch where the graphs differ.
fn settle(
    left: &Graph<'_>,
    right: &Graph<'_>,
    (ours, theirs): (&[OpId], &[OpId]),
    hunk: &(Range<usize>, Range<usize>),
    steps: &mut Vec<Step>,
) {
    let (ours, theirs) = (&ours[hunk.0.clone()], &theirs[hunk.1.clone()]);
    let names = |graph: &Graph<'_>, ops: &[OpId]| -> Vec<Opcode> {
        ops.iter().map(|op| graph.module().op(*op).opcode).collect()
    };
    let (a, b) = (names(left, ours), names(right, theirs));
    for piece in capture_diff_slices(Algorithm::Myers, &a, &b) {
        let (old, new) = (&ours[piece.old_range()], &theirs[piece.new_range()]);
        if let DiffOp::Equal { .. } = piece {
            steps.extend(old.iter().zip(new).map(|(left, right)| both(*left, *right)));
        } else {
            steps.extend(old.iter().map(|op| Step::Left(*op)));
            steps.extend(new.iter().map(|op| Step::Right(*op)));
        }
    }
}

/// Goes through pairs in order, remembers which values stand for each other, and notes what differs.
fn find_changes(left: &Graph<'_>, right: &Graph<'_>, steps: &mut [Step]) {
    let mut comparison = Comparison { left, right, same: HashMap::new() };
    for (port, value) in left.inputs() {
        let found = right.inputs().find(|(other, _)| other.name == port.name);
        comparison.same.extend(found.map(|(_, other)| (value, other)));
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
    /// Values of the right graph by those of the left one that they stand for.
    same: HashMap<ValueId, ValueId>,
}

impl Comparison<'_, '_> {
    fn changes(&mut self, a: OpId, b: OpId) -> Vec<Change> {
        let (left, right) = (self.left.module().op(a), self.right.module().op(b));
        let mut changes = Vec::new();
        let mut note = |what: String, left: String, right: String| {
            if left != right {
                changes.push(Change { what, left, right });
            }
        };
        for at in 0..left.operands.len().max(right.operands.len()) {
            let (ours, theirs) = (left.operands.get(at).copied(), right.operands.get(at).copied());
            if !matches!((ours, theirs), (Some(ours), Some(theirs)) if self.stand_for_each_other(ours, theirs))
            {
                let shown = |graph: &Graph<'_>, value: Option<ValueId>| {
                    value.map_or_else(|| "absent".to_owned(), |value| graph.describe_value(value))
                };
                // Two values of one name are still two values if they come from different ops.
                let (ours, theirs) = (shown(self.left, ours), shown(self.right, theirs));
                let theirs = if ours == theirs { format!("another {theirs}") } else { theirs };
                note(format!("operand {at}"), ours, theirs);
            }
        }
        let shown = |graph: &Graph<'_>, property: Option<_>| {
            property.map_or_else(
                || "absent".to_owned(),
                |property| describe_attribute_within(graph.module(), property, LONGEST),
            )
        };
        for (name, (ours, theirs)) in
            left.opcode.properties().iter().zip(left.properties.iter().zip(&right.properties))
        {
            note(name.trim_end_matches('?').to_owned(), shown(self.left, *ours), shown(self.right, *theirs));
        }
        for (at, (ours, theirs)) in left.results.iter().zip(&right.results).enumerate() {
            note(
                format!("type of result {at}"),
                self.left.describe_type(*ours),
                self.right.describe_type(*theirs),
            );
            self.same.insert(*ours, *theirs);
        }
        if changes.is_empty() && self.left.regions(a) != self.right.regions(b) {
            let count = |graph: &Graph<'_>, op| format!("{} ops", graph.region_ops(op));
            let (ours, theirs) = (count(self.left, a), count(self.right, b));
            let theirs = if ours == theirs { format!("another {theirs}") } else { theirs };
            changes.push(Change { what: "decomposition".to_owned(), left: ours, right: theirs });
        }
        changes
    }

    fn stand_for_each_other(&self, ours: ValueId, theirs: ValueId) -> bool {
        if self.same.get(&ours) == Some(&theirs) {
            return true;
        }
        match (self.left.small_constant(ours), self.right.small_constant(theirs)) {
            (Some(ours), Some(theirs)) => ours == theirs,
            (None, None) => {
                self.left.is_weight(ours)
                    && self.right.is_weight(theirs)
                    && self.left.extents(ours) == self.right.extents(theirs)
            }
            _ => false,
        }
    }
}
