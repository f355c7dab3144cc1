//! [`super::super::absmax`] in vectors.

use fearless_simd::Simd;

use super::super::absmax::{SMALLEST_SCALE, Width};
use super::half_bits::{SMALLEST_NORMAL, round_to_f16};
use super::kernel::{Choice, Rule};
use super::lanes::{Extremum, Lanes};

pub(super) struct AbsmaxInt4;
pub(super) struct AbsmaxInt8;

impl Rule for AbsmaxInt4 {
    type Start = f32;

    #[inline(always)]
    fn start(extremum: f32) -> f32 {
        scale(extremum, Width::Int4)
    }

    #[inline(always)]
    fn choose<S: Simd>(_: S, weights: Lanes<S>, _: Extremum, scale: f32) -> Option<Choice<S>> {
        choose(weights, scale, Width::Int4)
    }
}

impl Rule for AbsmaxInt8 {
    type Start = f32;

    #[inline(always)]
    fn start(extremum: f32) -> f32 {
        scale(extremum, Width::Int8)
    }

    #[inline(always)]
    fn choose<S: Simd>(_: S, weights: Lanes<S>, _: Extremum, scale: f32) -> Option<Choice<S>> {
        choose(weights, scale, Width::Int8)
    }
}

/// The scale for an extremum; infinite if one of them overflows f16.
#[inline(always)]
pub(super) fn scale(extremum: f32, width: Width) -> f32 {
    round_to_f16((round_to_f16(extremum.abs()) / width.divisor()).max(SMALLEST_SCALE))
}

#[inline(always)]
pub(super) fn choose<S: Simd>(weights: Lanes<S>, scale: f32, width: Width) -> Option<Choice<S>> {
    if scale.is_infinite() {
        return None;
    }
    // Normal f16 numbers hold a bf16 number exactly; below the smallest of them f16 numbers are 2^-24 apart, as f32 numbers
    // around 0.75 are.
    let subnormals = (weights + 0.75) - 0.75;
    let halves = weights.abs().is_below(SMALLEST_NORMAL).select(subnormals, weights);
    let (lowest, highest) = width.codes();
    let codes = (halves / scale).max(lowest).min(highest).round_ties_even();
    Some(Choice { scale, codes })
}
