//! [`crate::quant::lattice`] in vectors.
//!
//! Under a code of the extremum at most two bf16 scales reproduce the extremum. If exactly one of them reproduces the whole block,
//! it is the only bf16 number in the block's interval, so the interval need not be known. Otherwise its bounds are computed, and
//! the f16 numbers on both sides of its middle are looked at: if the nearer one lies outside, all others do. A test with a
//! tolerance settles almost every wrong code.
//!
//! Scales that are no normal f16 numbers, and intervals of a single number, are left to the plain rule.

use fearless_simd::Simd;
use half::bf16;

use super::absmax;
use super::half_bits::{SMALLEST_NORMAL, round_to_f16};
use super::kernel::{Choice, GROUP, Rule, squared_error};
use super::lanes::{INTEGERS, Lanes, Mask};
use crate::quant::absmax::Width;
use crate::quant::block::{self, BLOCK, F16_OVERFLOW};
use crate::quant::lattice::nearest::{DIVISORS, MARGIN};
use crate::quant::lattice::{COMMON_MULTIPLE, EXTREMUM_CODES, extremum_codes, place};

pub(super) struct Lattice;

/// Blocks whose extremum is smaller are left to the plain rule: here inverse scales would overflow.
const SMALLEST: f32 = 1.0 / (1 << 24) as f32;

/// Scales smaller than this are left to the plain rule, so that the f16 and bf16 numbers next to a scale are normal f16 numbers.
const SMALLEST_SCALE: f32 = 1.03125 * SMALLEST_NORMAL;

/// [`COMMON_MULTIPLE`], which f32 holds exactly.
const MULTIPLE: f32 = COMMON_MULTIPLE as f32;

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
        block: &[bf16; BLOCK],
        weights: Lanes<S>,
        extremum: f32,
        start: &Self::Start,
        at: usize,
    ) -> Choice<S> {
        let choice = match recover_quickly(simd, weights, start, at) {
            Some(choice) => choice,
            None => recover(simd, block, weights, extremum),
        };
        Choice { codes: choice.codes + INTEGERS, ..choice }
    }
}

/// The lattice of almost every block that is on one: those with an f16 scale under one of two codes of the extremum.
#[inline(always)]
fn recover_quickly<S: Simd>(
    simd: S,
    weights: Lanes<S>,
    [first, second]: &[Guess; 2],
    at: usize,
) -> Option<Choice<S>> {
    let candidate = Candidate::new(weights, first.inverses[at]);
    let scales = Bf16Scales::new(candidate, first.scales(at));
    if let Some(magnitude) = scales.only() {
        return Some(candidate.choice(magnitude));
    }
    let (candidate, scales) = if candidate.is_possible() {
        (candidate, scales)
    } else {
        let candidate = Candidate::new(weights, second.inverses[at]);
        // Under a smaller code of the extremum all of these codes would be even; a positive scale is to be preferred then.
        if !candidate.is_possible() || candidate.sign < 0.0 && !candidate.codes.has_odd_integers() {
            return None;
        }
        (candidate, Bf16Scales::new(candidate, second.scales(at)))
    };
    match candidate.scale(simd, scales) {
        Found::Exact(magnitude) => Some(candidate.choice(magnitude)),
        Found::Between(_) | Found::Nothing | Found::Unclear => None,
    }
}

