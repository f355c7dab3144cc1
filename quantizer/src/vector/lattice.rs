//! [`crate::lattice`] in vectors.
//!
//! Under a code of the extremum at most two bf16 scales reproduce the extremum. If exactly one of them reproduces the whole block,
//! it is the only bf16 number in the block's interval, so the interval need not be known. Otherwise its bounds are computed, and
//! the f16 numbers on both sides of its middle are examined: if the nearer one lies outside, all others do. A test with a
//! tolerance settles almost every wrong code.
//!
//! Scales that are not normal f16 numbers, and intervals of a single number, are left to the plain rule.

use std::cell::Cell;

use fearless_simd::Simd;
use half::bf16;

use super::absmax;
use super::half_bits::{SMALLEST_NORMAL, round_to_f16};
use super::kernel::{Choice, GROUP, Rule, squared_error};
use super::lanes::{INTEGERS, Lanes, Mask};
use crate::absmax::Width;
use crate::block::{self, BLOCK, F16_OVERFLOW};
use crate::lattice::nearest::{DIVISORS, MARGIN};
use crate::lattice::{COMMON_MULTIPLE, EXTREMUM_CODES, extremum_codes, place};

pub(super) struct Lattice;

/// Blocks whose extremum is smaller are left to the plain rule: here inverse scales would overflow.
const SMALLEST: f32 = 1.0 / (1 << 24) as f32;

/// Scales smaller than this are left to the plain rule, so that the f16 and bf16 numbers next to a scale are normal f16 numbers.
const SMALLEST_SCALE: f32 = 1.03125 * SMALLEST_NORMAL;

/// [`COMMON_MULTIPLE`], which f32 holds exactly.
const MULTIPLE: f32 = COMMON_MULTIPLE as f32;

/// A weight on a lattice is within half a bf16 step, 2^-8 of it, of `code * scale`, and the extremum over its code is within
/// 2^-8 of the scale: their quotient is within 2^-7 of the code. Slightly more, for the rounding of the quotient.
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

/// What is known about a group's blocks beforehand.
pub(super) struct Start {
    /// The first two of [`EXTREMUM_CODES`].
    guesses: [Guess; 2],
    /// Whether the bf16 scales are tried before the interval is computed: not where the last block had none, since the next one
    /// is then likely to have none either. The result is the same.
    tries_bf16_first: Cell<bool>,
}

impl Rule for Lattice {
    type Start = Start;

    const OVERFLOW: f32 = F16_OVERFLOW;

    #[inline(always)]
    fn start(extrema: &[f32; GROUP]) -> Self::Start {
        let guesses = [Guess::new(extrema, EXTREMUM_CODES[0]), Guess::new(extrema, EXTREMUM_CODES[1])];
        Start { guesses, tries_bf16_first: Cell::new(true) }
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

/// The lattice of almost every block that is on one: blocks with an f16 scale under one of two codes of the extremum.
#[inline(always)]
fn recover_quickly<S: Simd>(simd: S, weights: Lanes<S>, start: &Start, at: usize) -> Option<Choice<S>> {
    let [first, second] = &start.guesses;
    let mut candidate = Candidate::new(weights, first.inverses[at]);
    let mut scales = first.scales(at);
    let tries_bf16 = start.tries_bf16_first.get();
    if tries_bf16 && let Some(magnitude) = candidate.only_exact(scales) {
        return Some(candidate.choice(magnitude));
    }
    if !candidate.is_possible() {
        candidate = Candidate::new(weights, second.inverses[at]);
        scales = second.scales(at);
        // Under a smaller code of the extremum all of these codes would be even; then a positive scale is preferred.
        if !candidate.is_possible() || candidate.sign < 0.0 && !candidate.codes.has_odd_integers() {
            return None;
        }
        if tries_bf16 && let Some(magnitude) = candidate.only_exact(scales) {
            return Some(candidate.choice(magnitude));
        }
    }
    let found = candidate.scale(simd, scales);
    start.tries_bf16_first.set(matches!(found, Found::Bf16(_)));
    match found {
        Found::Bf16(magnitude) | Found::F16(magnitude) => Some(candidate.choice(magnitude)),
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
        let scales = bf16_scales(extremum.abs(), code.abs());
        if let Some(magnitude) = candidate.only_exact(scales) {
            return candidate.choice(magnitude);
        }
        match candidate.scale(simd, scales) {
            Found::Bf16(magnitude) | Found::F16(magnitude) => return candidate.choice(magnitude),
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

/// The result of the plain rule for a block.
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

/// The bf16 scales whose product with a code rounds to a magnitude; those that do not, or may not be normal f16 numbers, are
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

    /// Whether a magnitude reproduces all weights.
    #[inline(always)]
    fn is_exact(self, magnitude: f32) -> bool {
        self.reproduced(magnitude).all()
    }

    /// The one of two magnitudes that reproduces all weights, if only one does.
    #[inline(always)]
    fn only_exact(self, [first, second]: [f32; 2]) -> Option<f32> {
        let is_first = self.is_exact(first);
        let is_second = !second.is_nan() && self.is_exact(second);
        (is_first != is_second).then_some(if is_first { first } else { second })
    }

    /// The preferred scale, given the bf16 scales that reproduce the extremum.
    #[inline(always)]
    fn scale(self, simd: S, bf16_scales: [f32; 2]) -> Found {
        let interval = self.interval(simd);
        if interval.lowest > interval.highest {
            return Found::Nothing;
        }
        if interval.lowest < SMALLEST_SCALE * MULTIPLE || interval.lowest == interval.highest {
            return Found::Unclear;
        }
        let holds = [self.is_within(interval, bf16_scales[0]), self.is_within(interval, bf16_scales[1])];
        match holds {
            [true, true] => return Found::Bf16(interval.by_distance(bf16_scales)[0]),
            [true, false] => return Found::Bf16(bf16_scales[0]),
            [false, true] => return Found::Bf16(bf16_scales[1]),
            [false, false] => {}
        }
        let neighbors = interval.around_middle();
        if self.is_within(interval, neighbors[0]) {
            Found::F16(neighbors[0])
        } else if self.is_within(interval, neighbors[1]) {
            Found::F16(neighbors[1])
        } else {
            Found::Between(neighbors)
        }
    }

    /// Whether a magnitude lies in the interval. Whether a bound belongs to it is decided by trying it.
    #[inline(always)]
    fn is_within(self, interval: Bounds, magnitude: f32) -> bool {
        interval.encloses(magnitude) || interval.ends_at(magnitude) && self.is_exact(magnitude)
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
        let [below, above] = weights.midpoints();
        let lowest = is_zero.select(weights, below * factors);
        // Infinite for zeros, without subnormal numbers, with which some processors are slow.
        let highest = above.max(f32::MIN_POSITIVE) * factors;
        Bounds { lowest: lowest.largest(), highest: highest.smallest() }
    }
}

/// What an interval of scales holds.
enum Found {
    /// A bf16 number to take.
    Bf16(f32),
    /// An f16 number to take.
    F16(f32),
    /// No f16 number. It lies between these, the first one nearer its middle or the smaller one on a tie.
    Between([f32; 2]),
    /// No number at all.
    Nothing,
    /// The plain rule decides.
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
    fn encloses(self, scale: f32) -> bool {
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

/// The best fit for a block that is not on a lattice.
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
