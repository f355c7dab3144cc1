//! [`super::super::absmax`] in vectors.

use fearless_simd::Simd;

use super::super::absmax::{SMALLEST_SCALE, Width};
use super::super::block::F16_OVERFLOW;
use super::half_bits::{SMALLEST_NORMAL, round_to_f16};
use super::kernel::{Choice, GROUP, Rule};
use super::lanes::{INTEGERS, Lanes};

pub(super) struct AbsmaxInt4;
pub(super) struct AbsmaxInt8;

impl Rule for AbsmaxInt4 {
    /// The scales.
    type Start = [f32; GROUP];

    const OVERFLOW: f32 = F16_OVERFLOW;

    #[inline(always)]
    fn start(extrema: &[f32; GROUP]) -> Self::Start {
        extrema.map(|extremum| scale(extremum, Width::Int4))
    }

    #[inline(always)]
    fn choose<S: Simd>(_: S, weights: Lanes<S>, _: f32, scales: &Self::Start, at: usize) -> Choice<S> {
        choose(weights, scales[at], Width::Int4)
    }
}

impl Rule for AbsmaxInt8 {
    /// The scales.
    type Start = [f32; GROUP];

    const OVERFLOW: f32 = F16_OVERFLOW;

    #[inline(always)]
    fn start(extrema: &[f32; GROUP]) -> Self::Start {
        extrema.map(|extremum| scale(extremum, Width::Int8))
    }

    #[inline(always)]
    fn choose<S: Simd>(_: S, weights: Lanes<S>, _: f32, scales: &Self::Start, at: usize) -> Choice<S> {
        choose(weights, scales[at], Width::Int8)
    }
}

#[inline(always)]
pub(super) fn scale(extremum: f32, width: Width) -> f32 {
    let scale = round_to_f16(extremum.abs()) / width.divisor();
    round_to_f16(if scale > SMALLEST_SCALE { scale } else { SMALLEST_SCALE })
}

#[inline(always)]
pub(super) fn choose<S: Simd>(weights: Lanes<S>, scale: f32, width: Width) -> Choice<S> {
    // Normal f16 numbers hold a bf16 number exactly. Others get code 0 anyway unless the scale is hardly larger than they are.
    let halves = if scale < 4.0 * SMALLEST_NORMAL { through_f16(weights) } else { weights };
    let (lowest, highest) = width.codes();
    // The sum rounds, ties to even.
    Choice { scale, codes: (halves / scale).max(lowest).min(highest) + INTEGERS }
}

/// Rounds bf16 numbers to f16: below normal ones f16 numbers are 2^-24 apart, as f32 numbers around 0.75 are.
#[inline(always)]
fn through_f16<S: Simd>(weights: Lanes<S>) -> Lanes<S> {
    let subnormals = (weights + 0.75) - 0.75;
    weights.abs().is_below(SMALLEST_NORMAL).select(subnormals, weights)
}
