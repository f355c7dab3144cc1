//! The kernels for x86-64 with AVX2 and F16C.
//!
//! One token is multiplied while the weights of a row are decoded. For more, weights are first decoded into a tile. There, a register
//! holds four weights of one row and the same four of the next one, so that one load of four activations serves both, and the sums
//! of some rows and tokens stay in registers. Sums, their order and all roundings are those of the portable kernels, and so are the
//! bits.

use std::arch::x86_64::*;
use std::sync::LazyLock;

use bytemuck::{Pod, Zeroable};
use half::f16;
use rayon::prelude::*;

use super::{BLOCK, Rows};
use crate::parallel::TOGETHER;

/// Registers for a block.
const QUARTERS: usize = 4;
/// Fours of a block: a tile is multiplied by one after the other.
const FOURS: usize = BLOCK / 4;
/// Blocks of a row in a tile.
const WIDTH: usize = 80;
/// Rows in a tile: with `WIDTH`, their fours of one place fit in the first-level cache.
const ROWS: usize = 8;
/// Pairs of rows and tokens whose sums are in registers at the same time.
const PAIRS: usize = 2;
const TOKENS: usize = 6;
/// Parts of a tile that are multiplied one after the other.
const PARTS: usize = ROWS / (2 * PAIRS);

/// A block in registers.
type Block = [__m256; QUARTERS];

/// Activations of the tokens of a chunk in the order in which they are multiplied: `[tiles, FOURS, groups of tokens, blocks, tokens
/// of the group]`, where the last tile may have fewer blocks and the last group fewer tokens. Padded with zeros to whole blocks.
pub(crate) struct Activations {
    k: usize,
    tokens: usize,
    blocks: usize,
    lines: Vec<Line>,
}

/// Activations in a cache line: a load of eight that crosses lines takes twice as long.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([[f32; 4]; 4]);

impl Activations {
    /// Arranges `values` [tokens, k] for products with these rows.
    pub(super) fn new(values: &[f32], k: usize, rows: Rows<'_>) -> Self {
        let k = k.max(1);
        let (tokens, blocks) = (values.len() / k, k.div_ceil(BLOCK));
        // One token needs whole blocks.
        let width = if tokens == 1 { 1 } else { WIDTH };
        let mut lines = vec![Line::zeroed(); tokens * blocks * FOURS / 4];
        let fours: &mut [[f32; 4]] = bytemuck::cast_slice_mut(&mut lines);
        let tile = (tokens * width * FOURS).max(1);
        let tiles = fours.par_chunks_mut(tile).enumerate().with_min_len(TOGETHER.div_ceil(4 * tile));
        tiles.for_each(|(tile, fours)| {
            let (from, width) = (tile * width * BLOCK, fours.len() / (tokens * FOURS));
            for (group, values) in values.chunks(k * TOKENS).enumerate() {
                let together = values.len() / k;
                for (token, values) in values.chunks_exact(k).enumerate() {
                    let values = &values[from..k.min(from + width * BLOCK)];
                    for (block, values) in values.chunks(BLOCK).enumerate() {
                        let first = group * TOKENS * width + block * together + token;
                        arrange(values, rows.places(), &mut fours[first..], width * tokens);
                    }
                }
            }
        });
        Activations { k, tokens, blocks, lines }
    }

    fn fours(&self) -> &[[f32; 4]] {
        bytemuck::cast_slice(&self.lines)
    }
}

/// Writes a block of activations, padded with zeros; fours are `stride` apart.
fn arrange(values: &[f32], places: &[u8; BLOCK], fours: &mut [[f32; 4]], stride: usize) {
    let mut padded = [0.0; BLOCK];
    padded[..values.len()].copy_from_slice(values);
    for (four, places) in places.as_chunks::<4>().0.iter().enumerate() {
        fours[four * stride] = places.map(|place| padded[usize::from(place) % BLOCK]);
    }
}

/// Rows of weights of one kind.
trait Weights: Copy {
    /// A block of a row.
    type Block: Copy;

