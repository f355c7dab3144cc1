//! The kernels for x86-64 with AVX2 and F16C.
//!
//! Two rows are multiplied at a time: a register holds four lanes of the first row and the same four lanes of the second, so that
//! one load of four activations serves both. One token is multiplied while the weights are decoded. For more, a tile of weights
//! is decoded into the first-level cache, and the sums of some rows and tokens stay in registers. Lanes, their order and all
//! roundings are those of the portable kernels, and so are the bits.

use std::arch::x86_64::*;
use std::sync::LazyLock;

use bytemuck::Pod;
use half::f16;
use rayon::prelude::*;

use super::{BLOCK, GROUP, LANES, Rows};

/// Registers for the 16 lanes of two rows.
const QUARTERS: usize = 4;
/// Steps of 16 lanes in a block.
const STEPS: usize = BLOCK / LANES;
/// Pairs of rows in a tile.
const PAIRS: usize = GROUP / 2;
/// Blocks of each row in a tile.
const TILE: usize = 16;
/// Pairs of rows and tokens whose sums are in registers at the same time.
const PAIRS_TOGETHER: usize = 2;
const TOKENS_TOGETHER: usize = 4;

/// 16 lanes of two rows: register `at` holds lanes `4 * at..` of the first row, then those of the second.
type Lanes = [__m256; QUARTERS];

/// Steps of a row in a tile.
const WIDTH: usize = TILE * STEPS;

/// Activations of the tokens of a chunk, in the order in which the weights of some rows are decoded: `[tiles, tokens, QUARTERS,
/// steps]`, where the last tile may have fewer steps. Padded with zeros to whole blocks.
pub(in crate::interpreter) struct Activations {
    k: usize,
    tokens: usize,
    steps: usize,
    fours: Vec<[f32; 4]>,
}

impl Activations {
    /// Arranges `values` [tokens, k] for products with these rows.
    pub(super) fn new(values: &[f32], k: usize, rows: Rows<'_>) -> Self {
        let k = k.max(1);
        let (tokens, steps) = (values.len() / k, k.div_ceil(BLOCK) * STEPS);
        let mut fours = vec![[0.0; 4]; tokens * steps * QUARTERS];
        let tiles = fours.par_chunks_mut((tokens * WIDTH * QUARTERS).max(1)).enumerate();
        tiles.for_each(|(tile, fours)| {
            let (from, width) = (tile * WIDTH * LANES, fours.len() / (tokens * QUARTERS));
            for (values, fours) in values.chunks_exact(k).zip(fours.chunks_exact_mut(width * QUARTERS)) {
                let values = &values[from..k.min(from + width * LANES)];
                for (block, values) in values.chunks(BLOCK).enumerate() {
                    let mut padded = [0.0; BLOCK];
                    padded[..values.len()].copy_from_slice(values);
                    arrange(&padded, rows.places(), &mut fours[block * STEPS..], width);
                }
            }
        });
        Activations { k, tokens, steps, fours }
    }

    /// Steps of a token in the tile that starts at step `from`, by quarter.
    #[inline]
    fn token(&self, at: usize, from: usize) -> [&[[f32; 4]]; QUARTERS] {
        let width = (self.steps - from).min(WIDTH);
        let first = (from * self.tokens + at * width) * QUARTERS;
        let mut quarters = self.fours[first..first + width * QUARTERS].chunks_exact(width);
        std::array::from_fn(|_| quarters.next().unwrap_or_default())
    }
}

/// Writes a block of activations: `places` are the values' places in the order of the lanes, and quarters are `stride` apart.
fn arrange(values: &[f32; BLOCK], places: &[u8; BLOCK], fours: &mut [[f32; 4]], stride: usize) {
    for step in 0..STEPS {
        for quarter in 0..QUARTERS {
            let lane = step * LANES + quarter * 4;
            fours[quarter * stride + step] =
                std::array::from_fn(|at| values[usize::from(places[lane + at]) % BLOCK]);
        }
    }
}

