//! Weights of two programs: equal, the same codes with other scales, or different, and by how much.

use std::collections::BTreeSet;

use aimodel::Opcode;
use aimodel::align::Step;
use rayon::prelude::*;
use serde::Serialize;

use super::bytes::first_difference;
use crate::weights::{Place, Program, Stored, Weight};

/// Elements that are compared at a time; whole blocks of any size that is a power of two.
const PIECE: u64 = 1 << 18;

/// The weights of two programs.
#[derive(Debug, Serialize)]
pub(super) struct WeightsDifference {
    pub(super) compared: usize,
    pub(super) equal: usize,
    /// Bytes on the left that were compared.
    pub(super) bytes: u64,
    pub(super) different: Vec<WeightDifference>,
    /// Names of those that nothing on the other side stands for.
    pub(super) only_left: Vec<String>,
    pub(super) only_right: Vec<String>,
}

impl WeightsDifference {
    pub(super) fn is_equal(&self) -> bool {
        self.different.is_empty() && self.only_left.is_empty() && self.only_right.is_empty()
    }
}

/// One weight that differs.
#[derive(Debug, Serialize)]
pub(super) struct WeightDifference {
    pub(super) name: String,
    pub(super) verdict: WeightVerdict,
    /// Format on each side, such as `si4/32`.
    pub(super) left: String,
    pub(super) right: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) values: Option<Values>,
}

/// In what way a weight differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum WeightVerdict {
    /// The codes are equal, scales are not.
    OtherScales,
    /// Stored in the same way, with other values.
    Different,
    /// Stored in another way.
    OtherFormat,
    /// Not of one shape.
    OtherShape,
}

/// What the graph computes with on either side.
#[derive(Debug, Serialize)]
pub(super) struct Values {
    pub(super) weights: u64,
    pub(super) differing: u64,
    /// Root of the squared difference over the squared weights on the left; none where those are zero.
    pub(super) relative_error: Option<f64>,
    /// The first that differs; none if all values are the same.
    pub(super) first: Option<First>,
}

/// The first weight that differs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct First {
    #[serde(flatten)]
    pub(super) place: Place,
    pub(super) left: f32,
    pub(super) right: f32,
}

/// Weights that stand for each other.
#[derive(Default)]
pub(super) struct Pairs(Vec<(Weight, Weight)>);

impl Pairs {
    /// Adds those that ops of an alignment use in the same place.
    pub(super) fn add(&mut self, left: &Program, right: &Program, steps: &[Step]) {
        for step in steps {
            let Step::Both { left: a, right: b, .. } = step else { continue };
            let (a, b) = (left.bytecode().module.op(*a), right.bytecode().module.op(*b));
            // Codes and scales are compared as one weight, where they meet.
            let (a, b) = match a.opcode {
                Opcode::BlockwiseShiftScale => (&a.results, &b.results),
                _ => (&a.operands, &b.operands),
            };
            for (a, b) in a.iter().zip(b) {
                if let (Some(a), Some(b)) = (left.weight(*a), right.weight(*b))
                    && (a.key().is_some() || b.key().is_some())
                {
                    self.0.push((a, b));
                }
            }
        }
    }
}

/// Compares weights that stand for each other, then those of the same name, and lists the rest.
pub(super) fn compare(left: &Program, right: &Program, pairs: Pairs) -> anyhow::Result<WeightsDifference> {
    let (ours, theirs) = (left.weights(), right.weights());
    let mut seen = BTreeSet::new();
    let mut pairs: Vec<(Weight, Weight)> =
        pairs.0.into_iter().filter(|pair| seen.insert(pair.clone())).collect();
    let mut lefts: BTreeSet<Weight> = pairs.iter().map(|(left, _)| left.clone()).collect();
    let mut rights: BTreeSet<Weight> = pairs.iter().map(|(_, right)| right.clone()).collect();
    for weight in ours.iter().filter(|weight| weight.has_name() && !lefts.contains(weight)) {
        let found = theirs.iter().find(|other| other.name() == weight.name() && !rights.contains(other));
        pairs.extend(found.map(|other| (weight.clone(), other.clone())));
    }
    lefts.extend(pairs.iter().map(|(left, _)| left.clone()));
    rights.extend(pairs.iter().map(|(_, right)| right.clone()));
    let rest = |weights: &[Weight], paired: &BTreeSet<Weight>| -> Vec<String> {
        weights
            .iter()
            .filter(|weight| !paired.contains(weight))
            .map(|weight| weight.name().to_owned())
            .collect()
    };
    let mut result = WeightsDifference {
        compared: pairs.len(),
        equal: 0,
        bytes: pairs.iter().map(|(left, _)| left.bytes()).sum(),
        different: Vec::new(),
        only_left: rest(&ours, &lefts),
        only_right: rest(&theirs, &rights),
    };
    for (a, b) in &pairs {
        match compare_weight((left, a), (right, b))? {
            Some(difference) => result.different.push(difference),
            None => result.equal += 1,
        }
    }
    Ok(result)
}

