//! [`crate::absmax`] in vectors.

use fearless_simd::Simd;
use half::bf16;

use super::half_bits::{SMALLEST_NORMAL, round_to_f16};
use super::kernel::{Choice, GROUP, Rule};
use super::lanes::{INTEGERS, Lanes};
use crate::absmax::{SMALLEST_SCALE, Width};
use crate::block::{BLOCK, F16_OVERFLOW};

pub(super) struct AbsmaxInt4;
pub(super) struct AbsmaxInt8;

impl Rule for AbsmaxInt4 {
    /// The scales.
    type Start = [f32; GROUP];

    const OVERFLOW: f32 = F16_OVERFLOW;

    #[inline(always)]
    fn start(extrema: &[f32; GROUP]) -> Self::Start {
        scales(extrema, Width::Int4)
    }

    #[inline(always)]
    fn choose<S: Simd>(
        _: S,
        _: &[bf16; BLOCK],
        weights: Lanes<S>,
        _: f32,
        scales: &Self::Start,
        at: usize,
    ) -> Choice<S> {
        choose(weights, scales[at], Width::Int4)
    }
}

impl Rule for AbsmaxInt8 {
    /// The scales.
    type Start = [f32; GROUP];

    const OVERFLOW: f32 = F16_OVERFLOW;

    #[inline(always)]
    fn start(extrema: &[f32; GROUP]) -> Self::Start {
        scales(extrema, Width::Int8)
    }

    #[inline(always)]
    fn choose<S: Simd>(
        _: S,
        _: &[bf16; BLOCK],
        weights: Lanes<S>,
        _: f32,
        scales: &Self::Start,
        at: usize,
    ) -> Choice<S> {
        choose(weights, scales[at], Width::Int8)
    }
}

#[inline(always)]
fn scales(extrema: &[f32; GROUP], width: Width) -> [f32; GROUP] {
    let mut scales = [0.0; GROUP];
    for (into, extremum) in scales.iter_mut().zip(extrema) {
        *into = scale(*extremum, width);
    }
    scales
}

#[inline(always)]
pub(super) fn scale(extremum: f32, width: Width) -> f32 {
    let scale = round_to_f16(extremum.abs()) / width.divisor();
    round_to_f16(if scale > SMALLEST_SCALE { scale } else { SMALLEST_SCALE })
}

#[inline(always)]
pub(super) fn choose<S: Simd>(weights: Lanes<S>, scale: f32, width: Width) -> Choice<S> {
    let (lowest, highest) = width.codes();
    let quotients = if scale < 4.0 * SMALLEST_NORMAL {
        (through_f16(weights) / scale).max(lowest)
    } else {
        // Weights below normal f16 numbers get code 0, rounded or not. The scale is off by less than 2^-11, so no quotient is
        // below the lowest code by half.
        weights / scale
    };
    // The sum rounds, ties to even.
    Choice { scale, codes: quotients.min(highest) + INTEGERS, on_lattice: false }
}

/// Rounds bf16 numbers to f16. Normal f16 numbers hold them exactly; below those f16 numbers are 2^-24 apart, as f32 numbers
/// around 0.75 are.
#[inline(always)]
fn through_f16<S: Simd>(weights: Lanes<S>) -> Lanes<S> {
    let subnormals = (weights + 0.75) - 0.75;
    weights.abs().is_below(SMALLEST_NORMAL).select(subnormals, weights)
}
