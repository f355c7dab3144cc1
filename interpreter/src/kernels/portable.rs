//! The kernels in plain loops, for processors without kernels of their own.
//!
//! Few rows are decoded at a time, so they stay in the processor's cache until all tokens are multiplied.

use half::f16;

use super::halves::{round_normal, to_single};
use super::{BLOCK, GROUP, Rows};

/// Blocks of a row that are decoded at a time: those of a group of rows fit in the first-level cache, with activations.
const TILE: usize = 16;
/// Tokens whose sums are in registers at the same time.
const TOGETHER: usize = 4;
/// Sums of a token that are in registers at the same time.
const HALF: usize = BLOCK / 2;

/// One number for each place of a block.
type Block = [[f32; HALF]; 2];

impl Rows<'_> {
    /// Decodes blocks of a row of `k` weights, starting at block `from`, in the order of [`Rows::places`]. Weights beyond the row are 0.
    #[inline(always)]
    fn decode(self, row: usize, k: usize, from: usize, out: &mut [Block]) {
        let from = from * BLOCK;
        let (at, length) = (row * k + from, (k - from).min(out.len() * BLOCK));
        match self {
            Rows::Int4 { codes, scales } => {
                decode_int4(&codes[at / 2..(at + length) / 2], &scales[at / BLOCK..], out);
            }
            Rows::Int8 { codes, scales } => {
                decode_int8(&codes[at..at + length], &scales[at / BLOCK..], out);
            }
            Rows::Half { items, stride } => {
                let items = &items[row * stride + from..][..length];
                convert(items, out, |half| to_single(half.to_bits()));
            }
            Rows::Single { items, stride } => {
                convert(&items[row * stride + from..][..length], out, |single| single);
            }
        }
    }
}

/// Activations of the tokens of a chunk, in the order in which the weights of some rows are decoded.
pub(crate) struct Activations {
    k: usize,
    /// Blocks per token; the last one is padded with zeros.
    width: usize,
    blocks: Vec<Block>,
}

impl Activations {
    /// Arranges `values` [tokens, k] for products with these rows.
    pub(super) fn new(values: &[f32], k: usize, rows: Rows<'_>) -> Self {
        let width = k.div_ceil(BLOCK);
        let mut blocks = vec![[[0.0; HALF]; 2]; values.len() / k.max(1) * width];
        for (values, blocks) in values.chunks_exact(k.max(1)).zip(blocks.chunks_exact_mut(width.max(1))) {
            for (values, block) in values.chunks(BLOCK).zip(blocks) {
                for (target, place) in block.as_flattened_mut().iter_mut().zip(rows.places()) {
                    *target = values.get(usize::from(*place)).copied().unwrap_or(0.0);
                }
            }
        }
        Activations { k, width, blocks }
    }

    fn token(&self, at: usize) -> &[Block] {
        &self.blocks[at * self.width..(at + 1) * self.width]
    }
}

/// Fills `out`, one slice per token, with the products of rows `first..` and the token's activations.
pub(super) fn multiply_rows(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
    let (tokens, height) = (out.len(), out.first().map_or(0, |out| out.len()));
    let width = TILE.min(x.width);
    let mut decoded = vec![[[0.0; HALF]; 2]; GROUP * width];
    let mut sums = vec![[[0.0; HALF]; 2]; GROUP * tokens];
    for group in (0..height).step_by(GROUP) {
        let count = GROUP.min(height - group);
        sums.fill([[0.0; HALF]; 2]);
        for from in (0..x.width).step_by(width.max(1)) {
            let width = width.min(x.width - from);
            let decoded = &mut decoded[..count * width];
            for (at, weights) in decoded.chunks_exact_mut(width).enumerate() {
                rows.decode(first + group + at, x.k, from, weights);
            }
            add_tile(decoded, x, from, width, &mut sums);
        }
        for (token, out) in out.iter_mut().enumerate() {
            for (at, out) in out[group..group + count].iter_mut().enumerate() {
                *out = total(sums[at * tokens + token]);
            }
        }
    }
}

/// Adds the products of decoded rows and all tokens' activations, which start at block `from`, to `sums` [rows, tokens].
fn add_tile(decoded: &[Block], x: &Activations, from: usize, width: usize, sums: &mut [Block]) {
    let tokens = sums.len() / GROUP;
    let part = |token: usize| &x.token(token)[from..from + width];
    let mut token = 0;
    while token < tokens {
        let rows = decoded.chunks_exact(width).zip(sums.chunks_exact_mut(tokens));
        if tokens - token >= TOGETHER {
            let together = [part(token), part(token + 1), part(token + 2), part(token + 3)];
            for (weights, sums) in rows {
                if let Some(sums) = sums[token..].first_chunk_mut::<TOGETHER>() {
                    (0..2).for_each(|half| four_sums(half, weights, together, sums));
                }
            }
            token += TOGETHER;
        } else {
            let alone = part(token);
            for (weights, sums) in rows {
                (0..2).for_each(|half| one_sum(half, weights, alone, &mut sums[token]));
            }
            token += 1;
        }
    }
}

