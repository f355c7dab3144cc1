//! The loop over blocks.
//!
//! Blocks are processed in groups, stage by stage: the steps from the weights to the first code and from the last code to the statistics
//! are long chains of operations, and a processor overlaps those of several blocks only if they are next to each other.

use fearless_simd::{
    Level, Simd, SimdBase, SimdInterleaved, SimdMask, SimdNarrow, SimdSplit, SimdWiden, f32x4, f64x2, i32x8,
};
use half::{bf16, f16};

use super::absmax::{AbsmaxInt4, AbsmaxInt8};
use super::half_bits::f16_bits;
use super::lanes::{Extremum, FULL_COUNT, HALF, Lanes};
use super::lattice::Lattice;
use super::q4_0::Q4_0;
use crate::block::BLOCK;
use crate::dispatch::dispatch;
use crate::statistics::{Statistics, WorstBlock};
use crate::{Int4Rule, QuantizeError, RuleSample};

/// Blocks per group.
pub(super) const GROUP: usize = 16;

/// The scale, an f16 number, and the codes that a rule chooses for a block.
#[derive(Clone, Copy)]
pub(super) struct Choice<S: Simd> {
    pub(super) scale: f32,
    pub(super) codes: Lanes<S>,
    /// Whether the block is known to lie on a lattice, even if the scale does not reproduce it.
    pub(super) on_lattice: bool,
}

/// A rule, in two steps.
pub(super) trait Rule {
    /// What follows from the extrema of a group's blocks alone.
    type Start;

    /// From this magnitude of the extremum on, the scale overflows f16.
    const OVERFLOW: f32;

    fn start(extrema: &[f32; GROUP]) -> Self::Start;

    /// Chooses for block number `at` of the group, whose weights are given as stored and as numbers.
    fn choose<S: Simd>(
        simd: S,
        block: &[bf16; BLOCK],
        weights: Lanes<S>,
        extremum: f32,
        start: &Self::Start,
        at: usize,
    ) -> Choice<S>;
}

/// How codes are packed.
trait Packing<const BYTES: usize> {
    /// Whether the extremum's code is counted.
    const COUNTS_CODES: bool;

    /// Packs codes; returns them as unpacked from the bytes.
    fn pack<S: Simd>(codes: Lanes<S>, bytes: &mut [u8; BYTES]) -> Lanes<S>;
}

/// Two codes per byte, the even-numbered element in the low half.
struct Nibbles;

/// One code per byte.
struct Bytes;

impl Packing<HALF> for Nibbles {
    const COUNTS_CODES: bool = true;

    #[inline(always)]
    fn pack<S: Simd>(codes: Lanes<S>, bytes: &mut [u8; HALF]) -> Lanes<S> {
        let pairs = codes.pack(4);
        let (first, second) = pairs.split();
        let (first, second) = first.relaxed_narrow(second).split();
        first.relaxed_narrow(second).store_array(bytes);
        Lanes::unpack(pairs, 4)
    }
}

impl Packing<BLOCK> for Bytes {
    const COUNTS_CODES: bool = false;

    #[inline(always)]
    fn pack<S: Simd>(codes: Lanes<S>, bytes: &mut [u8; BLOCK]) -> Lanes<S> {
        let pairs = codes.pack(8);
        let (first, second) = pairs.split();
        let mut words = [0_u16; HALF];
        first.relaxed_narrow(second).store_array(&mut words);
        *bytes = bytemuck::cast(words);
        Lanes::unpack(pairs, 8)
    }
}

/// Quantizes blocks by an int4 rule: 16 bytes of codes and a scale for each.
pub(crate) fn int4(
    level: Level,
    rule: Int4Rule,
    weights: &[[bf16; BLOCK]],
    codes: &mut [[u8; HALF]],
    scales: &mut [f16],
) -> Result<Statistics, QuantizeError> {
    match rule {
        Int4Rule::Lattice => {
            dispatch!(level, simd => run::<_, Lattice, Nibbles, _>(simd, weights, codes, scales))
        }
        Int4Rule::Q4_0 => dispatch!(level, simd => run::<_, Q4_0, Nibbles, _>(simd, weights, codes, scales)),
        Int4Rule::Absmax => {
            dispatch!(level, simd => run::<_, AbsmaxInt4, Nibbles, _>(simd, weights, codes, scales))
        }
    }
}

/// Quantizes blocks to int8: 32 bytes of codes and a scale for each.
pub(crate) fn int8(
    level: Level,
    weights: &[[bf16; BLOCK]],
    codes: &mut [[u8; BLOCK]],
    scales: &mut [f16],
) -> Result<Statistics, QuantizeError> {
    dispatch!(level, simd => run::<_, AbsmaxInt8, Bytes, _>(simd, weights, codes, scales))
}