    /// The blocks of a row, starting at block `from`.
    fn blocks(self, row: usize, from: usize) -> impl Iterator<Item = Self::Block>;

    /// Decodes a block. It is always inlined, as registers are passed through memory otherwise.
    ///
    /// # Safety
    /// The processor must have AVX2 and F16C.
    unsafe fn decode(block: Self::Block) -> Block;
}

/// Fills `out`, one slice per token, with the products of rows `first..` and the token's activations.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn multiply_rows(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
    match rows {
        Rows::Int4 { codes, scales } => multiply(Int4::new(codes, scales, x.blocks), first, x, out),
        Rows::Int8 { codes, scales } => multiply(Int8 { codes, scales, blocks: x.blocks }, first, x, out),
        Rows::Half { items, stride } => multiply(Plain { items, stride, k: x.k }, first, x, out),
        Rows::Single { items, stride } => multiply(Plain { items, stride, k: x.k }, first, x, out),
    }
}

#[target_feature(enable = "avx2,f16c")]
fn multiply<W: Weights>(weights: W, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
    match out {
        [] => {}
        [only] => multiply_one_token(weights, first, x, only),
        tokens => multiply_tokens(weights, first, x, tokens),
    }
}

#[target_feature(enable = "avx2,f16c")]
fn multiply_one_token<W: Weights>(weights: W, first: usize, x: &Activations, out: &mut [f32]) {
    let (x, _) = x.fours().as_flattened().as_chunks::<8>();
    let (x, _) = x.as_chunks::<QUARTERS>();
    for (row, out) in out.iter_mut().enumerate() {
        let mut sums = [_mm256_setzero_ps(); QUARTERS];
        for (block, x) in weights.blocks(first + row, 0).zip(x) {
            // SAFETY: the features are those of this function.
            let weights = unsafe { W::decode(block) };
            for quarter in 0..QUARTERS {
                let product = _mm256_mul_ps(weights[quarter], eight(&x[quarter]));
                sums[quarter] = _mm256_add_ps(sums[quarter], product);
            }
        }
        *out = total(sums);
    }
}

/// Decoded weights: four of a block, of `PAIRS` pairs of rows.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Decoded([[[f32; 4]; 2]; PAIRS]);

/// Sums of `PAIRS` pairs of rows and `TOKENS` tokens, for one of the fours.
type Sums = [[__m256; PAIRS]; TOKENS];

#[target_feature(enable = "avx2,f16c")]
fn multiply_tokens<W: Weights>(weights: W, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
    let (tokens, height) = (x.tokens, out.first().map_or(0, |out| out.len()));
    let groups = tokens.div_ceil(TOKENS);
    let mut tile = vec![Decoded([[[0.0; 4]; 2]; PAIRS]); stride(x.blocks.min(WIDTH)) * FOURS];
    let none = [[[_mm256_setzero_ps(); PAIRS]; TOKENS]; PARTS];
    let mut sums = vec![none; groups * FOURS];
    for above in (0..height).step_by(ROWS) {
        let rows = ROWS.min(height - above);
        sums.fill(none);
        for from in (0..x.blocks).step_by(WIDTH) {
            let width = (x.blocks - from).min(WIDTH);
            let tile = &mut tile[..stride(width) * FOURS];
            for part in 0..rows.div_ceil(2 * PAIRS) {
                let row = part * 2 * PAIRS;
                decode_part(weights, [first + above + row, rows - row], [from, width], part, tile);
            }
            let x = &x.fours()[from * tokens * FOURS..][..width * tokens * FOURS];
            let fours = x.chunks_exact(width * tokens).zip(sums.chunks_exact_mut(groups));
            for (weights, (x, sums)) in tile.chunks_exact(stride(width)).zip(fours) {
                for (x, sums) in x.chunks(width * TOKENS).zip(sums) {
                    let add = match x.len() / width {
                        1 => add_products::<1>,
                        2 => add_products::<2>,
                        3 => add_products::<3>,
                        4 => add_products::<4>,
                        5 => add_products::<5>,
                        _ => add_products::<TOKENS>,
                    };
                    add(weights, x, sums);
                }
            }
        }
        for (token, out) in out.iter_mut().enumerate() {
            for (pair, out) in out[above..above + rows].chunks_mut(2).enumerate() {
                let fours = std::array::from_fn(|four| {
                    sums[four * groups + token / TOKENS][pair / PAIRS][token % TOKENS][pair % PAIRS]
                });
                out.copy_from_slice(&totals(fours)[..out.len()]);
            }
        }
    }
}