fn compare_weight(
    left: (&Program, &Weight),
    right: (&Program, &Weight),
) -> anyhow::Result<Option<WeightDifference>> {
    let verdict = match (left.1, right.1) {
        (a, b) if a.stored().shape != b.stored().shape => WeightVerdict::OtherShape,
        (Weight::Whole(a), Weight::Whole(b)) if a.element == b.element => {
            if same((left.0, a), (right.0, b))? {
                return Ok(None);
            }
            WeightVerdict::Different
        }
        (Weight::Blocks { codes: a, scales: s }, Weight::Blocks { codes: b, scales: t })
            if (a.element, s.element, &s.shape) == (b.element, t.element, &t.shape) =>
        {
            let same_codes = same((left.0, a), (right.0, b))?;
            match (same_codes, same((left.0, s), (right.0, t))?) {
                (true, true) => return Ok(None),
                (true, false) => WeightVerdict::OtherScales,
                (false, _) => WeightVerdict::Different,
            }
        }
        _ => WeightVerdict::OtherFormat,
    };
    let values = match verdict {
        WeightVerdict::OtherShape => None,
        _ => Some(compare_values(left, right)?),
    };
    let named = if left.1.has_name() { left.1 } else { right.1 };
    Ok(Some(WeightDifference {
        name: named.name().to_owned(),
        verdict,
        left: left.1.format(),
        right: right.1.format(),
        values,
    }))
}

/// Whether elements of one type and shape are stored as the same bytes.
fn same((left, ours): (&Program, &Stored), (right, theirs): (&Program, &Stored)) -> anyhow::Result<bool> {
    if ours.bytes() != theirs.bytes() {
        return Ok(false);
    }
    let found = first_difference(ours.bytes(), &|a, b, offset| {
        left.read(ours, offset, a)?;
        right.read(theirs, offset, b)
    })?;
    Ok(found.is_none())
}

/// What a piece adds.
struct Piece {
    differing: u64,
    squared_error: f64,
    squared_weights: f64,
    first: Option<First>,
}

fn compare_values(
    (left, ours): (&Program, &Weight),
    (right, theirs): (&Program, &Weight),
) -> anyhow::Result<Values> {
    let weights = ours.stored().count();
    let in_blocks = if ours.block().is_ok() { ours } else { theirs };
    let compare_piece = |piece: u64| -> anyhow::Result<Piece> {
        let start = piece * PIECE;
        let count = (weights - start).min(PIECE) as usize;
        let (a, b) = (left.values(ours, start, count)?, right.values(theirs, start, count)?);
        let mut piece = Piece { differing: 0, squared_error: 0.0, squared_weights: 0.0, first: None };
        for (index, (a, b)) in a.into_iter().zip(b).enumerate() {
            let (x, y) = (f64::from(a), f64::from(b));
            piece.squared_weights += x * x;
            if a != b {
                piece.differing += 1;
                piece.squared_error += (x - y) * (x - y);
                let place = || in_blocks.place(start + index as u64);
                piece.first.get_or_insert_with(|| First { place: place(), left: a, right: b });
            }
        }
        Ok(piece)
    };
    // Sums are taken in the order of the pieces, so that they do not depend on the number of threads.
    let pieces: Vec<anyhow::Result<Piece>> =
        (0..weights.div_ceil(PIECE)).into_par_iter().map(compare_piece).collect();
    let mut values = Values { weights, differing: 0, relative_error: None, first: None };
    let (mut squared_error, mut squared_weights) = (0.0, 0.0);
    for piece in pieces {
        let piece = piece?;
        values.differing += piece.differing;
        values.first = values.first.or(piece.first);
        squared_error += piece.squared_error;
        squared_weights += piece.squared_weights;
    }
    values.relative_error = (squared_weights > 0.0).then(|| (squared_error / squared_weights).sqrt());
    Ok(values)
}