#[inline(always)]
fn run<S: Simd, R: Rule, P: Packing<BYTES>, const BYTES: usize>(
    simd: S,
    weights: &[[bf16; BLOCK]],
    codes: &mut [[u8; BYTES]],
    scales: &mut [f16],
) -> Result<Statistics, QuantizeError> {
    let mut tally = Tally::new(simd);
    let outputs = codes.chunks_mut(GROUP).zip(scales.chunks_mut(GROUP));
    for (group, (weights, (codes, scales))) in weights.chunks(GROUP).zip(outputs).enumerate() {
        let mut extrema = Extrema::default();
        extrema.find(simd, weights);
        if extrema.reach(R::OVERFLOW) {
            return Err(extrema.fault(R::OVERFLOW, weights).shifted(group * GROUP * BLOCK));
        }
        let start = R::start(&extrema.values);
        let mut chosen = [0.0; GROUP];
        let mut sums = Sums::default();
        for (at, (block, codes)) in weights.iter().zip(codes.iter_mut()).enumerate().take(GROUP) {
            let weights = Lanes::load(simd, block);
            let choice = R::choose(simd, block, weights, extrema.values[at], &start, at);
            chosen[at] = choice.scale;
            let stored = Choice { codes: P::pack(choice.codes, codes), ..choice };
            tally.add_exact(weights, stored);
            sums.set(at, weights, stored);
        }
        for (scale, chosen) in scales.iter_mut().zip(chosen) {
            *scale = f16::from_bits(f16_bits(chosen));
        }
        tally.add_sums(simd, &sums);
        tally.zero_blocks += extrema.zeros(weights.len());
        if P::COUNTS_CODES {
            for (index, codes) in extrema.indices.iter().zip(codes) {
                tally.codes[usize::from(codes[index / 2] >> (index % 2 * 4) & 15)] += 1;
            }
        }
    }
    Ok(tally.statistics(scales))
}

/// The elements of largest magnitude of a group's blocks, the first ones on a tie.
#[derive(Default)]
struct Extrema {
    values: [f32; GROUP],
    indices: [usize; GROUP],
}

impl Extrema {
    #[inline(always)]
    fn find<S: Simd>(&mut self, simd: S, weights: &[[bf16; BLOCK]]) {
        for (at, weights) in weights.iter().enumerate().take(GROUP) {
            let Extremum { index, value } = Extremum::of(simd, weights);
            (self.values[at], self.indices[at]) = (value, index);
        }
    }

    /// Whether one of them is of this magnitude or larger, or NaN.
    #[inline(always)]
    fn reach(&self, magnitude: f32) -> bool {
        self.values.iter().fold(0, |largest, value| largest.max(value.abs().to_bits())) >= magnitude.to_bits()
    }

    /// Number of zeros among the first ones.
    #[inline(always)]
    fn zeros(&self, count: usize) -> u64 {
        self.values[..count.min(GROUP)].iter().filter(|value| **value == 0.0).count() as u64
    }

    #[cold]
    fn fault(&self, overflow: f32, weights: &[[bf16; BLOCK]]) -> QuantizeError {
        let fits = |value: &f32| value.abs() < overflow;
        let block = self.values.iter().position(|value| !fits(value)).unwrap_or(0);
        match weights[block].iter().position(|weight| !weight.is_finite()) {
            Some(element) => QuantizeError::NotFinite { element: block * BLOCK + element },
            None => QuantizeError::Overflow { element: block * BLOCK + self.indices[block] },
        }
    }
}

/// Sum of `(code * scale - weight)^2`.
#[inline(always)]
pub(super) fn squared_error<S: Simd>(weights: Lanes<S>, choice: Choice<S>) -> f32 {
    squared_errors(weights, choice).sum()
}

#[inline(always)]
fn squared_errors<S: Simd>(weights: Lanes<S>, choice: Choice<S>) -> Lanes<S> {
    let errors = choice.codes * choice.scale - weights;
    errors * errors
}

/// Sums of squares of a group's blocks, in four parts each.
#[derive(Default)]
struct Sums {
    errors: [[f32; 4]; GROUP],
    weights: [[f32; 4]; GROUP],
}

impl Sums {
    #[inline(always)]
    fn set<S: Simd>(&mut self, at: usize, weights: Lanes<S>, stored: Choice<S>) {
        squared_errors(weights, stored).partial_sums().store_array(&mut self.errors[at]);
        (weights * weights).partial_sums().store_array(&mut self.weights[at]);
    }
}

/// The sum of each of four blocks.
#[inline(always)]
fn add_parts<S: Simd>(simd: S, parts: &[[f32; 4]; 4]) -> f32x4<S> {
    let [a, b, c, d] = f32x4::load_four_interleaved(simd, parts.as_flattened());
    (a + b) + (c + d)
}

/// The numbers as f64, the third and fourth added to the first and second.
#[inline(always)]
fn add_halves<S: Simd>(x: f32x4<S>) -> f64x2<S> {
    let (first, second) = x.widen();
    first + second
}