/// The lattice of a block if it is on one, else the best fit.
#[inline(always)]
fn recover<S: Simd>(simd: S, block: &[bf16; BLOCK], weights: Lanes<S>, extremum: f32) -> Choice<S> {
    if extremum == 0.0 {
        return Choice { scale: 0.0, codes: Lanes::splat(simd, 0.0), on_lattice: true };
    }
    if extremum.abs() < SMALLEST {
        return plain(simd, block);
    }
    let mut first = None;
    for code in extremum_codes(extremum).map(f32::from) {
        let inverse = inverse_scale(extremum, code);
        let candidate = Candidate::new(weights, inverse);
        if !candidate.is_possible() {
            continue;
        }
        let scales = Bf16Scales::new(candidate, bf16_scales(extremum.abs(), code.abs()));
        match candidate.scale(simd, scales) {
            Found::Exact(magnitude) => return candidate.choice(magnitude),
            Found::Between(neighbors) => first = first.or(Some((inverse, neighbors))),
            Found::Nothing => {}
            Found::Unclear => return plain(simd, block),
        }
    }
    match first {
        Some((inverse, neighbors)) => {
            let candidate = Candidate::new(weights, inverse);
            candidate.choice(candidate.better(neighbors))
        }
        None => nearest(weights, extremum),
    }
}

/// What the plain rule makes of a block.
#[inline(always)]
fn plain<S: Simd>(simd: S, block: &[bf16; BLOCK]) -> Choice<S> {
    let (scale, codes, on_lattice) = placed(block);
    Choice { scale, codes: Lanes::load(simd, &codes), on_lattice }
}

#[cold]
#[inline(never)]
fn placed(block: &[bf16; BLOCK]) -> (f32, [bf16; BLOCK], bool) {
    let weights = block.map(bf16::to_f32);
    let fit = place(&weights, block::Extremum::of(&weights));
    (fit.scale.to_f32(), fit.codes.map(|code| bf16::from_f32(f32::from(code))), fit.on_lattice)
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
        let is_one = quotient >= SMALLEST_SCALE && bf16_of(scale * code) == magnitude;
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
    fn choice(self, magnitude: f32) -> Choice<S> {
        Choice { scale: magnitude * self.sign, codes: self.codes, on_lattice: true }
    }

    /// False only if no scale near the one that made the quotients reproduces the block, or a code is out of range.
    #[inline(always)]
    fn is_possible(self) -> bool {
        self.quotients.are_near(self.codes, TOLERANCE) && self.codes.are_below(7.5)
    }

    /// Which weights a magnitude of the scale reproduces.
    #[inline(always)]
    fn reproduced(self, magnitude: f32) -> Mask<S> {
        (self.codes * (magnitude * self.sign)).round_to_bf16().equals(self.weights)
    }

    /// The preferred scale.
    #[inline(always)]
    fn scale(self, simd: S, scales: Bf16Scales) -> Found {
        if let Some(magnitude) = scales.only() {
            return Found::Exact(magnitude);
        }
        let interval = self.interval(simd);
        if scales.is_exact == [true; 2] {
            let [nearer, _] = interval.by_distance(scales.magnitudes);
            return Found::Exact(nearer);
        }
        if interval.lowest > interval.highest {
            return Found::Nothing;
        }
        if interval.lowest < SMALLEST_SCALE * MULTIPLE || interval.lowest == interval.highest {
            return Found::Unclear;
        }
        let neighbors = interval.around_middle();
        // Whether a bound belongs to the interval is seen by trying it.
        let is_inside =
            |scale| interval.holds(scale) || interval.ends_at(scale) && self.reproduced(scale).all();
        if is_inside(neighbors[0]) {
            Found::Exact(neighbors[0])
        } else if is_inside(neighbors[1]) {
            Found::Exact(neighbors[1])
        } else {
            Found::Between(neighbors)
        }
    }

    /// The one of two magnitudes that reproduces more weights, the first one on a tie.
    #[inline(always)]
    fn better(self, [first, second]: [f32; 2]) -> f32 {
        if self.reproduced(second).total() > self.reproduced(first).total() { second } else { first }
    }

    /// Bounds of the interval of all scales that reproduce the block, without rounding errors.
    #[inline(always)]
    fn interval(self, simd: S) -> Bounds {
        let weights = self.weights.abs();
        let is_zero = weights.is_zero();
        let factors = Lanes::splat(simd, MULTIPLE) / self.codes.abs();
        // Weights without their significand; half the step from a weight to the next larger one, and down to the next smaller.
        let exponents = weights.and_bits(0x7f80_0000);
        let half_steps = exponents * (1.0 / 256.0);
        let half_steps_down = exponents.equals(weights).select(half_steps * 0.5, half_steps);
        let lowest = is_zero.select(weights, (weights - half_steps_down) * factors);
        let highest = is_zero.select(Lanes::splat(simd, f32::MAX), (weights + half_steps) * factors);
        Bounds { lowest: lowest.largest(), highest: highest.smallest() }
    }
}