/// Adds the products of weights and activations to half of the sums of one token.
#[inline(always)]
fn one_sum(half: usize, weights: &[Block], x: &[Block], sums: &mut Block) {
    let mut sum = sums[half];
    for (weights, x) in weights.iter().zip(x) {
        sum = added(sum, &weights[half], &x[half]);
    }
    sums[half] = sum;
}

/// [`one_sum`] for four tokens, which loads each weight once. The sums are four variables because the compiler does not keep an
/// array of them in registers.
#[inline(always)]
fn four_sums(
    half: usize,
    weights: &[Block],
    [of_a, of_b, of_c, of_d]: [&[Block]; TOGETHER],
    sums: &mut [Block; TOGETHER],
) {
    let [mut a, mut b, mut c, mut d] = sums.map(|sum| sum[half]);
    let x = of_a.iter().zip(of_b).zip(of_c.iter().zip(of_d));
    for (weights, ((of_a, of_b), (of_c, of_d))) in weights.iter().zip(x) {
        let weights = &weights[half];
        a = added(a, weights, &of_a[half]);
        b = added(b, weights, &of_b[half]);
        c = added(c, weights, &of_c[half]);
        d = added(d, weights, &of_d[half]);
    }
    for (sums, sum) in sums.iter_mut().zip([a, b, c, d]) {
        sums[half] = sum;
    }
}

#[inline(always)]
fn added(mut sum: [f32; HALF], weights: &[f32; HALF], x: &[f32; HALF]) -> [f32; HALF] {
    for at in 0..HALF {
        sum[at] += weights[at] * x[at];
    }
    sum
}

#[inline(always)]
fn convert<T: Copy>(items: &[T], out: &mut [Block], to_single: impl Fn(T) -> f32) {
    let (whole, rest) = items.as_chunks::<BLOCK>();
    for (items, out) in whole.iter().zip(&mut *out) {
        let out = out.as_flattened_mut();
        for at in 0..BLOCK {
            out[at] = to_single(items[at]);
        }
    }
    if let Some(out) = out.get_mut(whole.len()) {
        *out = [[0.0; HALF]; 2];
        out.as_flattened_mut().iter_mut().zip(rest).for_each(|(out, item)| *out = to_single(*item));
    }
}

#[inline(always)]
fn decode_int4(codes: &[u8], scales: &[f16], out: &mut [Block]) {
    let (codes, _) = codes.as_chunks::<{ BLOCK / 2 }>();
    for ((codes, scale), out) in codes.iter().zip(scales).zip(out) {
        let scale = to_single(scale.to_bits());
        let mut singles = [0.0; BLOCK];
        let (eights, _) = singles.as_chunks_mut::<8>();
        for (eight, codes) in eights.iter_mut().zip(codes.as_chunks::<4>().0) {
            for at in 0..4 {
                eight[at] = f32::from((codes[at] << 4) as i8 >> 4);
                eight[at + 4] = f32::from(codes[at] as i8 >> 4);
            }
        }
        scale_codes(&singles, scale, 8.0, out);
    }
}

/// Multiplies codes by their scale and rounds to f16.
#[inline(always)]
fn scale_codes(codes: &[f32; BLOCK], scale: f32, largest_code: f32, out: &mut Block) {
    let weights = out.as_flattened_mut();
    if rounds_by_bits(scale, largest_code) {
        for at in 0..BLOCK {
            weights[at] = round_normal(codes[at] * scale);
        }
    } else {
        // Not `round_to_half`: the compiler would then compute both and choose.
        for at in 0..BLOCK {
            weights[at] = f16::from_f32(codes[at] * scale).to_f32();
        }
    }
}

/// Whether the products of all codes but 0 are normal f16 numbers, before and after rounding: then a third of the work is enough.
#[inline(always)]
fn rounds_by_bits(scale: f32, largest_code: f32) -> bool {
    let size = scale.abs();
    size >= 6.103_515_6e-5 && size * largest_code < 65504.0
}

#[inline(always)]
fn decode_int8(codes: &[i8], scales: &[f16], out: &mut [Block]) {
    for ((codes, scale), out) in codes.as_chunks::<BLOCK>().0.iter().zip(scales).zip(out) {
        scale_codes(&codes.map(f32::from), to_single(scale.to_bits()), 128.0, out);
    }
}

/// Adds halves until one number is left.
#[inline(always)]
pub(super) fn total(block: Block) -> f32 {
    let sums = block.as_flattened();
    let mut sums: [f32; HALF] = std::array::from_fn(|at| sums[at] + sums[at + HALF]);
    let mut width = HALF / 2;
    while width > 0 {
        for at in 0..width {
            sums[at] += sums[at + width];
        }
        width /= 2;
    }
    sums[0]
}
