//! Weights of two programs: equal, the same codes with other scales, or different, and by how much.

use std::collections::{BTreeSet, HashMap};

use aimodel::align::{Graph, SMALL, Step};
use aimodel::package::Package;
use aimodel::view::{Place, Stored, Weight, piece};
use aimodel::{Opcode, ValueId};
use rayon::prelude::*;
use serde::Serialize;

use super::bytes::first_difference;

/// The weights of two programs.
#[derive(Debug, Serialize)]
pub struct WeightsDifference {
    /// Pairs of weights.
    pub compared: usize,
    /// Those that are equal.
    pub equal: usize,
    /// Bytes on the left that were compared.
    pub bytes: u64,
    /// Those that are not.
    pub different: Vec<WeightDifference>,
    /// Names of those on the left without a counterpart on the right.
    pub only_left: Vec<String>,
    /// Names of those on the right without a counterpart on the left.
    pub only_right: Vec<String>,
}

impl WeightsDifference {
    pub(super) fn is_equal(&self) -> bool {
        self.different.is_empty() && self.only_left.is_empty() && self.only_right.is_empty()
    }
}

/// One weight that differs.
#[derive(Debug, Serialize)]
pub struct WeightDifference {
    /// Its name, or where it is used.
    pub name: String,
    /// How it differs.
    pub verdict: WeightVerdict,
    /// Format on the left, such as `si4/32`.
    pub left: String,
    /// Format on the right.
    pub right: String,
    /// How its values differ, where they can be compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<ValuesDifference>,
}

/// How a weight differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WeightVerdict {
    /// The codes are equal, scales are not.
    OtherScales,
    /// Stored in the same way, with other values.
    Different,
    /// Stored in another way.
    OtherFormat,
    /// The shapes differ.
    OtherShape,
}

/// What the graph computes with on either side.
#[derive(Debug, Serialize)]
pub struct ValuesDifference {
    /// How many there are.
    pub weights: u64,
    /// How many differ.
    pub differing: u64,
    /// Root of the squared difference over the squared weights on the left; none where those are zero.
    pub relative_error: Option<f64>,
    /// The first that is stored differently or, if the formats differ, has another value.
    pub first: Option<FirstDifference>,
}

/// The first weight that differs.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct FirstDifference {
    /// Where it is.
    #[serde(flatten)]
    pub place: Place,
    /// Its value on the left.
    pub left: f32,
    /// Its value on the right.
    pub right: f32,
    /// Codes on the left and on the right, where both have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codes: Option<[i32; 2]>,
}

/// A package and a weight of it.
type Side<'a> = (&'a Package, &'a Weight);

/// Weights that correspond to each other.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    left: Weight,
    right: Weight,
    /// Where weights without a name are used.
    used: String,
}

impl Pair {
    fn name(&self) -> String {
        let weights = [&self.left, &self.right];
        let named = weights.iter().find(|weight| weight.has_name());
        let keyed = || weights.iter().find(|weight| weight.key().is_some());
        named.or_else(keyed).map_or_else(|| self.used.clone(), |weight| weight.name().to_owned())
    }
}

/// Weights that correspond to each other, as they are found.
#[derive(Default)]
pub(super) struct Pairs(Vec<Pair>);

impl Pairs {
    /// Adds those that ops of an alignment use in the same place.
    pub(super) fn add(&mut self, graph: &Graph<'_>, left: &Package, right: &Package, steps: &[Step]) {
        for step in steps {
            let Step::Both { left: op, right: other, .. } = step else { continue };
            let (a, b) = (left.bytecode.module.op(*op), right.bytecode.module.op(*other));
            let mut add = |part: &str, at: usize, (ours, theirs): (&ValueId, &ValueId)| {
                if let (Some(left), Some(right)) = (left.weight(*ours), right.weight(*theirs)) {
                    self.0.push(Pair { left, right, used: format!("{part} {at} of {}", graph.results(*op)) });
                }
            };
            let mut operands = 0;
            if a.opcode == Opcode::BlockwiseShiftScale {
                // Codes and scales are compared as one weight, where they meet.
                a.results.iter().zip(&b.results).enumerate().for_each(|(at, pair)| add("result", at, pair));
                operands = 2;
            }
            let pairs = a.operands.iter().zip(&b.operands).enumerate().skip(operands);
            pairs.for_each(|(at, pair)| add("operand", at, pair));
        }
    }
}

