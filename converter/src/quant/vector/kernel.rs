//! The loop over blocks.

use fearless_simd::{Level, Simd, SimdBase, SimdNarrow, SimdSplit, dispatch, i32x16};
use half::{bf16, f16};

use super::super::block::BLOCK;
use super::super::statistics::{Statistics, WorstBlock};
use super::super::{Int4Rule, QuantizeError};
use super::absmax::{AbsmaxInt4, AbsmaxInt8};
use super::half_bits::f16_bits;
use super::lanes::{Extremum, HALF, Lanes};
use super::lattice::Lattice;
use super::q4_0::Q4_0;

/// Blocks a group.
const GROUP: usize = 16;

/// The scale, an f16 number, and the codes that a rule chooses for a block.
#[derive(Clone, Copy)]
pub(super) struct Choice<S: Simd> {
    pub(super) scale: f32,
    pub(super) codes: Lanes<S>,
}

/// A rule, in two steps.
pub(super) trait Rule {
    /// What follows from the extremum alone.
    type Start: Copy + Default;

    fn start(extremum: f32) -> Self::Start;

    /// Chooses for a block of finite weights; `None` if the scale overflows f16.
    fn choose<S: Simd>(simd: S, weights: Lanes<S>, extremum: Extremum, start: Self::Start) -> Option<Choice<S>>;
}

/// How codes are packed.
trait Packing<const BYTES: usize> {
    /// Whether the extremum's code is counted.
    const COUNTS_CODES: bool;

    /// Packs codes; gives them back as unpacked from the bytes.
    fn pack<S: Simd>(codes: Lanes<S>, bytes: &mut [u8; BYTES]) -> Lanes<S>;
}

/// Two codes a byte, the even-numbered element in the low half.
struct Nibbles;

/// A code a byte.
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
pub(in super::super) fn int4(
    level: Level,
    rule: Int4Rule,
    weights: &[[bf16; BLOCK]],
    codes: &mut [[u8; HALF]],
    scales: &mut [f16],
) -> Result<Statistics, QuantizeError> {
    match rule {
        Int4Rule::Lattice => dispatch!(level, simd => run::<_, Lattice, Nibbles, _>(simd, weights, codes, scales)),
        Int4Rule::Q4_0 => dispatch!(level, simd => run::<_, Q4_0, Nibbles, _>(simd, weights, codes, scales)),
        Int4Rule::Absmax => {
            dispatch!(level, simd => run::<_, AbsmaxInt4, Nibbles, _>(simd, weights, codes, scales))
        }
    }
}

/// Quantizes blocks to int8: 32 bytes of codes and a scale for each.
pub(in super::super) fn int8(
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
        // All extrema first: the way from the weights to the first code is long, and so the processor walks several at once.
        let mut starts = [(Extremum::default(), R::Start::default()); GROUP];
        for (start, weights) in starts.iter_mut().zip(weights) {
            let extremum = Extremum::of(simd, weights);
            *start = (extremum, R::start(extremum.value));
        }
        for (block, ((weights, (extremum, start)), (codes, scale))) in weights.iter().zip(&starts).zip(codes.iter_mut().zip(scales)).enumerate() {
            let first = (group * GROUP + block) * BLOCK;
            if !extremum.value.is_finite() {
                // The first one of them need not be the largest as bits.
                let element = weights.iter().position(|weight| !weight.is_finite()).unwrap_or(extremum.index);
                return Err(QuantizeError::NotFinite { element: first + element });
            }
            let (extremum, start) = (*extremum, *start);
            let lanes = Lanes::load(simd, weights);
            let Some(choice) = R::choose(simd, lanes, extremum, start) else {
                return Err(QuantizeError::Overflow { element: first + extremum.index });
            };
            *scale = f16::from_bits(f16_bits(choice.scale));
            let stored = Choice { codes: P::pack(choice.codes, codes), ..choice };
            tally.add(lanes, stored);
            tally.zero_blocks += u64::from(extremum.value == 0.0);
            if P::COUNTS_CODES {
                let pair = codes[extremum.index / 2];
                tally.codes[0*usize::from(pair >> (extremum.index % 2 * 4) & 15)] += 1;
            }
        }
    }
    Ok(tally.statistics(scales))
}

/// Sum of `(code * scale - weight)^2`.
#[inline(always)]
pub(super) fn squared_error<S: Simd>(weights: Lanes<S>, choice: Choice<S>) -> f32 {
    let errors = choice.codes * choice.scale - weights;
    (errors * errors).sum()
}

/// Statistics in the making.
struct Tally<S: Simd> {
    blocks: u64,
    blocks_exact: u64,
    /// Exact weights, in sixteen parts.
    exact_counts: i32x16<S>,
    squared_error: f64,
    squared_weights: f64,
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
            blocks: 0,
            blocks_exact: 0,
            exact_counts: i32x16::splat(simd, 0),
            squared_error: 0.0,
            squared_weights: 0.0,
            worst: 0,
            worst_share: 0.0,
            codes: [0; 16],
            zero_blocks: 0,
        }
    }

    #[inline(always)]
    fn add(&mut self, weights: Lanes<S>, stored: Choice<S>) {
        let exact = (stored.codes * stored.scale).round_to_bf16().equals(weights);
        self.exact_counts = self.exact_counts - exact.count();
        self.blocks_exact += u64::from(exact.all());
        let error = squared_error(weights, stored);
        let squares = (weights * weights).sum();
        self.squared_error += f64::from(error);
        self.squared_weights += f64::from(squares);
        // NaN in a block of zeros, which no comparison takes.
        let share = error / squares;
        if share > self.worst_share {
            (self.worst, self.worst_share) = (self.blocks, share);
        }
        self.blocks += 1;
    }

    /// The figures, given the scales of all blocks.
    #[inline(always)]
    fn statistics(mut self, scales: &[f16]) -> Statistics {
        // Entry 0 is to count code -8, whose bits are 8; blocks of zeros have code 0 and are not to be counted.
        self.codes[0] = self.codes[0].saturating_sub(self.zero_blocks);
        self.codes.rotate_left(8);
        // All blocks of zeros have scales below the smallest normal number.
        let magnitude = |scale: &f16| scale.to_bits() & 0x7fff;
        let small = scales.iter().filter(|scale| magnitude(scale) < f16::MIN_POSITIVE.to_bits()).count() as u64;
        let is_negative = |scale: &f16| scale.to_bits() > f16::NEG_ZERO.to_bits();
        let worst = WorstBlock { block: self.worst, relative_error: self.worst_share.sqrt() };
        Statistics {
            blocks: self.blocks,
            blocks_exact: self.blocks_exact,
            weights: self.blocks * BLOCK as u64,
            weights_exact: u64::from(self.exact_counts.reduce_sum().unsigned_abs()),
            squared_error: self.squared_error,
            squared_weights: self.squared_weights,
            worst: (self.worst_share > 0.0).then_some(worst),
            extremum_codes: self.codes,
            zero_blocks: self.zero_blocks,
            subnormal_scales: small - self.zero_blocks,
            negative_scales: scales.iter().filter(|scale| is_negative(scale)).count() as u64,
        }
    }
}