/// Rows of weights of one kind.
trait Weights: Copy {
    /// One row.
    type Row: Copy;

    fn row(self, at: usize) -> Self::Row;

    /// Decodes a block of two rows. It is always inlined, as registers are passed through memory otherwise.
    ///
    /// # Safety
    /// The processor must have AVX2 and F16C.
    unsafe fn decode(rows: [Self::Row; 2], block: usize) -> [Lanes; STEPS];
}

/// Two rows; one row twice if there is only one left.
fn pair<W: Weights>(weights: W, first: usize, left: usize) -> [W::Row; 2] {
    [weights.row(first), weights.row(first + usize::from(left > 1))]
}

/// Fills `out`, one slice per token, with the products of rows `first..` and the token's activations.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn multiply_rows(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
    let blocks = x.steps / STEPS;
    match rows {
        Rows::Int4 { codes, scales } => multiply(Int4 { codes, scales, blocks }, first, x, out),
        Rows::Int8 { codes, scales } => multiply(Int8 { codes, scales, blocks }, first, x, out),
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
    for (at, out) in out.chunks_mut(2).enumerate() {
        let rows = pair(weights, first + 2 * at, out.len());
        let mut sums = [_mm256_setzero_ps(); QUARTERS];
        for from in (0..x.steps).step_by(WIDTH) {
            let x = x.token(0, from);
            for block in 0..x[0].len() / STEPS {
                // SAFETY: the features are those of this function.
                let steps = unsafe { W::decode(rows, from / STEPS + block) };
                for step in 0..STEPS {
                    for quarter in 0..QUARTERS {
                        let x = twice(&x[quarter][block * STEPS + step]);
                        sums[quarter] = _mm256_add_ps(sums[quarter], _mm256_mul_ps(steps[step][quarter], x));
                    }
                }
            }
        }
        out.copy_from_slice(&totals(sums)[..out.len()]);
    }
}

/// Decoded steps of two rows: four lanes of both, by quarter.
type DecodedPair = [[[f32; 8]; WIDTH]; QUARTERS];

/// Decoded weights of a group of rows.
#[repr(align(64))]
struct Tile([DecodedPair; PAIRS]);

