//! The `absmax` rule: what `coreai-opt` calls `symmetric`.

use half::f16;

use super::QuantizeError;
use super::block::{BLOCK, Extremum, F16_OVERFLOW, Fit, round_to_f16};

/// Smallest scale, so that the scale of a block of zeros can be divided by.
pub(super) const SMALLEST_SCALE: f32 = 1.0 / (1 << 23) as f32;

/// Width of the codes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Width {
    /// Codes -8..7.
    Int4,
    /// Codes -128..127.
    Int8,
}

impl Width {
    /// The largest magnitude over this is the scale: half of the number of steps between the extreme codes.
    pub(super) const fn divisor(self) -> f32 {
        match self {
            Width::Int4 => 7.5,
            Width::Int8 => 127.5,
        }
    }

    /// Smallest and largest code.
    pub(super) const fn codes(self) -> (f32, f32) {
        match self {
            Width::Int4 => (-8.0, 7.0),
            Width::Int8 => (-128.0, 127.0),
        }
    }
}

/// The result of [`place`] for weights, if all of them fit f16.
pub(super) fn fit(weights: &[f32; BLOCK], width: Width) -> Result<Fit, QuantizeError> {
    let extremum = Extremum::of(weights);
    if extremum.value.abs() >= F16_OVERFLOW {
        return Err(QuantizeError::Overflow { element: extremum.index });
    }
    Ok(place(weights, extremum, width))
}

/// `scale = f16(max(absmax / divisor, 2^-23))`, `code = clamp(round_half_even(weight / scale))`, all in f32, of the weights
/// rounded to f16 and divided by the stored scale.
pub(super) fn place(weights: &[f32; BLOCK], extremum: Extremum, width: Width) -> Fit {
    let largest = round_to_f16(extremum.value.abs());
    let scale = f16::from_f32((largest / width.divisor()).max(SMALLEST_SCALE));
    let (lowest, highest) = width.codes();
    let code =
        |weight| (round_to_f16(weight) / scale.to_f32()).round_ties_even().clamp(lowest, highest) as i8;
    Fit::measure(weights, scale, weights.map(code))
}
