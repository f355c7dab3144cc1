//! [`crate::quant::lattice`] in vectors.
//!
//! Under a code of the extremum at most two bf16 scales reproduce the extremum. If exactly one of them reproduces the whole block,
//! it is the only bf16 number in the block's interval, so the interval need not be known; otherwise it is computed. A test with a
//! tolerance settles almost every wrong code.

use fearless_simd::Simd;
use half::f16;

use super::absmax;
use super::half_bits::{SMALLEST_NORMAL, round_to_f16};
use super::kernel::{Choice, GROUP, Rule, squared_error};
use super::lanes::{INTEGERS, Lanes};
use crate::quant::absmax::Width;
use crate::quant::block::F16_OVERFLOW;
use crate::quant::lattice::nearest::{DIVISORS, MARGIN};
use crate::quant::lattice::{COMMON_MULTIPLE, EXTREMUM_CODES, extremum_codes};

pub(super) struct Lattice;

/// Smallest f16 number; no smaller weight but zero is on a lattice.
const SMALLEST: f32 = 1.0 / (1 << 24) as f32;

/// A weight on a lattice is within half a bf16 step, 2^-8 of it, of `code * scale`, and the extremum over its code is within
/// 2^-8 of the scale: their quotient is within 2^-7 of the code. A little more for the rounding of the quotient.
const TOLERANCE: f32 = 1.0 / 126.0;

/// One of the codes that the extremum may have, for a group of blocks.
pub(super) struct Guess {
    /// Inverse scales.
    inverses: [f32; GROUP],
    /// Magnitudes of the bf16 scales that reproduce the extremum: at most two, the others NaN.
    scales: [[f32; GROUP]; 2],
}

impl Guess {
    #[inline(always)]
    fn new(extrema: &[f32; GROUP], code: i8) -> Self {
        let code = f32::from(code);
        let mut guess = Guess { inverses: [0.0; GROUP], scales: [[0.0; GROUP]; 2] };
        for (at, extremum) in extrema.iter().enumerate() {
            guess.inverses[at] = inverse_scale(*extremum, code);
            [guess.scales[0][at], guess.scales[1][at]] = bf16_scales(extremum.abs(), code.abs());
        }
        guess
    }

    #[inline(always)]
    fn scales(&self, at: usize) -> [f32; 2] {
        [self.scales[0][at], self.scales[1][at]]
    }
}

impl Rule for Lattice {
    /// The first two of [`EXTREMUM_CODES`].
    type Start = [Guess; 2];

    const OVERFLOW: f32 = F16_OVERFLOW;

    #[inline(always)]
    fn start(extrema: &[f32; GROUP]) -> Self::Start {
        [Guess::new(extrema, EXTREMUM_CODES[0]), Guess::new(extrema, EXTREMUM_CODES[1])]
    }

    #[inline(always)]
    fn choose<S: Simd>(
        simd: S,
        weights: Lanes<S>,
        extremum: f32,
        start: &Self::Start,
        at: usize,
    ) -> Choice<S> {
        let choice = match recover_quickly(weights, start, at) {
            Some(choice) => choice,
            None => recover(simd, weights, extremum).unwrap_or_else(
                #[inline(always)]
                || nearest(weights, extremum),
            ),
        };
        Choice { codes: choice.codes + INTEGERS, ..choice }
    }
}

/// The lattice of almost every block that is on one: those with a single bf16 scale under one of two codes of the extremum.
#[inline(always)]
fn recover_quickly<S: Simd>(weights: Lanes<S>, [first, second]: &[Guess; 2], at: usize) -> Option<Choice<S>> {
    let candidate = Candidate::new(weights, first.inverses[at]);
    let scale = candidate.only_exact(first.scales(at));
    if scale.is_some() {
        return candidate.choice(scale);
    }
    if candidate.is_possible() {
        return None;
    }
    let candidate = Candidate::new(weights, second.inverses[at]);
    // Under a smaller code of the extremum all of these codes would be even; a positive scale is to be preferred then.
    if !candidate.is_possible() || candidate.sign < 0.0 && !candidate.codes.has_odd_integers() {
        return None;
    }
    candidate.choice(candidate.only_exact(second.scales(at)))
}

/// The lattice of a block that is on one.
#[inline(always)]
fn recover<S: Simd>(simd: S, weights: Lanes<S>, extremum: f32) -> Option<Choice<S>> {
    if extremum == 0.0 {
        return Some(Choice { scale: 0.0, codes: Lanes::splat(simd, 0.0) });
    }
    if extremum.abs() < SMALLEST {
        return None;
    }
    for code in extremum_codes(extremum).map(f32::from) {
        let candidate = Candidate::new(weights, inverse_scale(extremum, code));
        if !candidate.is_possible() {
            continue;
        }
        let scale = match candidate.only_exact(bf16_scales(extremum.abs(), code.abs())) {
            Some(scale) => Some(scale),
            None => candidate.scale_in_interval(simd),
        };
        if scale.is_some() {
            return candidate.choice(scale);
        }
    }
    None
}

/// Inverse of the scale under which the extremum has a code, see [`EXTREMUM_CODES`].
#[inline(always)]
fn inverse_scale(extremum: f32, code: f32) -> f32 {
    code / if code > 0.0 { extremum.abs() } else { extremum }
}