#[target_feature(enable = "avx2,f16c")]
fn multiply_tokens<W: Weights>(weights: W, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
    let (tokens, height) = (out.len(), out.first().map_or(0, |out| out.len()));
    let mut tile = Box::new(Tile([[[[0.0; 8]; WIDTH]; QUARTERS]; PAIRS]));
    let mut sums = vec![[_mm256_setzero_ps(); QUARTERS]; PAIRS * tokens];
    for group in (0..height).step_by(GROUP) {
        let last = height - group - 1;
        sums.fill([_mm256_setzero_ps(); QUARTERS]);
        for from in (0..x.steps).step_by(WIDTH) {
            let steps = (x.steps - from).min(WIDTH);
            for (at, decoded) in tile.0.iter_mut().enumerate() {
                let row = (2 * at).min(last);
                decode_pair::<W>(
                    pair(weights, first + group + row, last - row + 1),
                    from / STEPS,
                    steps,
                    decoded,
                );
            }
            for token in (0..tokens).step_by(TOKENS_TOGETHER) {
                let add = match tokens - token {
                    1 => add_products::<1>,
                    2 => add_products::<2>,
                    3 => add_products::<3>,
                    _ => add_products::<TOKENS_TOGETHER>,
                };
                add(&tile, x, [token, from], &mut sums[token * PAIRS..]);
            }
        }
        for (sums, out) in sums.chunks_exact(PAIRS).zip(out.iter_mut()) {
            for (sums, out) in sums.iter().zip(out[group..=group + last.min(GROUP - 1)].chunks_mut(2)) {
                out.copy_from_slice(&totals(*sums)[..out.len()]);
            }
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
fn decode_pair<W: Weights>(rows: [W::Row; 2], from: usize, steps: usize, decoded: &mut DecodedPair) {
    for block in 0..steps / STEPS {
        // SAFETY: the features are those of this function.
        let lanes = unsafe { W::decode(rows, from + block) };
        for step in 0..STEPS {
            for quarter in 0..QUARTERS {
                let target = &mut decoded[quarter][block * STEPS + step];
                // SAFETY: the target has room for eight numbers.
                unsafe { _mm256_storeu_ps(target.as_mut_ptr(), lanes[step][quarter]) };
            }
        }
    }
}

/// Adds the products of a tile and the activations of `T` tokens to the tokens' sums, `[T, PAIRS]`.
#[target_feature(enable = "avx2,f16c")]
fn add_products<const T: usize>(
    tile: &Tile,
    x: &Activations,
    [token, from]: [usize; 2],
    sums: &mut [[__m256; QUARTERS]],
) {
    for quarter in 0..QUARTERS {
        let mut quarters: [&[[f32; 4]]; T] = [&[]; T];
        for (at, target) in quarters.iter_mut().enumerate() {
            *target = x.token(token + at, from)[quarter];
        }
        let steps = quarters[0].len();
        for (at, pairs) in tile.0.as_chunks::<PAIRS_TOGETHER>().0.iter().enumerate() {
            let first = at * PAIRS_TOGETHER;
            let weights = [&pairs[0][quarter][..steps], &pairs[1][quarter][..steps]];
            let mut sum = [[_mm256_setzero_ps(); PAIRS_TOGETHER]; T];
            for at in 0..T {
                for pair in 0..PAIRS_TOGETHER {
                    sum[at][pair] = sums[at * PAIRS + first + pair][quarter];
                }
            }
            for step in 0..steps {
                let weights = [eight(&weights[0][step]), eight(&weights[1][step])];
                for at in 0..T {
                    // SAFETY: the slices of all tokens have `steps` items.
                    let x = twice(unsafe { quarters[at].get_unchecked(step) });
                    for pair in 0..PAIRS_TOGETHER {
                        sum[at][pair] = _mm256_add_ps(sum[at][pair], _mm256_mul_ps(weights[pair], x));
                    }
                }
            }
            for at in 0..T {
                for pair in 0..PAIRS_TOGETHER {
                    sums[at * PAIRS + first + pair][quarter] = sum[at][pair];
                }
            }
        }
    }
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

/// Sums of the lanes of each row: halves are added until one is left.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn totals([first, second, third, fourth]: Lanes) -> [f32; 2] {
    let fours = _mm256_add_ps(_mm256_add_ps(first, third), _mm256_add_ps(second, fourth));
    let twos = _mm256_add_ps(fours, _mm256_permute_ps::<0b01_00_11_10>(fours));
    let ones = _mm256_add_ps(twos, _mm256_permute_ps::<0b10_11_00_01>(twos));
    [_mm256_cvtss_f32(ones), _mm_cvtss_f32(_mm256_extractf128_ps::<1>(ones))]
}

/// 16 bytes of the first row, then 16 of the second.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn both(first: &[u8; 16], second: &[u8; 16]) -> __m256i {
    // SAFETY: 16 bytes of each can be read.
    unsafe {
        _mm256_set_m128i(_mm_loadu_si128(second.as_ptr().cast()), _mm_loadu_si128(first.as_ptr().cast()))
    }
}

/// Blocks from a block to the one that is fetched meanwhile: 8 kB of codes. Without it, the start of every page waits for memory.
const AHEAD: usize = 512;

#[derive(Clone, Copy)]
struct Int4<'w> {
    codes: &'w [u8],
    scales: &'w [f16],
    blocks: usize,
}

impl<'w> Weights for Int4<'w> {
    type Row = (&'w [[u8; BLOCK / 2]], &'w [f16], &'static [Planes]);

    fn row(self, at: usize) -> Self::Row {
        let codes = &self.codes.as_chunks().0[at * self.blocks..][..self.blocks];
        (codes, &self.scales[at * self.blocks..][..self.blocks], &PLANES)
    }

    #[inline(always)]
    unsafe fn decode([first, second]: [Self::Row; 2], block: usize) -> [Lanes; STEPS] {
        let of_scale = |row: Self::Row| &row.2[usize::from(row.1[block].to_bits())].0;
        let (a, b) = (of_scale(first), of_scale(second));
        // SAFETY: the caller says that the processor has the features.
        unsafe {
            let planes = [both(&a[0], &b[0]), both(&a[1], &b[1]), both(&a[2], &b[2])];
            let codes = both(&first.0[block], &second.0[block]);
            _mm_prefetch::<_MM_HINT_T0>(first.0.as_ptr().wrapping_add(block + AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(second.0.as_ptr().wrapping_add(block + AHEAD).cast());
            _mm_prefetch::<_MM_HINT_T0>(second.1.as_ptr().wrapping_add(block + AHEAD).cast());
            let low = _mm256_set1_epi8(15);
            let even = _mm256_and_si256(codes, low);
            let odd = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low);
            [looked_up(planes, even), looked_up(planes, odd)]
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

/// The weights of 16 codes of each row.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn looked_up(planes: [__m256i; 3], codes: __m256i) -> Lanes {
    let zero = _mm256_setzero_si256();
    let low = _mm256_shuffle_epi8(planes[0], codes);
    let middle = _mm256_shuffle_epi8(planes[1], codes);
    let high = _mm256_shuffle_epi8(planes[2], codes);
    let (low_first, low_last) = (_mm256_unpacklo_epi8(zero, low), _mm256_unpackhi_epi8(zero, low));
    let (high_first, high_last) = (_mm256_unpacklo_epi8(middle, high), _mm256_unpackhi_epi8(middle, high));
    [
        _mm256_castsi256_ps(_mm256_unpacklo_epi16(low_first, high_first)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi16(low_first, high_first)),
        _mm256_castsi256_ps(_mm256_unpacklo_epi16(low_last, high_last)),
        _mm256_castsi256_ps(_mm256_unpackhi_epi16(low_last, high_last)),
    ]
}

#[derive(Clone, Copy)]
struct Int8<'w> {
    codes: &'w [i8],
    scales: &'w [f16],
    blocks: usize,
}

impl<'w> Weights for Int8<'w> {
    type Row = (&'w [[[u8; LANES]; STEPS]], &'w [f16]);

    fn row(self, at: usize) -> Self::Row {
        let codes = bytemuck::cast_slice::<i8, u8>(self.codes).as_chunks().0.as_chunks().0;
        (&codes[at * self.blocks..][..self.blocks], &self.scales[at * self.blocks..][..self.blocks])
    }

    #[inline(always)]
    unsafe fn decode([first, second]: [Self::Row; 2], block: usize) -> [Lanes; STEPS] {
        // SAFETY: the caller says that the processor has the features.
        unsafe {
            let scale = |row: Self::Row| _mm_set1_epi16(row.1[block].to_bits().cast_signed());
            let scale = _mm256_cvtph_ps(_mm_unpacklo_epi64(scale(first), scale(second)));
            let (first, second) = (&first.0[block], &second.0[block]);
            [scaled(&first[0], &second[0], scale), scaled(&first[1], &second[1], scale)]
        }
    }
}

/// The products of 16 codes of each row and `scale`, rounded to f16.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn scaled(first: &[u8; 16], second: &[u8; 16], scale: __m256) -> Lanes {
    let codes = both(first, second);
    // Four codes of the first row, four of the second, and the next four of each.
    let (first, second) = (_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes));
    let (low, high) = (_mm_unpacklo_epi32(first, second), _mm_unpackhi_epi32(first, second));
    [
        rounded(low, scale),
        rounded(_mm_unpackhi_epi64(low, low), scale),
        rounded(high, scale),
        rounded(_mm_unpackhi_epi64(high, high), scale),
    ]
}

/// The products of eight codes and `scale`, rounded to f16.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn rounded(codes: __m128i, scale: __m256) -> __m256 {
    let product = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)), scale);
    _mm256_cvtph_ps(_mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(product))
}