/// Statistics that are being collected.
struct Tally<S: Simd> {
    /// Blocks whose errors are added up.
    seen: u64,
    blocks_exact: u64,
    /// Blocks on a lattice that are not exact.
    blocks_near: u64,
    /// Exact weights in eight parts, as [`Mask::count`] counts them.
    exact_counts: i32x8<S>,
    /// Two parts of the sum.
    squared_error: f64x2<S>,
    squared_weights: f64x2<S>,
    worst: u64,
    worst_share: f32,
    /// Blocks by the code's four bits, blocks of zeros too.
    codes: [u64; 16],
    zero_blocks: u64,
}

impl<S: Simd> Tally<S> {
    #[inline(always)]
    fn new(simd: S) -> Self {
        Tally {
            seen: 0,
            blocks_exact: 0,
            blocks_near: 0,
            exact_counts: i32x8::splat(simd, 0),
            squared_error: f64x2::splat(simd, 0.0),
            squared_weights: f64x2::splat(simd, 0.0),
            worst: 0,
            worst_share: 0.0,
            codes: [0; 16],
            zero_blocks: 0,
        }
    }

    #[inline(always)]
    fn add_exact(&mut self, weights: Lanes<S>, stored: Choice<S>) {
        let counts = (stored.codes * stored.scale).round_to_bf16().equals(weights).count();
        self.exact_counts += counts;
        let is_exact = counts.simd_eq(FULL_COUNT).all_true();
        self.blocks_exact += u64::from(is_exact);
        if stored.on_lattice && !is_exact {
            self.blocks_near += 1;
        }
    }

    #[inline(always)]
    fn add_sums(&mut self, simd: S, sums: &Sums) {
        let (errors, weights) = (sums.errors.as_chunks().0, sums.weights.as_chunks().0);
        for (errors, weights) in errors.iter().zip(weights) {
            let (errors, weights) = (add_parts(simd, errors), add_parts(simd, weights));
            // NaN in a block of zeros, for which every comparison is false.
            let shares = errors / weights;
            if shares.simd_gt(self.worst_share).any_true() {
                self.find_worst(shares.into());
            }
            self.squared_error += add_halves(errors);
            self.squared_weights += add_halves(weights);
            self.seen += 4;
        }
    }

    #[cold]
    fn find_worst(&mut self, shares: [f32; 4]) {
        for (block, share) in (self.seen..).zip(shares) {
            if share > self.worst_share {
                (self.worst, self.worst_share) = (block, share);
            }
        }
    }

    /// The statistics, given the scales of all blocks.
    #[inline(always)]
    fn statistics(mut self, scales: &[f16]) -> Statistics {
        // Entry 0 counts code -8, whose bits are 8; blocks of zeros have code 0 and must not be counted.
        self.codes[0] = self.codes[0].saturating_sub(self.zero_blocks);
        self.codes.rotate_left(8);
        // All blocks of zeros have scales below the smallest normal number.
        let magnitude = |scale: &f16| scale.to_bits() & 0x7fff;
        let small =
            scales.iter().filter(|scale| magnitude(scale) < f16::MIN_POSITIVE.to_bits()).count() as u64;
        let is_negative = |scale: &f16| scale.to_bits() > f16::NEG_ZERO.to_bits();
        let mut scale_exponents = exponents(scales);
        scale_exponents[0] -= self.zero_blocks;
        let worst = WorstBlock { block: self.worst, relative_error: self.worst_share.sqrt() };
        Statistics {
            blocks: scales.len() as u64,
            blocks_on_lattice: self.blocks_exact + self.blocks_near,
            blocks_exact: self.blocks_exact,
            weights: (scales.len() * BLOCK) as u64,
            weights_exact: u64::from(self.exact_counts.reduce_sum().unsigned_abs()),
            squared_error: self.squared_error.reduce_sum(),
            squared_weights: self.squared_weights.reduce_sum(),
            worst: (self.worst_share > 0.0).then_some(worst),
            extremum_codes: self.codes,
            scale_exponents,
            zero_blocks: self.zero_blocks,
            subnormal_scales: small - self.zero_blocks,
            negative_scales: scales.iter().filter(|scale| is_negative(scale)).count() as u64,
            sample: RuleSample::default(),
        }
    }
}

/// How often scales have each exponent. Neighbors are often alike, so they are counted in separate tables: a count would
/// wait for the one before it.
#[inline(always)]
fn exponents(scales: &[f16]) -> [u64; 32] {
    let mut counts = [[0_u32; 32]; 4];
    for scales in scales.chunks(4) {
        for (counts, scale) in counts.iter_mut().zip(scales) {
            counts[usize::from(scale.to_bits() >> 10) & 31] += 1;
        }
    }
    std::array::from_fn(|at| counts.iter().map(|counts| u64::from(counts[at])).sum())
}
