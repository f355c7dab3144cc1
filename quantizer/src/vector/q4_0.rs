//! [`crate::q4_0`] in vectors.

use fearless_simd::Simd;
use half::bf16;

use super::half_bits::round_to_f16;
use super::kernel::{Choice, GROUP, Rule};
use super::lanes::{INTEGERS, Lanes};
use crate::block::BLOCK;

pub(super) struct Q4_0;

/// The scales in f16 and the inverses of those in f32.
pub(super) struct Start {
    scales: [f32; GROUP],
    inverses: [f32; GROUP],
}

impl Rule for Q4_0 {
    type Start = Start;

    const OVERFLOW: f32 = 8.0 * 65520.0;

    #[inline(always)]
    fn start(extrema: &[f32; GROUP]) -> Start {
        let mut start = Start { scales: [0.0; GROUP], inverses: [0.0; GROUP] };
        for ((scale, inverse), extremum) in start.scales.iter_mut().zip(&mut start.inverses).zip(extrema) {
            let d = extremum / -8.0;
            *scale = round_to_f16(d);
            *inverse = if (1.0 / d).is_finite() { 1.0 / d } else { 0.0 };
        }
        start
    }

    #[inline(always)]
    fn choose<S: Simd>(
        _: S,
        _: &[bf16; BLOCK],
        weights: Lanes<S>,
        _: f32,
        start: &Start,
        at: usize,
    ) -> Choice<S> {
        // The sums lie between 0.4 and 16.6, so their floors equal the truncated values, and are not below 0.
        let codes = (weights * start.inverses[at] + 8.5).floor().min(15.0) + (INTEGERS - 8.0);
        Choice { scale: start.scales[at], codes, on_lattice: false }
    }
}