/// f16 or f32.
#[derive(Clone, Copy)]
struct Plain<'w, T> {
    items: &'w [T],
    stride: usize,
    k: usize,
}

/// Whole blocks, and what is left, padded with zeros.
#[derive(Clone, Copy)]
struct PlainRow<'w, T> {
    whole: &'w [[T; BLOCK]],
    rest: [T; BLOCK],
}

impl<'w, T: Pod> Plain<'w, T> {
    fn row(self, at: usize) -> PlainRow<'w, T> {
        let (whole, left) = self.items[at * self.stride..][..self.k].as_chunks();
        let mut rest = [T::zeroed(); BLOCK];
        rest[..left.len()].copy_from_slice(left);
        PlainRow { whole, rest }
    }
}

impl<T: Pod> PlainRow<'_, T> {
    fn block(&self, at: usize) -> &[T; BLOCK] {
        self.whole.get(at).unwrap_or(&self.rest)
    }
}

impl<'w> Weights for Plain<'w, f16> {
    type Row = PlainRow<'w, f16>;

    fn row(self, at: usize) -> Self::Row {
        self.row(at)
    }

    #[inline(always)]
    unsafe fn decode([first, second]: [Self::Row; 2], block: usize) -> [Lanes; STEPS] {
        let first: &[[[u8; 16]; 2]; STEPS] = bytemuck::cast_ref(first.block(block));
        let second: &[[[u8; 16]; 2]; STEPS] = bytemuck::cast_ref(second.block(block));
        // SAFETY: the caller says that the processor has the features.
        unsafe { [converted(&first[0], &second[0]), converted(&first[1], &second[1])] }
    }
}

