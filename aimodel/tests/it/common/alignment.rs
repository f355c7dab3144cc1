//! What must hold for any alignment.

use aimodel::align::{Graph, Step, align};

/// Aligns two graphs and asserts that each op of either is in the result once, in order, and that what is paired is alike.
/// Returns the number of pairs without changes.
pub fn assert_aligned(left: &Graph<'_>, right: &Graph<'_>) -> usize {
    let steps = align(left, right);
    let side = |pick: fn(&Step) -> Option<aimodel::OpId>| steps.iter().filter_map(pick).collect::<Vec<_>>();
    let ours = side(|step| match step {
        Step::Both { left, .. } | Step::Left(left) => Some(*left),
        Step::Right(_) => None,
    });
    let theirs = side(|step| match step {
        Step::Both { right, .. } | Step::Right(right) => Some(*right),
        Step::Left(_) => None,
    });
    assert_eq!(ours, left.code());
    assert_eq!(theirs, right.code());
    let mut same = 0;
    for step in &steps {
        match step {
            Step::Both { left: a, right: b, changes } => {
                assert_eq!(left.module().op(*a).opcode, right.module().op(*b).opcode);
                assert!(changes.iter().all(|change| change.left != change.right), "{changes:?}");
                assert!(!left.line(*a).is_empty() && !right.line(*b).is_empty());
                same += usize::from(changes.is_empty());
            }
            Step::Left(op) => assert!(!left.line(*op).is_empty()),
            Step::Right(op) => assert!(!right.line(*op).is_empty()),
        }
    }
    same
}
