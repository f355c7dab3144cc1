//! The kernels in plain loops over 16 lanes, for processors without kernels of their own.
//!
//! Few rows are decoded at a time, so they stay in the processor's cache until all tokens are multiplied.

use half::f16;

use super::halves::{round_normal, to_single};
use super::{BLOCK, GROUP, LANES, Rows};

/// Weights of a row that are decoded at a time: those of a group of rows fit in the first-level cache, with activations.
const TILE: usize = 512;
/// Tokens whose sums are in registers at the same time.
const TOGETHER: usize = 4;

impl Rows<'_> {
    /// Decodes weights of a row of `k` weights, starting at weight `from`. Weights beyond the row are 0.
    ///
    /// In each block of 32 4-bit codes, those at even places (the low bits) come first, then those at odd places (the high bits).
    #[inline(always)]
    fn decode(self, row: usize, k: usize, from: usize, out: &mut [[f32; LANES]]) {
        let (at, length) = (row * k + from, (k - from).min(out.len() * LANES));
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
pub(in crate::interpreter) struct Activations {
    k: usize,
    /// Lanes per token; the last one is padded with zeros.
    width: usize,
    lanes: Vec<[f32; LANES]>,
}

impl Activations {
    /// Arranges `values` [tokens, k] for products with these rows.
    pub(super) fn new(values: &[f32], k: usize, rows: Rows<'_>) -> Self {
        let width = k.div_ceil(LANES);
        let mut lanes = vec![[0.0; LANES]; values.len() / k.max(1) * width];
        for (values, lanes) in values.chunks_exact(k.max(1)).zip(lanes.chunks_exact_mut(width.max(1))) {
            for (values, lanes) in values.chunks(BLOCK).zip(lanes.as_flattened_mut().chunks_mut(BLOCK)) {
                let in_order = rows.places().iter().filter_map(|place| values.get(usize::from(*place)));
                lanes.iter_mut().zip(in_order).for_each(|(lane, value)| *lane = *value);
            }
        }
        Activations { k, width, lanes }
    }

    fn token(&self, at: usize) -> &[[f32; LANES]] {
        &self.lanes[at * self.width..(at + 1) * self.width]
    }
}

/// Fills `out`, one slice per token, with the products of rows `first..` and the token's activations.
pub(super) fn multiply_rows(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
    let (tokens, height) = (out.len(), out.first().map_or(0, |out| out.len()));
    let width = (TILE / LANES).min(x.width);
    let mut decoded = vec![[0.0; LANES]; GROUP * width];
    let mut sums = vec![[0.0; LANES]; GROUP * tokens];
    for group in (0..height).step_by(GROUP) {
        let count = GROUP.min(height - group);
        sums.fill([0.0; LANES]);
        for from in (0..x.width).step_by(width.max(1)) {
            let width = width.min(x.width - from);
            let decoded = &mut decoded[..count * width];
            for (at, weights) in decoded.chunks_exact_mut(width).enumerate() {
                rows.decode(first + group + at, x.k, from * LANES, weights);
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

/// Adds the products of decoded rows and all tokens' activations, which start at lane `from`, to `sums` [rows, tokens].
fn add_tile(decoded: &[[f32; LANES]], x: &Activations, from: usize, width: usize, sums: &mut [[f32; LANES]]) {
    let tokens = sums.len() / GROUP;
    let part = |token: usize| &x.token(token)[from..from + width];
    let mut token = 0;
    while token < tokens {
        let rows = decoded.chunks_exact(width).zip(sums.chunks_exact_mut(tokens));
        if tokens - token >= TOGETHER {
            let together = [part(token), part(token + 1), part(token + 2), part(token + 3)];
            for (weights, sums) in rows {
                if let Some(sums) = sums[token..].first_chunk_mut::<TOGETHER>() {
                    *sums = four_sums(*sums, weights, together);
                }
            }
            token += TOGETHER;
        } else {
            let alone = part(token);
            for (weights, sums) in rows {
                sums[token] = one_sum(sums[token], weights, alone);
            }
            token += 1;
        }
    }
}

/// Adds the products of weights and activations to the sums of one token.
#[inline(always)]
fn one_sum(mut sum: [f32; LANES], weights: &[[f32; LANES]], x: &[[f32; LANES]]) -> [f32; LANES] {
    for (weights, x) in weights.iter().zip(x) {
        sum = added(sum, weights, x);
    }
    sum
}

/// [`one_sum`] for four tokens, which loads each weight once. The sums are four variables because the compiler does not keep an
/// array of them in registers.
#[inline(always)]
fn four_sums(
    [mut a, mut b, mut c, mut d]: [[f32; LANES]; TOGETHER],
    weights: &[[f32; LANES]],
    [of_a, of_b, of_c, of_d]: [&[[f32; LANES]]; TOGETHER],
) -> [[f32; LANES]; TOGETHER] {
    let x = of_a.iter().zip(of_b).zip(of_c.iter().zip(of_d));
    for (weights, ((of_a, of_b), (of_c, of_d))) in weights.iter().zip(x) {
        a = added(a, weights, of_a);
        b = added(b, weights, of_b);
        c = added(c, weights, of_c);
        d = added(d, weights, of_d);
    }
    [a, b, c, d]
}

#[inline(always)]
fn added(mut sum: [f32; LANES], weights: &[f32; LANES], x: &[f32; LANES]) -> [f32; LANES] {
    for lane in 0..LANES {
        sum[lane] += weights[lane] * x[lane];
    }
    sum
}

#[inline(always)]
fn convert<T: Copy>(items: &[T], out: &mut [[f32; LANES]], to_single: impl Fn(T) -> f32) {
    let (whole, rest) = items.as_chunks::<LANES>();
    for (items, out) in whole.iter().zip(&mut *out) {
        for lane in 0..LANES {
            out[lane] = to_single(items[lane]);
        }
    }
    if let Some(out) = out.get_mut(whole.len()) {
        *out = [0.0; LANES];
        out.iter_mut().zip(rest).for_each(|(out, item)| *out = to_single(*item));
    }
}

#[inline(always)]
fn decode_int4(codes: &[u8], scales: &[f16], out: &mut [[f32; LANES]]) {
    let (codes, _) = codes.as_chunks::<{ BLOCK / 2 }>();
    let (out, _) = out.as_chunks_mut::<{ BLOCK / LANES }>();
    for ((codes, scale), [even, odd]) in codes.iter().zip(scales).zip(out) {
        let scale = to_single(scale.to_bits());
        let (mut low, mut high) = ([0.0; LANES], [0.0; LANES]);
        for lane in 0..LANES {
            low[lane] = f32::from((codes[lane] << 4) as i8 >> 4);
            high[lane] = f32::from(codes[lane] as i8 >> 4);
        }
        *even = scaled(low, scale, 8.0);
        *odd = scaled(high, scale, 8.0);
    }
}

/// Codes times their scale, rounded to f16.
#[inline(always)]
fn scaled(codes: [f32; LANES], scale: f32, largest_code: f32) -> [f32; LANES] {
    let mut weights = [0.0; LANES];
    if rounds_by_bits(scale, largest_code) {
        for lane in 0..LANES {
            weights[lane] = round_normal(codes[lane] * scale);
        }
    } else {
        // Not `round_to_half`: the compiler would then compute both and choose.
        for lane in 0..LANES {
            weights[lane] = f16::from_f32(codes[lane] * scale).to_f32();
        }
    }
    weights
}

/// Whether the products of all codes but 0 are normal f16 numbers, before and after rounding: then a third of the work is enough.
#[inline(always)]
fn rounds_by_bits(scale: f32, largest_code: f32) -> bool {
    let size = scale.abs();
    size >= 6.103_515_6e-5 && size * largest_code < 65504.0
}

#[inline(always)]
fn decode_int8(codes: &[i8], scales: &[f16], out: &mut [[f32; LANES]]) {
    let (codes, _) = codes.as_chunks::<LANES>();
    let (codes, _) = codes.as_chunks::<{ BLOCK / LANES }>();
    let (out, _) = out.as_chunks_mut::<{ BLOCK / LANES }>();
    for ((codes, scale), out) in codes.iter().zip(scales).zip(out) {
        let scale = to_single(scale.to_bits());
        for (codes, out) in codes.iter().zip(out) {
            let mut singles = [0.0; LANES];
            for lane in 0..LANES {
                singles[lane] = f32::from(codes[lane]);
            }
            *out = scaled(singles, scale, 128.0);
        }
    }
}

#[inline(always)]
pub(super) fn total(lanes: [f32; LANES]) -> f32 {
    let mut sums = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}