impl<'w> Weights for Plain<'w, f32> {
    type Row = PlainRow<'w, f32>;

    fn row(self, at: usize) -> Self::Row {
        self.row(at)
    }

    #[inline(always)]
    unsafe fn decode([first, second]: [Self::Row; 2], block: usize) -> [Lanes; STEPS] {
        let first: &[[[u8; 16]; QUARTERS]; STEPS] = bytemuck::cast_ref(first.block(block));
        let second: &[[[u8; 16]; QUARTERS]; STEPS] = bytemuck::cast_ref(second.block(block));
        // SAFETY: the caller says that the processor has the features.
        unsafe { [taken(&first[0], &second[0]), taken(&first[1], &second[1])] }
    }
}

/// 16 f16 numbers of each row.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn converted(first: &[[u8; 16]; 2], second: &[[u8; 16]; 2]) -> Lanes {
    let (low, high) = (both(&first[0], &second[0]), both(&first[1], &second[1]));
    let (low_first, low_second) = (_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low));
    let (high_first, high_second) = (_mm256_castsi256_si128(high), _mm256_extracti128_si256::<1>(high));
    [
        _mm256_cvtph_ps(_mm_unpacklo_epi64(low_first, low_second)),
        _mm256_cvtph_ps(_mm_unpackhi_epi64(low_first, low_second)),
        _mm256_cvtph_ps(_mm_unpacklo_epi64(high_first, high_second)),
        _mm256_cvtph_ps(_mm_unpackhi_epi64(high_first, high_second)),
    ]
}

/// 16 f32 numbers of each row.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn taken(first: &[[u8; 16]; QUARTERS], second: &[[u8; 16]; QUARTERS]) -> Lanes {
    [
        _mm256_castsi256_ps(both(&first[0], &second[0])),
        _mm256_castsi256_ps(both(&first[1], &second[1])),
        _mm256_castsi256_ps(both(&first[2], &second[2])),
        _mm256_castsi256_ps(both(&first[3], &second[3])),
    ]
}
