//! The `lattice` rule: recovers the 4-bit lattice on which a block was trained.
//!
//! A block lies on a lattice if there are a real scale `s` and codes `q` in -8..7 with `bf16(q * s)` equal to the weight, for all
//! 32 weights (round to nearest, ties to even; zeros of either sign are equal). Such codes are the trained ones: two sets of
//! codes that fit one block differ by a common factor, because bf16 numbers are too fine for anything else. Random weights are
//! not on a lattice for the same reason.
//!
//! Whether an f16 number is among these scales is a separate question. Trained scales are probably f32 numbers: in about 3 in 100
//! blocks of such a lattice the interval of scales is so narrow that it lies between two f16 numbers. Those blocks keep their codes
//! and take the one of the two that reproduces more weights; it is off by less than 2^-10 of the scale, less than the weights
//! themselves are.
//!
//! Below the smallest normal f16 number, 2^-14, there may be no f16 number near the scale. There the codes are kept only if that leaves a
//! smaller error than the best fit does. A block that is not on a lattice gets the best of a few fits, see [`nearest`].
//!
//! This module states the rule plainly, one block at a time; the vector path is tested to produce the same bits.

mod interval;
pub(super) mod nearest;

use half::{bf16, f16};

pub(super) use interval::COMMON_MULTIPLE;
pub use interval::Interval;

use super::QuantizeError;
use super::block::{BLOCK, Extremum, F16_OVERFLOW, Fit, count_exact, widen};

/// Codes that the extremum may have, in the order in which they are tried. Positive ones represent both signs: they take the
/// positive scale. -8 takes the scale that makes the extremum's code -8; where that is negative, because the extremum is positive,
/// it is tried last, so that a scale is negative only if no positive one will do.
pub const EXTREMUM_CODES: [i8; 8] = [7, -8, 6, 5, 4, 3, 2, 1];

/// [`EXTREMUM_CODES`] in the order in which they are tried for an extremum.
pub(super) fn extremum_codes(extremum: f32) -> impl Iterator<Item = i8> {
    let is_late = move |code: &i8| *code < 0 && extremum > 0.0;
    let early = EXTREMUM_CODES.into_iter().filter(move |code| !is_late(code));
    early.chain(EXTREMUM_CODES.into_iter().filter(is_late))
}

/// A block's lattice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Recovered {
    /// The scale. Of the f16 numbers in the interval a bf16 number if there is one, then the one nearest the middle, then the
    /// smallest. Without one, the next f16 number below or above it: the one that reproduces more weights, then the one nearer the
    /// middle, then the smaller.
    pub scale: f16,
    /// The codes.
    pub codes: [i8; BLOCK],
    /// Magnitudes of all real scales that reproduce the block with these codes.
    pub interval: Interval,
    /// Code of the first element of largest magnitude.
    pub extremum_code: i8,
    /// Whether the scale lies in the interval, so that every weight is reproduced byte for byte.
    pub is_exact: bool,
}

/// Finds the lattice of a block: the first of [`EXTREMUM_CODES`] whose interval holds an f16 number, else the first one whose
/// interval holds any number. A block of zeros has scale 0. `None` if the block is not on a lattice, or holds a weight that is not
/// finite or does not fit f16.
pub fn recover(block: &[bf16; BLOCK]) -> Option<Recovered> {
    let weights = widen(block).ok()?;
    let extremum = Extremum::of(&weights);
    if extremum.value.abs() >= F16_OVERFLOW { None } else { find(&weights, extremum) }
}

fn find(weights: &[f32; BLOCK], extremum: Extremum) -> Option<Recovered> {
    if extremum.value == 0.0 {
        let (scale, codes, interval) = (f16::ZERO, [0; BLOCK], Interval::UNBOUNDED);
        return Some(Recovered { scale, codes, interval, extremum_code: 0, is_exact: true });
    }
    let mut first = None;
    for code in extremum_codes(extremum.value) {
        let found = recover_with(weights, extremum, code);
        if found.is_some_and(|found| found.is_exact) {
            return found;
        }
        first = first.or(found);
    }
    first
}

fn recover_with(weights: &[f32; BLOCK], extremum: Extremum, extremum_code: i8) -> Option<Recovered> {
    let code = f32::from(extremum_code);
    // Any scale in the interval is within 2^-8 of this one, so the codes are the same for all of them.
    let estimate = if code > 0.0 { extremum.value.abs() / code } else { extremum.value / code };
    let mut codes = [0; BLOCK];
    let mut interval = Interval::UNBOUNDED;
    for (code, weight) in codes.iter_mut().zip(weights.iter().copied()) {
        let steps = (weight / estimate).round_ties_even();
        if !(-8.0..=7.0).contains(&steps) || (steps == 0.0) != (weight == 0.0) {
            return None;
        }
        *code = steps as i8;
        if *code != 0 {
            interval = interval.intersection(Interval::of(bf16::from_f32(weight), *code));
            if interval.is_empty() {
                return None;
            }
        }
    }
    let signed = |magnitude: f16| if estimate < 0.0 { -magnitude } else { magnitude };
    let exact = |scale| count_exact(weights, scale, &codes);
    let scale = match interval.scale() {
        Some(magnitude) => signed(magnitude),
        None => {
            let [near, far] = interval.neighbors().map(signed);
            if exact(far) > exact(near) { far } else { near }
        }
    };
    let (extremum_code, is_exact) = (codes[extremum.index], exact(scale) == BLOCK);
    Some(Recovered { scale, codes, interval, extremum_code, is_exact })
}

/// The lattice if there is one, else the best fit.
pub(super) fn fit(block: &[bf16; BLOCK]) -> Result<Fit, QuantizeError> {
    let weights = widen(block)?;
    let extremum = Extremum::of(&weights);
    if extremum.value.abs() >= F16_OVERFLOW {
        return Err(QuantizeError::Overflow { element: extremum.index });
    }
    Ok(place(&weights, extremum))
}

/// [`fit`] of weights that are known to fit f16.
pub(super) fn place(weights: &[f32; BLOCK], extremum: Extremum) -> Fit {
    let Some(Recovered { scale, codes, is_exact, .. }) = find(weights, extremum) else {
        return nearest::fit(weights, extremum);
    };
    let kept = Fit::measure(weights, scale, codes);
    let is_near = is_exact || scale.to_f32().abs() >= f16::MIN_POSITIVE.to_f32();
    let fit = if is_near { kept } else { nearest::better(kept, nearest::fit(weights, extremum)) };
    Fit { on_lattice: true, ..fit }
}