/// From one of the fours to the next in a tile of `width` blocks: one more than needed, as fours that are a power of two apart would
/// push each other out of the cache.
fn stride(width: usize) -> usize {
    width * PARTS + 1
}

/// Decodes blocks of some rows into a part of a tile, `[FOURS, PARTS, width]`. Rows and blocks are given by the first one and their
/// number; instead of rows beyond the last one, that one is decoded again.
///
/// All rows of a block are decoded before the next block, as a cache line of the tile has weights of all of them.
#[target_feature(enable = "avx2,f16c")]
fn decode_part<W: Weights>(
    weights: W,
    [row, rows]: [usize; 2],
    [from, width]: [usize; 2],
    part: usize,
    tile: &mut [Decoded],
) {
    let stride = stride(width);
    assert!(part < PARTS && tile.len() == stride * FOURS);
    let mut rows: [_; 2 * PAIRS] = std::array::from_fn(|at| weights.blocks(row + at.min(rows - 1), from));
    for block in 0..width {
        for (at, blocks) in rows.iter_mut().enumerate() {
            let Some(weights) = blocks.next() else { return };
            // SAFETY: the features are those of this function.
            let quarters = unsafe { W::decode(weights) };
            for (quarter, eight) in quarters.into_iter().enumerate() {
                let (low, high) = (_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
                for (four, half) in [(2 * quarter, low), (2 * quarter + 1, high)] {
                    // SAFETY: the place is within the tile, as each of its three parts is below its number.
                    let target = unsafe { tile.get_unchecked_mut(four * stride + part * width + block) };
                    // SAFETY: the target has room for four numbers.
                    unsafe { _mm_storeu_ps(target.0[at / 2][at % 2].as_mut_ptr(), half) };
                }
            }
        }
    }
}

/// Adds the products of decoded weights, `[PARTS, width]`, and the activations of `T` tokens, `[width, T]`, to the tokens' sums.
#[target_feature(enable = "avx2,f16c")]
fn add_products<const T: usize>(weights: &[Decoded], x: &[[f32; 4]], sums: &mut [Sums; PARTS]) {
    let (x, _) = x.as_chunks::<T>();
    for (weights, sums) in weights.chunks_exact(x.len()).zip(sums) {
        let mut sum: [[__m256; PAIRS]; T] = std::array::from_fn(|token| sums[token]);
        for (Decoded(weights), x) in weights.iter().zip(x) {
            let weights = [pair(&weights[0]), pair(&weights[1])];
            for token in 0..T {
                let x = twice(&x[token]);
                for pair in 0..PAIRS {
                    sum[token][pair] = _mm256_add_ps(sum[token][pair], _mm256_mul_ps(weights[pair], x));
                }
            }
        }
        sums[..T].copy_from_slice(&sum);
    }
}

/// Four weights of two rows.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn pair(rows: &[[f32; 4]; 2]) -> __m256 {
    // SAFETY: eight numbers can be read.
    unsafe { _mm256_loadu_ps(rows.as_ptr().cast()) }
}

/// Four activations for both rows.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn twice(four: &[f32; 4]) -> __m256 {
    // SAFETY: four numbers can be read.
    let four = unsafe { _mm_loadu_ps(four.as_ptr()) };
    _mm256_set_m128(four, four)
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn eight(items: &[f32; 8]) -> __m256 {
    // SAFETY: eight numbers can be read.
    unsafe { _mm256_loadu_ps(items.as_ptr()) }
}