/// The bf16 scales whose product with a code rounds to a magnitude; those that are none, or may be no normal f16 numbers, are
/// NaN. There are at most two, next to the quotient, because the interval around that is less than two bf16 steps wide.
#[inline(always)]
fn bf16_scales(magnitude: f32, code: f32) -> [f32; 2] {
    let quotient = magnitude / code;
    let nearest = bf16_of(quotient);
    let step = if nearest < quotient { 1 << 16 } else { -(1 << 16) };
    let other = f32::from_bits(nearest.to_bits().wrapping_add_signed(step));
    [nearest, other].map(|scale| {
        let is_one = quotient >= 2.0 * SMALLEST_NORMAL && bf16_of(scale * code) == magnitude;
        if is_one { scale } else { f32::NAN }
    })
}

/// Codes under which a block may be on a lattice.
#[derive(Clone, Copy)]
struct Candidate<S: Simd> {
    weights: Lanes<S>,
    quotients: Lanes<S>,
    codes: Lanes<S>,
    /// Of the scale: 1 or -1.
    sign: f32,
}

impl<S: Simd> Candidate<S> {
    #[inline(always)]
    fn new(weights: Lanes<S>, inverse: f32) -> Self {
        let quotients = weights * inverse;
        Candidate { weights, quotients, codes: quotients.round_ties_even(), sign: 1.0_f32.copysign(inverse) }
    }

    #[inline(always)]
    fn choice(self, magnitude: Option<f32>) -> Option<Choice<S>> {
        Some(Choice { scale: magnitude? * self.sign, codes: self.codes })
    }

    /// False only if no scale near the one that made the quotients reproduces the block, or a code is out of range.
    #[inline(always)]
    fn is_possible(self) -> bool {
        self.quotients.are_near(self.codes, TOLERANCE) && self.codes.are_below(7.5)
    }

    /// Whether a magnitude of the scale reproduces all weights.
    #[inline(always)]
    fn is_exact(self, magnitude: f32) -> bool {
        let scale = magnitude * self.sign;
        (self.codes * scale).round_to_bf16().equals(self.weights).all()
    }

    /// The one of two magnitudes that reproduces all weights, if only one does.
    #[inline(always)]
    fn only_exact(self, [first, second]: [f32; 2]) -> Option<f32> {
        let is_first = self.is_exact(first);
        let is_second = !second.is_nan() && self.is_exact(second);
        (is_first != is_second).then_some(if is_first { first } else { second })
    }

    /// The preferred f16 number of the interval of all scales that reproduce the block.
    #[inline(always)]
    fn scale_in_interval(self, simd: S) -> Option<f32> {
        let (lowest, highest) = self.interval(simd);
        let multiple = COMMON_MULTIPLE as f32;
        let start = f16::from_f32(lowest / multiple).to_bits().saturating_sub(1).max(1);
        let mut best: Option<(bool, f32, f32)> = None;
        for scale in (start..=f16::MAX.to_bits()).map(|bits| f16::from_bits(bits).to_f32()) {
            let at = scale * multiple;
            if at > highest {
                break;
            }
            let is_bf16 = bf16_of(scale) == scale;
            let distance = (2.0 * at - (lowest + highest)).abs();
            let is_better =
                best.is_none_or(|(other_is_bf16, other, _)| (!is_bf16, distance) < (!other_is_bf16, other));
            // Whether a bound belongs to the interval is seen by trying it.
            let is_inside = || lowest < at && at < highest || at >= lowest && self.is_exact(scale);
            if is_better && is_inside() {
                best = Some((is_bf16, distance, scale));
            }
        }
        best.map(|(_, _, scale)| scale).filter(|scale| self.is_exact(*scale))
    }

    /// Bounds of the interval times [`COMMON_MULTIPLE`], without rounding errors.
    #[inline(always)]
    fn interval(self, simd: S) -> (f32, f32) {
        let weights = self.weights.abs();
        let is_zero = weights.is_below(SMALLEST);
        let factors = Lanes::splat(simd, COMMON_MULTIPLE as f32) / self.codes.abs();
        // Weights without their significand; half the step from a weight to the next larger one, and down to the next smaller.
        let exponents = weights.and_bits(0x7f80_0000);
        let half_steps = exponents * (1.0 / 256.0);
        let half_steps_down = exponents.equals(weights).select(half_steps * 0.5, half_steps);
        let lowest = is_zero.select(weights, (weights - half_steps_down) * factors);
        let highest = is_zero.select(Lanes::splat(simd, f32::MAX), (weights + half_steps) * factors);
        (lowest.largest(), highest.smallest())
    }
}

/// The nearest bf16 number of a finite one, ties to even.
#[inline(always)]
fn bf16_of(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// The best fit for a block that is on no lattice.
#[inline(always)]
fn nearest<S: Simd>(weights: Lanes<S>, extremum: f32) -> Choice<S> {
    let plain = absmax::choose(weights, absmax::scale(extremum, Width::Int4), Width::Int4);
    let plain = Choice { codes: plain.codes - INTEGERS, ..plain };
    let (mut best, mut scale) = (0.0, 0.0);
    for divisor in DIVISORS {
        let codes = codes(weights, inverse_scale(extremum, divisor));
        let (products, squares) = ((codes * weights).sum(), (codes * codes).sum());
        let explained = products * products / squares;
        if explained > best {
            (best, scale) = (explained, products / squares);
        }
    }
    let scale = round_to_f16(scale);
    if scale == 0.0 {
        return plain;
    }
    let fit = Choice { scale, codes: codes(weights, 1.0 / scale) };
    if squared_error(weights, fit) < squared_error(weights, plain) * MARGIN { fit } else { plain }
}

#[inline(always)]
fn codes<S: Simd>(weights: Lanes<S>, inverse: f32) -> Lanes<S> {
    (weights * inverse).max(-8.0).min(7.0).round_ties_even()
}
