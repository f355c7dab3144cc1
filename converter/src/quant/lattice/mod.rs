//! The `lattice` rule: recovers the 4-bit lattice on which a block was trained.
//!
//! A block is on a lattice if there are an f16 scale `s` and codes `q` in -8..7 with `bf16(q * s)` equal to the weight, for all
//! 32 weights (round to nearest, ties to even; zeros of either sign are equal). A block that is on none gets the best of a few
//! fits, see [`nearest`].
//!
//! What stands here is the plain statement of the rule, one block at a time; the vector path is tested to give the same bits.

mod interval;
pub(super) mod nearest;

use half::{bf16, f16};

pub(super) use interval::COMMON_MULTIPLE;
pub use interval::Interval;

use super::QuantizeError;
use super::block::{BLOCK, Extremum, F16_OVERFLOW, Fit, round_to_bf16, widen};

/// Codes that the extremum may have, in the order in which they are tried. Positive ones stand for both signs: they take the
/// positive scale. -8 takes the scale that makes the extremum's code -8; where that is negative, because the extremum is positive,
/// it is tried last, so that a scale is negative only if no positive one will do.
pub const EXTREMUM_CODES: [i8; 8] = [7, -8, 6, 5, 4, 3, 2, 1];

/// [`EXTREMUM_CODES`] in the order for an extremum.
pub(super) fn extremum_codes(extremum: f32) -> impl Iterator<Item = i8> {
    let is_late = move |code: &i8| *code < 0 && extremum > 0.0;
    let early = EXTREMUM_CODES.into_iter().filter(move |code| !is_late(code));
    early.chain(EXTREMUM_CODES.into_iter().filter(is_late))
}

/// A block's lattice.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Recovered {
    /// The scale: of the f16 numbers in the interval a bf16 number if there is one, then the one nearest the middle, then the
    /// smallest.
    pub scale: f16,
    /// The codes.
    pub codes: [i8; BLOCK],
    /// Magnitudes of all scales that reproduce the block with these codes.
    pub interval: Interval,
    /// Code of the first element of largest magnitude.
    pub extremum_code: i8,
}

/// Finds the lattice of a block: the first of [`EXTREMUM_CODES`] whose interval holds an f16 number. A block of zeros has scale
/// 0. `None` if the block is on no lattice, or holds a weight that is not finite or does not fit f16.
pub fn recover(block: &[bf16; BLOCK]) -> Option<Recovered> {
    let weights = widen(block).ok()?;
    let extremum = Extremum::of(&weights);
    if extremum.value == 0.0 {
        let (scale, codes, interval) = (f16::ZERO, [0; BLOCK], Interval::UNBOUNDED);
        return Some(Recovered { scale, codes, interval, extremum_code: 0 });
    }
    if extremum.value.abs() >= F16_OVERFLOW {
        return None;
    }
    extremum_codes(extremum.value).find_map(|code| recover_with(&weights, extremum, code))
}

/// Whether a block is on a lattice.
pub fn is_on_lattice(block: &[bf16; BLOCK]) -> bool {
    recover(block).is_some()
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
        }
    }
    let magnitude = interval.scale()?;
    let scale = if estimate < 0.0 { -magnitude } else { magnitude };
    let exact = |(code, weight): (&i8, &f32)| round_to_bf16(f32::from(*code) * scale.to_f32()) == *weight;
    let all_exact = codes.iter().zip(weights).all(exact);
    let extremum_code = codes[extremum.index];
    all_exact.then_some(Recovered { scale, codes, interval, extremum_code })
}

/// The lattice if there is one, else the best fit.
pub(super) fn fit(block: &[bf16; BLOCK]) -> Result<Fit, QuantizeError> {
    let weights = widen(block)?;
    let extremum = Extremum::of(&weights);
    if extremum.value.abs() >= F16_OVERFLOW {
        return Err(QuantizeError::Overflow { element: extremum.index });
    }
    match recover(block) {
        Some(recovered) => Ok(Fit::measure(&weights, recovered.scale, recovered.codes)),
        None => nearest::fit(&weights, extremum),
    }
}
