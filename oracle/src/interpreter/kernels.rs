//! Dot products of activations with rows of weights, read directly from packed codes or f16.
//!
//! Each weight is decoded once for all tokens of a chunk. Few rows are decoded at a time, so they stay in the processor's cache
//! until all tokens are multiplied. Each kernel is written once, as plain loops over fixed-width lanes; on x86-64 it is also
//! compiled for AVX2 and selected at run time. Multiplications and additions are never fused and lanes are added in a fixed
//! order, so both versions give the same bits, and a token gets the same bits in any chunk.

use half::f16;

/// Partial sums of a dot product.
const LANES: usize = 16;
/// Weights per block that the kernels for codes support.
pub(super) const BLOCK: usize = 32;
/// Rows whose weights are decoded together.
pub(super) const GROUP: usize = 8;
/// Weights of a row that are decoded at a time: those of a group of rows fit in the first-level cache, with activations.
const TILE: usize = 512;
/// Tokens whose sums are in registers at the same time.
const TOGETHER: usize = 4;

/// Rows of a matrix [n, k]; each row is contiguous.
#[derive(Clone, Copy)]
pub(super) enum Rows<'w> {
    /// Signed 4-bit codes, two per byte, low bits first; one scale per 32 codes.
    Int4 { codes: &'w [u8], scales: &'w [f16] },
    /// Signed 8-bit codes; one scale per 32 codes.
    Int8 { codes: &'w [i8], scales: &'w [f16] },
    /// f16, one row every `stride` elements.
    Half { items: &'w [f16], stride: usize },
    /// f32, one row every `stride` elements.
    Single { items: &'w [f32], stride: usize },
}

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
pub(super) struct Activations {
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
            let target = lanes.as_flattened_mut();
            if let Rows::Int4 { .. } = rows {
                for (values, target) in values.chunks(BLOCK).zip(target.chunks_mut(BLOCK)) {
                    let in_order = values.iter().step_by(2).chain(values.iter().skip(1).step_by(2));
                    target.iter_mut().zip(in_order).for_each(|(target, value)| *target = *value);
                }
            } else {
                target[..k].copy_from_slice(values);
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
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { multiply_rows_avx2(rows, first, x, out) };
    }
    multiply_rows_portable(rows, first, x, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn multiply_rows_avx2(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
    multiply_rows_portable(rows, first, x, out);
}

#[inline(always)]
fn multiply_rows_portable(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [&mut [f32]]) {
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
#[inline(always)]
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

/// Adds `factor` times a row of f16 or f32 to `sums`.
pub(super) fn accumulate(row: Row<'_>, factor: f32, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { accumulate_avx2(row, factor, sums) };
    }
    accumulate_portable(row, factor, sums);
}

/// Adds `factor` times a row to `sums`, rounding every product and every sum to f16.
pub(super) fn accumulate_rounded(row: &[f32], factor: f32, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { accumulate_rounded_avx2(row, factor, sums) };
    }
    accumulate_rounded_portable(row, factor, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn accumulate_rounded_avx2(row: &[f32], factor: f32, sums: &mut [f32]) {
    accumulate_rounded_portable(row, factor, sums);
}

#[inline(always)]
fn accumulate_rounded_portable(row: &[f32], factor: f32, sums: &mut [f32]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum = round_to_half(*sum + round_to_half(factor * value));
    }
}

/// One row of values.
#[derive(Clone, Copy)]
pub(super) enum Row<'w> {
    Half(&'w [f16]),
    Single(&'w [f32]),
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn accumulate_avx2(row: Row<'_>, factor: f32, sums: &mut [f32]) {
    accumulate_portable(row, factor, sums);
}

#[inline(always)]
fn accumulate_portable(row: Row<'_>, factor: f32, sums: &mut [f32]) {
    match row {
        Row::Half(row) => {
            for (sum, half) in sums.iter_mut().zip(row) {
                *sum += factor * to_single(half.to_bits());
            }
        }
        Row::Single(row) => {
            for (sum, single) in sums.iter_mut().zip(row) {
                *sum += factor * single;
            }
        }
    }
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

/// Rounds to the 11 significant bits of a normal f16, ties to even; 0 stays 0.
#[inline(always)]
fn round_normal(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0xFFF + ((bits >> 13) & 1)) & !0x1FFF)
}

/// Rounds to f16, ties to even, without branches.
#[inline(always)]
pub(super) fn round_to_half(value: f32) -> f32 {
    const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
    const INFINITE: u32 = 255 << 23;
    let magnitude = value.to_bits() & 0x7FFF_FFFF;
    // f16 values below the normal range are multiples of 2^-24, as are f32 values from 0.5 to 1.
    let tiny = (f32::from_bits(magnitude) + 0.5 - 0.5).to_bits();
    let normal = round_normal(f32::from_bits(magnitude)).to_bits();
    let finite = if magnitude < SMALLEST_NORMAL { tiny } else { normal };
    let rounded = if finite >= (127 + 16) << 23 { INFINITE } else { finite };
    let bits = if magnitude > INFINITE { magnitude } else { rounded };
    f32::from_bits(bits | value.to_bits() & 0x8000_0000)
}

/// Converts f16 to f32, without branches.
#[inline(always)]
fn to_single(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7FFF) << 13;
    let normal = magnitude + (112 << 23);
    // Below the normal range the exponent is too low by one and there is no leading bit: add one, then subtract its value.
    let tiny = (f32::from_bits(magnitude + (113 << 23)) - 6.103_515_6e-5).to_bits();
    let infinite = magnitude + (224 << 23);
    let bits = if magnitude < 1 << 23 { tiny } else { normal };
    let bits = if magnitude >= 31 << 23 { infinite } else { bits };
    f32::from_bits(bits | u32::from(half & 0x8000) << 16)
}

#[inline(always)]
fn total(lanes: [f32; LANES]) -> f32 {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Dot product by definition: each weight `code * scale` rounded to f16, sums in f64.
    fn by_definition(weights: impl Iterator<Item = (i32, f16)>, x: &[f32]) -> f64 {
        let weight =
            |(code, scale): (i32, f16)| f64::from(f16::from_f32(code as f32 * scale.to_f32()).to_f32());
        weights.zip(x).map(|(pair, x)| weight(pair) * f64::from(*x)).sum()
    }

    #[test]
    fn every_f16_value_converts_as_in_the_half_crate() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (to_single(bits), f16::from_bits(bits).to_f32());
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{bits:04x}"
            );
        }
    }

    /// Checks every f16 value, the midpoint to the next one, and the f32 values next to these, where rounding changes.
    #[test]
    fn f32_values_round_as_in_the_half_crate() {
        for bits in 0..=u16::MAX {
            let (half, next) = (f16::from_bits(bits).to_f32(), f16::from_bits(bits.wrapping_add(1)).to_f32());
            for decisive in [half, f32::midpoint(half, next)] {
                let bits = decisive.to_bits();
                [bits.wrapping_sub(1), bits, bits.wrapping_add(1)].into_iter().for_each(assert_rounds);
            }
        }
    }

    #[track_caller]
    fn assert_rounds(bits: u32) {
        let value = f32::from_bits(bits);
        let (found, expected) = (round_to_half(value), f16::from_f32(value).to_f32());
        let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
        assert!(same, "{value:e} became {found:e} instead of {expected:e}");
    }

    /// Products of each row with each token, [rows, tokens].
    fn products(rows: Rows<'_>, height: usize, x: &[f32], k: usize) -> Vec<Vec<f32>> {
        let tokens = x.len() / k;
        let mut found = vec![vec![0.0; height]; tokens];
        let mut out: Vec<&mut [f32]> = found.iter_mut().map(Vec::as_mut_slice).collect();
        multiply_rows(rows, 0, &Activations::new(x, k, rows), &mut out);
        (0..height).map(|row| found.iter().map(|found| found[row]).collect()).collect()
    }

    /// The order of additions: 16 interleaved sums, which are then added in halves.
    fn in_lanes(weights: &[f32], x: &[f32]) -> f32 {
        let mut lanes = [0.0; LANES];
        for (at, (weight, x)) in weights.iter().zip(x).enumerate() {
            lanes[at % LANES] += weight * x;
        }
        total(lanes)
    }

    fn numbers(count: usize) -> Vec<f32> {
        (0..count).map(|at| ((at * 37 + at / 7 * 11) % 101) as f32 / 13.0 - 3.7).collect()
    }

    /// Fewer and more tokens, rows and weights than are computed together, with and without a remainder.
    #[test]
    fn sums_have_the_same_order_in_any_chunk() {
        for (tokens, height, k) in [(1, 1, 5), (3, 9, 37), (4, 8, 512), (11, 17, 1061)] {
            let (weights, x) = (numbers(height * k), numbers(tokens * k + 3)[3..].to_vec());
            let found = products(Rows::Single { items: &weights, stride: k }, height, &x, k);
            for (weights, found) in weights.chunks_exact(k).zip(&found) {
                for (x, found) in x.chunks_exact(k).zip(found) {
                    assert_eq!(found.to_bits(), in_lanes(weights, x).to_bits());
                }
            }
            let halves: Vec<f16> = weights.iter().copied().map(f16::from_f32).collect();
            let together = products(Rows::Half { items: &halves, stride: k }, height, &x, k);
            for (at, x) in x.chunks_exact(k).enumerate() {
                let alone = products(Rows::Half { items: &halves, stride: k }, height, x, k);
                assert!((0..height).all(|row| alone[row][0].to_bits() == together[row][at].to_bits()));
            }
        }
    }

    /// Within a block, products of 4-bit codes at even places are added before those at odd places.
    #[test]
    fn sums_of_codes_have_the_same_order_in_any_chunk() {
        let (tokens, height, k) = (6, 11, 544);
        let x = numbers(tokens * k);
        let codes: Vec<u8> = (0..height * k / 2).map(|at| (at * 89 % 256) as u8).collect();
        let scales: Vec<f16> = numbers(height * k / BLOCK).into_iter().map(f16::from_f32).collect();
        let found = products(Rows::Int4 { codes: &codes, scales: &scales }, height, &x, k);
        let places: Vec<usize> =
            (0..k).map(|at| at / BLOCK * BLOCK + at % BLOCK % LANES * 2 + at % BLOCK / LANES).collect();
        for (row, found) in found.iter().enumerate() {
            let weight = |place: &usize| {
                let byte = codes[(row * k + place) / 2];
                let code = if place.is_multiple_of(2) { (byte << 4) as i8 >> 4 } else { byte as i8 >> 4 };
                f16::from_f32(f32::from(code) * scales[(row * k + place) / BLOCK].to_f32()).to_f32()
            };
            let weights: Vec<f32> = places.iter().map(weight).collect();
            for (x, found) in x.chunks_exact(k).zip(found) {
                let x: Vec<f32> = places.iter().map(|place| x[*place]).collect();
                assert_eq!(found.to_bits(), in_lanes(&weights, &x).to_bits());
            }
        }
        let bytes: Vec<i8> = (0..height * k).map(|at| (at * 89 % 256) as u8 as i8).collect();
        let rows = Rows::Int8 { codes: &bytes, scales: &scales };
        let together = products(rows, height, &x, k);
        for (at, x) in x.chunks_exact(k).enumerate() {
            let alone = products(rows, height, x, k);
            assert!((0..height).all(|row| alone[row][0].to_bits() == together[row][at].to_bits()));
        }
    }

    proptest! {
        #[test]
        fn any_f32_value_rounds_as_in_the_half_crate(bits in any::<u32>()) {
            assert_rounds(bits);
        }

        #[test]
        fn rounded_sums_are_the_same_on_every_processor(
            row in prop::collection::vec(-300.0_f32..300.0, 37),
            factor in -300.0_f32..300.0,
        ) {
            let (mut picked, mut portable) = ([1.0; 37], [1.0; 37]);
            accumulate_rounded(&row, factor, &mut picked);
            accumulate_rounded_portable(&row, factor, &mut portable);
            prop_assert_eq!(picked.map(f32::to_bits), portable.map(f32::to_bits));
        }

        #[test]
        fn int4_rows_match_their_definition(
            codes in prop::collection::vec(any::<u8>(), 2 * 48),
            scales in prop::collection::vec(0_u16..0x7C00, 2 * 3),
            negative in any::<bool>(),
            x in prop::collection::vec(-4.0_f32..4.0, 96),
        ) {
            let sign = u16::from(negative) << 15;
            let scales: Vec<f16> = scales.iter().map(|bits| f16::from_bits((bits >> 2) | sign)).collect();
            let (mut picked, mut portable) = ([0.0; 2], [0.0; 2]);
            let rows = Rows::Int4 { codes: &codes, scales: &scales };
            multiply_rows(rows, 0, &Activations::new(&x, 96, rows), &mut [&mut picked]);
            multiply_rows_portable(rows, 0, &Activations::new(&x, 96, rows), &mut [&mut portable]);
            prop_assert_eq!(picked.map(f32::to_bits), portable.map(f32::to_bits));
            for (row, found) in picked.into_iter().enumerate() {
                let code = |at: usize| {
                    let byte = codes[row * 48 + at / 2];
                    i32::from(if at.is_multiple_of(2) { (byte << 4) as i8 >> 4 } else { byte as i8 >> 4 })
                };
                let expected = by_definition((0..96).map(|at| (code(at), scales[row * 3 + at / 32])), &x);
                let size: f64 = by_definition(
                    (0..96).map(|at| (code(at).abs(), f16::from_f32(scales[row * 3 + at / 32].to_f32().abs()))),
                    &x.iter().map(|x| x.abs()).collect::<Vec<_>>(),
                );
                prop_assert!((f64::from(found) - expected).abs() <= 1e-5 * size, "{found} instead of {expected}");
            }
        }

        #[test]
        fn int8_rows_match_their_definition(
            codes in prop::collection::vec(any::<i8>(), 64),
            scales in prop::collection::vec(0.0_f32..0.1, 2),
            x in prop::collection::vec(-4.0_f32..4.0, 64),
        ) {
            let scales: Vec<f16> = scales.into_iter().map(f16::from_f32).collect();
            let (mut picked, mut portable) = ([0.0], [0.0]);
            let rows = Rows::Int8 { codes: &codes, scales: &scales };
            multiply_rows(rows, 0, &Activations::new(&x, 64, rows), &mut [&mut picked]);
            multiply_rows_portable(rows, 0, &Activations::new(&x, 64, rows), &mut [&mut portable]);
            prop_assert_eq!(picked.map(f32::to_bits), portable.map(f32::to_bits));
            let expected = by_definition((0..64).map(|at| (i32::from(codes[at]), scales[at / 32])), &x);
            prop_assert!((f64::from(picked[0]) - expected).abs() <= 1e-2, "{} instead of {expected}", picked[0]);
        }
    }
}
