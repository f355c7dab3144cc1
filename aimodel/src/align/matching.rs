//! Which elements of two sequences correspond.

use std::collections::HashSet;
use std::hash::Hash;
use std::iter;

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// Lengths of two sequences, multiplied, up to which their middles are compared. The graphs of the largest models have some ten
/// thousand ops; a diff of much longer, very different sequences would take minutes.
const MOST: usize = 1 << 32;

/// Pairs of equal elements by their positions, ascending in both sequences, nearly as many as possible.
pub(super) fn matching<T: Eq + Hash + Ord>(left: &[T], right: &[T]) -> Vec<(usize, usize)> {
    let front = iter::zip(left, right).take_while(|(a, b)| a == b).count();
    let (rest_left, rest_right) = (&left[front..], &right[front..]);
    let back = iter::zip(rest_left.iter().rev(), rest_right.iter().rev()).take_while(|(a, b)| a == b).count();
    let (end_left, end_right) = (left.len() - back, right.len() - back);

    let mut pairs: Vec<(usize, usize)> = (0..front).map(|at| (at, at)).collect();
    middle(&left[front..end_left], &right[front..end_right], |a, b| pairs.push((front + a, front + b)));
    pairs.extend((0..back).map(|at| (end_left + at, end_right + at)));
    pairs
}

/// Pairs what a diff pairs. Elements that the other side does not have are left out beforehand: they make diffs slow.
fn middle<T: Eq + Hash + Ord>(left: &[T], right: &[T], mut pair: impl FnMut(usize, usize)) {
    let shared = |side: &[T], other: &[T]| -> Vec<usize> {
        let other: HashSet<&T> = other.iter().collect();
        (0..side.len()).filter(|at| other.contains(&side[*at])).collect()
    };
    let (places_left, places_right) = (shared(left, right), shared(right, left));
    if places_left.len().saturating_mul(places_right.len()) > MOST {
        return;
    }
    let a: Vec<&T> = places_left.iter().map(|at| &left[*at]).collect();
    let b: Vec<&T> = places_right.iter().map(|at| &right[*at]).collect();
    let (mut next_a, mut next_b) = (0, 0);
    for piece in capture_diff_slices(Algorithm::Myers, &a, &b) {
        // The diff moves pieces past each other afterwards and leaves some of their positions as they were: only those of
        // equal ranges are used, and checked.
        let DiffOp::Equal { old_index, new_index, len } = piece else { continue };
        let stretches = (a.get(old_index..old_index + len), b.get(new_index..new_index + len));
        if old_index < next_a || new_index < next_b || stretches.0.is_none() || stretches.0 != stretches.1 {
            continue;
        }
        (0..len).for_each(|at| pair(places_left[old_index + at], places_right[new_index + at]));
        (next_a, next_b) = (old_index + len, new_index + len);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Length of the longest common subsequence, by the definition.
    fn longest(left: &[u8], right: &[u8]) -> usize {
        let mut row = vec![0; right.len() + 1];
        for a in left {
            let mut diagonal = 0;
            for (at, b) in right.iter().enumerate() {
                let best = if a == b { diagonal + 1 } else { row[at].max(row[at + 1]) };
                diagonal = std::mem::replace(&mut row[at + 1], best);
            }
        }
        row[right.len()]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn pairs_are_equal_ascending_and_as_many_as_possible(
            left in prop::collection::vec(0_u8..6, 0..40),
            right in prop::collection::vec(0_u8..6, 0..40),
        ) {
            let pairs = matching(&left, &right);
            prop_assert!(pairs.iter().all(|(a, b)| left[*a] == right[*b]));
            prop_assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1));
            prop_assert_eq!(pairs.len(), longest(&left, &right));
        }
    }

    #[test]
    fn long_sequences_with_nothing_in_common_are_compared_quickly() {
        let (left, right): (Vec<u32>, Vec<u32>) = ((0..300_000).collect(), (300_000..600_000).collect());
        assert!(matching(&left, &right).is_empty());
        let doubled: Vec<u32> = (0..300_000).rev().collect();
        assert!(matching(&left, &doubled).len() <= 1);
    }
}