/// The bf16 scales that reproduce the extremum, and whether each reproduces the whole block.
#[derive(Clone, Copy)]
struct Bf16Scales {
    magnitudes: [f32; 2],
    is_exact: [bool; 2],
}

impl Bf16Scales {
    #[inline(always)]
    fn new<S: Simd>(candidate: Candidate<S>, magnitudes: [f32; 2]) -> Self {
        let [first, second] = magnitudes;
        let is_second = !second.is_nan() && candidate.reproduced(second).all();
        Bf16Scales { magnitudes, is_exact: [candidate.reproduced(first).all(), is_second] }
    }

    /// The one that reproduces the block, if only one does.
    #[inline(always)]
    fn only(self) -> Option<f32> {
        match self.is_exact {
            [true, false] => Some(self.magnitudes[0]),
            [false, true] => Some(self.magnitudes[1]),
            _ => None,
        }
    }
}

/// What an interval of scales holds.
enum Found {
    /// A number to take.
    Exact(f32),
    /// No f16 number. It lies between these, the first one nearer its middle or the smaller one on a tie.
    Between([f32; 2]),
    /// No number at all.
    Nothing,
    /// The plain rule is to decide.
    Unclear,
}

/// Bounds of an interval of magnitudes of scales, times [`MULTIPLE`].
#[derive(Clone, Copy)]
struct Bounds {
    lowest: f32,
    highest: f32,
}

impl Bounds {
    /// Twice the distance of a bf16 or f16 number from the middle, times [`MULTIPLE`] and without rounding errors.
    #[inline(always)]
    fn distance(self, scale: f32) -> f32 {
        (2.0 * MULTIPLE * scale - (self.lowest + self.highest)).abs()
    }

    /// Two numbers, first the one that is nearer the middle, the smaller one on a tie.
    #[inline(always)]
    fn by_distance(self, [a, b]: [f32; 2]) -> [f32; 2] {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        if self.distance(high) < self.distance(low) { [high, low] } else { [low, high] }
    }

    /// The f16 numbers below and above the middle, by their distance. If neither is in the interval, no f16 number is.
    #[inline(always)]
    fn around_middle(self) -> [f32; 2] {
        // One of the two, and the other one.
        let one = round_to_f16((self.lowest + self.highest) * (0.5 / MULTIPLE));
        let is_below = 2.0 * MULTIPLE * one <= self.lowest + self.highest;
        let step = if is_below { 1 << 13 } else { -(1 << 13) };
        self.by_distance([one, f32::from_bits(one.to_bits().wrapping_add_signed(step))])
    }

    /// Whether a number lies between the bounds.
    #[inline(always)]
    fn holds(self, scale: f32) -> bool {
        let at = scale * MULTIPLE;
        self.lowest < at && at < self.highest
    }

    /// Whether a number is a bound.
    #[inline(always)]
    fn ends_at(self, scale: f32) -> bool {
        let at = scale * MULTIPLE;
        self.lowest == at || at == self.highest
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
    let fit = Choice { scale, codes: codes(weights, 1.0 / scale), on_lattice: false };
    if squared_error(weights, fit) < squared_error(weights, plain) * MARGIN { fit } else { plain }
}

#[inline(always)]
fn codes<S: Simd>(weights: Lanes<S>, inverse: f32) -> Lanes<S> {
    (weights * inverse).max(-8.0).min(7.0).round_ties_even()
}
