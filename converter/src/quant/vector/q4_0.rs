//! [`super::super::q4_0`] in vectors.

use fearless_simd::Simd;

use super::half_bits::round_to_f16;
use super::kernel::{Choice, Rule};
use super::lanes::{Extremum, Lanes};

pub(super) struct Q4_0;

/// The scale in f16 and the inverse of the one in f32.
#[derive(Clone, Copy, Default)]
pub(super) struct Start {
    scale: f32,
    inverse: f32,
}

impl Rule for Q4_0 {
    type Start = Start;

    #[inline(always)]
    fn start(extremum: f32) -> Start {
        let d = extremum / -8.0;
        let inverse = 1.0 / d;
        Start { scale: round_to_f16(d), inverse: if inverse.is_finite() { inverse } else { 0.0 } }
    }

    #[inline(always)]
    fn choose<S: Simd>(_: S, weights: Lanes<S>, _: Extremum, start: Start) -> Option<Choice<S>> {
        let Start { scale, inverse } = start;
        // The sums lie between 0.4 and 16.6, so their floors are what truncation gives, and not below 0.
        let codes = (weights * inverse + 8.5).floor().min(15.0) - 8.0;
        scale.is_finite().then_some(Choice { scale, codes })
    }
}