/// Adds halves of the sums until one number is left.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn total([first, second, third, fourth]: Block) -> f32 {
    let eight = _mm256_add_ps(_mm256_add_ps(first, third), _mm256_add_ps(second, fourth));
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// The sums of two rows, of which each register holds four; they are added as in [`total`].
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn totals(fours: [__m256; FOURS]) -> [f32; 2] {
    let sum = |at: usize| _mm256_add_ps(fours[at], fours[at + 4]);
    let fours = _mm256_add_ps(_mm256_add_ps(sum(0), sum(2)), _mm256_add_ps(sum(1), sum(3)));
    let twos = _mm256_add_ps(fours, _mm256_permute_ps::<0b01_00_11_10>(fours));
    let ones = _mm256_add_ps(twos, _mm256_permute_ps::<0b10_11_00_01>(twos));
    [_mm256_cvtss_f32(ones), _mm_cvtss_f32(_mm256_extractf128_ps::<1>(ones))]
}

/// 16 bytes in both halves.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn in_both(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes can be read.
    _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Bytes from a block's codes to those that are fetched meanwhile. Without it, the start of every page waits for memory.
const AHEAD: usize = 8192;

#[derive(Clone, Copy)]
struct Int4<'w> {
    codes: &'w [[u8; BLOCK / 2]],
    scales: &'w [f16],
    blocks: usize,
    planes: &'static [Planes],
}

impl<'w> Int4<'w> {
    fn new(codes: &'w [u8], scales: &'w [f16], blocks: usize) -> Self {
        Int4 { codes: codes.as_chunks().0, scales, blocks, planes: &PLANES }
    }
}

impl<'w> Weights for Int4<'w> {
    type Block = (&'w [u8; BLOCK / 2], &'static Planes);

    #[inline(always)]
    fn blocks(self, row: usize, from: usize) -> impl Iterator<Item = Self::Block> {
        let blocks = row * self.blocks + from..(row + 1) * self.blocks;
        let scales = self.scales[blocks.clone()].iter();
        self.codes[blocks].iter().zip(scales.map(move |scale| &self.planes[usize::from(scale.to_bits())]))
    }

    /// The codes at even places are looked up in the low half of a register, those at odd places in the high half.
    #[inline(always)]
    unsafe fn decode((codes, Planes(planes)): Self::Block) -> Block {
        // SAFETY: the caller says that the processor has the features.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(codes.as_ptr().wrapping_add(AHEAD).cast());
            let shifts = _mm256_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4);
            let codes = _mm256_and_si256(_mm256_srlv_epi32(in_both(codes), shifts), _mm256_set1_epi8(15));
            let [low, middle, high] = planes;
            let low = _mm256_shuffle_epi8(in_both(low), codes);
            let middle = _mm256_shuffle_epi8(in_both(middle), codes);
            let high = _mm256_shuffle_epi8(in_both(high), codes);
            let zero = _mm256_setzero_si256();
            let (low_first, low_last) = (_mm256_unpacklo_epi8(zero, low), _mm256_unpackhi_epi8(zero, low));
            let (first, last) = (_mm256_unpacklo_epi8(middle, high), _mm256_unpackhi_epi8(middle, high));
            [
                _mm256_castsi256_ps(_mm256_unpacklo_epi16(low_first, first)),
                _mm256_castsi256_ps(_mm256_unpackhi_epi16(low_first, first)),
                _mm256_castsi256_ps(_mm256_unpacklo_epi16(low_last, last)),
                _mm256_castsi256_ps(_mm256_unpackhi_epi16(low_last, last)),
            ]
        }
    }
}

/// Bytes 1 to 3 of a scale's 16 weights as f32, by the code's four bits. Byte 0 of a number that was rounded to f16 is 0.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Planes([[u8; 16]; 3]);

/// Weights of all scales. What a matrix uses of it stays in the second-level cache, and looking weights up takes half as long as
/// multiplying and rounding.
static PLANES: LazyLock<Vec<Planes>> = LazyLock::new(|| (0..=u16::MAX).map(planes).collect());