/// Compares weights that correspond to each other, then those of the same name, and lists the rest.
pub(super) fn compare(left: &Package, right: &Package, pairs: Pairs) -> anyhow::Result<WeightsDifference> {
    let (ours, theirs) = (left.weights(), right.weights());
    let mut seen = BTreeSet::new();
    let mut pairs: Vec<Pair> = pairs.0;
    pairs.retain(|pair| is_large(pair) && seen.insert((pair.left.clone(), pair.right.clone())));
    let mut lefts: BTreeSet<Weight> = pairs.iter().map(|pair| pair.left.clone()).collect();
    let mut rights: BTreeSet<Weight> = pairs.iter().map(|pair| pair.right.clone()).collect();
    let unpaired = theirs.iter().rev().filter(|weight| !rights.contains(weight));
    let named: HashMap<&str, &Weight> = unpaired.map(|weight| (weight.name(), weight)).collect();
    for left in ours.iter().filter(|weight| weight.has_name() && !lefts.contains(weight)) {
        let found = named.get(left.name()).copied();
        let pair = |right: &Weight| Pair { left: left.clone(), right: right.clone(), used: String::new() };
        pairs.extend(found.map(pair));
    }
    lefts.extend(pairs.iter().map(|pair| pair.left.clone()));
    rights.extend(pairs.iter().map(|pair| pair.right.clone()));
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
        bytes: pairs.iter().map(|pair| pair.left.bytes()).sum(),
        different: Vec::new(),
        only_left: rest(&ours, &lefts),
        only_right: rest(&theirs, &rights),
    };
    for pair in &pairs {
        match compare_weight((left, &pair.left), (right, &pair.right), pair)? {
            Some(difference) => result.different.push(difference),
            None => result.equal += 1,
        }
    }
    Ok(result)
}

/// Small constants are compared with the ops that use them.
fn is_large(pair: &Pair) -> bool {
    let large = |weight: &Weight| {
        weight.key().is_some() || !weight.stored().is_splat() && weight.bytes() > SMALL as u64
    };
    large(&pair.left) || large(&pair.right)
}

fn compare_weight(left: Side<'_>, right: Side<'_>, pair: &Pair) -> anyhow::Result<Option<WeightDifference>> {
    let mut first = None;
    let verdict = match (left.1, right.1) {
        (a, b) if a.stored().shape != b.stored().shape => WeightVerdict::OtherShape,
        (Weight::Whole(a), Weight::Whole(b)) if a.element == b.element => {
            first = first_element((left.0, a), (right.0, b))?;
            WeightVerdict::Different
        }
        (Weight::Blocks { codes: a, scales: s }, Weight::Blocks { codes: b, scales: t })
            if (a.element, s.element, &s.shape) == (b.element, t.element, &t.shape) =>
        {
            let code = first_element((left.0, a), (right.0, b))?;
            let scale = first_element((left.0, s), (right.0, t))?;
            let block = left.1.block().unwrap_or(1);
            first = code.into_iter().chain(scale.map(|scale| scale * block)).min();
            if code.is_some() { WeightVerdict::Different } else { WeightVerdict::OtherScales }
        }
        _ => WeightVerdict::OtherFormat,
    };
    if first.is_none() && !matches!(verdict, WeightVerdict::OtherFormat | WeightVerdict::OtherShape) {
        return Ok(None);
    }
    let comparable = verdict != WeightVerdict::OtherShape && left.1.is_readable() && right.1.is_readable();
    let values = comparable.then(|| compare_values(left, right, first)).transpose()?;
    Ok(Some(WeightDifference {
        name: pair.name(),
        verdict,
        left: left.1.format(),
        right: right.1.format(),
        values,
    }))
}