fn planes(scale: u16) -> Planes {
    let mut planes = Planes([[0; 16]; 3]);
    for code in 0..16_u8 {
        let product = f32::from((code << 4) as i8 >> 4) * f16::from_bits(scale).to_f32();
        let weight = f16::from_f32(product).to_f32().to_le_bytes();
        for (plane, byte) in planes.0.iter_mut().zip(&weight[1..]) {
            plane[usize::from(code)] = *byte;
        }
    }
    planes
}

#[derive(Clone, Copy)]
struct Int8<'w> {
    codes: &'w [i8],
    scales: &'w [f16],
    blocks: usize,
}

impl<'w> Weights for Int8<'w> {
    type Block = (&'w [[i8; 8]; QUARTERS], f16);

    #[inline(always)]
    fn blocks(self, row: usize, from: usize) -> impl Iterator<Item = Self::Block> {
        let blocks = row * self.blocks + from..(row + 1) * self.blocks;
        let codes = self.codes.as_chunks().0.as_chunks().0;
        codes[blocks.clone()].iter().zip(self.scales[blocks].iter().copied())
    }

    #[inline(always)]
    unsafe fn decode((codes, scale): Self::Block) -> Block {
        // SAFETY: the caller says that the processor has the features.
        unsafe {
            let scale = _mm256_cvtph_ps(_mm_set1_epi16(scale.to_bits().cast_signed()));
            let [first, second, third, fourth] = codes;
            [scaled(first, scale), scaled(second, scale), scaled(third, scale), scaled(fourth, scale)]
        }
    }
}

/// The products of codes and scale, rounded to f16.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scaled(codes: &[i8; 8], scale: __m256) -> __m256 {
    // SAFETY: eight codes can be read.
    let codes = _mm256_cvtepi8_epi32(unsafe { _mm_loadl_epi64(codes.as_ptr().cast()) });
    let products = _mm256_mul_ps(_mm256_cvtepi32_ps(codes), scale);
    _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(products))
}

/// f16 or f32.
#[derive(Clone, Copy)]
struct Plain<'w, T> {
    items: &'w [T],
    stride: usize,
    k: usize,
}

impl<T: Pod> Plain<'_, T> {
    /// What is left after whole blocks is padded with zeros.
    #[inline(always)]
    fn blocks(self, row: usize, from: usize) -> impl Iterator<Item = [[T; 8]; QUARTERS]> {
        let items = &self.items[row * self.stride..][from * BLOCK..self.k];
        let (whole, _) = items.as_chunks().0.as_chunks();
        let (mut rest, left) = ([[T::zeroed(); 8]; QUARTERS], &items[whole.len() * BLOCK..]);
        rest.as_flattened_mut()[..left.len()].copy_from_slice(left);
        whole.iter().copied().chain((!left.is_empty()).then_some(rest))
    }
}

impl Weights for Plain<'_, f16> {
    type Block = [[f16; 8]; QUARTERS];

    #[inline(always)]
    fn blocks(self, row: usize, from: usize) -> impl Iterator<Item = Self::Block> {
        self.blocks(row, from)
    }

    #[inline(always)]
    unsafe fn decode(block: Self::Block) -> Block {
        let [first, second, third, fourth] = &block;
        // SAFETY: the caller says that the processor has the features.
        unsafe { [converted(first), converted(second), converted(third), converted(fourth)] }
    }
}

impl Weights for Plain<'_, f32> {
    type Block = [[f32; 8]; QUARTERS];

    #[inline(always)]
    fn blocks(self, row: usize, from: usize) -> impl Iterator<Item = Self::Block> {
        self.blocks(row, from)
    }

    #[inline(always)]
    unsafe fn decode(block: Self::Block) -> Block {
        let [first, second, third, fourth] = &block;
        // SAFETY: the caller says that the processor has the features.
        unsafe { [eight(first), eight(second), eight(third), eight(fourth)] }
    }
}

#[inline]
#[target_feature(enable = "avx2,f16c")]
fn converted(halves: &[f16; 8]) -> __m256 {
    // SAFETY: eight numbers can be read.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(halves.as_ptr().cast()) })
}