/// First element that is not stored as the same bits, of two tensors of one type.
fn first_element(
    (left, ours): (&Package, &Stored),
    (right, theirs): (&Package, &Stored),
) -> anyhow::Result<Option<u64>> {
    let length = ours.bytes().min(theirs.bytes());
    let found = first_difference(length, &|a, b, offset| {
        left.read_stored(ours, offset, a)?;
        Ok(right.read_stored(theirs, offset, b)?)
    })?;
    let bits = ours.element.bits();
    let Some(byte) = found else {
        return Ok((ours.bytes() != theirs.bytes()).then_some(length * 8 / bits));
    };
    let (mut a, mut b) = ([0], [0]);
    left.read_stored(ours, byte, &mut a)?;
    right.read_stored(theirs, byte, &mut b)?;
    // The first element of a byte is in its lowest bits.
    let within = u64::from((a[0] ^ b[0]).trailing_zeros());
    Ok(Some((byte * 8 + within) / bits))
}

/// An element on both sides.
fn first_at(left: Side<'_>, right: Side<'_>, index: u64) -> anyhow::Result<FirstDifference> {
    let value = |(package, weight): Side<'_>| -> anyhow::Result<f32> {
        let start = index - index % weight.block().unwrap_or(2);
        let count = usize::try_from(index - start + 1)?;
        Ok(package.values(weight, start, count)?.last().copied().unwrap_or_default())
    };
    let code = |(package, weight): Side<'_>| -> anyhow::Result<Option<i32>> {
        let Weight::Blocks { codes, .. } = weight else { return Ok(None) };
        let start = index - index % 2;
        let codes = package.elements(codes, start, usize::try_from(index - start + 1)?)?;
        Ok(codes.last().map(|code| *code as i32))
    };
    let codes = code(left)?.zip(code(right)?).map(|(left, right)| [left, right]);
    let in_blocks = if left.1.block().is_ok() { left.1 } else { right.1 };
    Ok(FirstDifference { place: in_blocks.place(index), left: value(left)?, right: value(right)?, codes })
}

/// What a piece adds to the sums.
struct Piece {
    differing: u64,
    squared_error: f64,
    squared_weights: f64,
    first: Option<u64>,
}

/// Compares what the graph computes with. `stored` is the first element that is stored differently, if that is known.
fn compare_values(left: Side<'_>, right: Side<'_>, stored: Option<u64>) -> anyhow::Result<ValuesDifference> {
    let weights = left.1.stored().count();
    let size = piece(&[left.1, right.1]);
    let compare_piece = |piece: u64| -> anyhow::Result<Piece> {
        let start = piece * size;
        let count = usize::try_from((weights - start).min(size))?;
        let (a, b) = (left.0.values(left.1, start, count)?, right.0.values(right.1, start, count)?);
        let mut piece = Piece { differing: 0, squared_error: 0.0, squared_weights: 0.0, first: None };
        for (index, (a, b)) in a.into_iter().zip(b).enumerate() {
            let (x, y) = (f64::from(a), f64::from(b));
            piece.squared_weights += x * x;
            if a != b {
                piece.differing += 1;
                piece.squared_error += (x - y) * (x - y);
                piece.first.get_or_insert(start + index as u64);
            }
        }
        Ok(piece)
    };
    // Sums are taken in the order of the pieces, so that they do not depend on the number of threads.
    let pieces: Vec<anyhow::Result<Piece>> =
        (0..weights.div_ceil(size)).into_par_iter().map(compare_piece).collect();
    let mut values = ValuesDifference { weights, differing: 0, relative_error: None, first: None };
    let (mut squared_error, mut squared_weights, mut first) = (0.0, 0.0, stored);
    for piece in pieces {
        let piece = piece?;
        values.differing += piece.differing;
        first = first.or(piece.first);
        squared_error += piece.squared_error;
        squared_weights += piece.squared_weights;
    }
    values.relative_error = (squared_weights > 0.0).then(|| (squared_error / squared_weights).sqrt());
    values.first = first.map(|index| first_at(left, right, index)).transpose()?;
    Ok(values)
}
