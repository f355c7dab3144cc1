//! Dot products of activations with rows of weights, straight from packed codes or halves.
//!
//! Each kernel is written once, as plain loops over fixed-width lanes; on x86-64 it is compiled a second time for AVX2 and picked at
//! run time. Multiplications and additions are never fused and lanes are added in one fixed order, so both give the same bits.

use half::f16;

/// Partial sums of a dot product.
const LANES: usize = 16;
/// Weights in the blocks that the kernels of codes are made for.
pub(super) const BLOCK: usize = 32;

/// Rows of a matrix [n, k], contiguous each.
#[derive(Clone, Copy)]
pub(super) enum Rows<'w> {
    /// Signed 4-bit codes, two a byte, low bits first; a scale for each 32.
    Int4 { codes: &'w [u8], scales: &'w [f16] },
    /// Signed 8-bit codes; a scale for each 32.
    Int8 { codes: &'w [i8], scales: &'w [f16] },
    /// Halves, one row each `stride` elements.
    Half { items: &'w [f16], stride: usize },
    /// f32, one row each `stride` elements.
    Single { items: &'w [f32], stride: usize },
}

/// Activations of one dot product, in natural order and as the int4 kernel reads them.
pub(super) struct Activations {
    natural: Vec<f32>,
    /// In each block of 32 the even places first, then the odd ones: the order of low and high nibbles.
    by_nibble: Vec<f32>,
}

impl Activations {
    pub(super) fn new(values: &[f32]) -> Self {
        let mut by_nibble = Vec::with_capacity(values.len());
        for block in values.chunks(BLOCK) {
            by_nibble.extend(block.iter().step_by(2));
            by_nibble.extend(block.iter().skip(1).step_by(2));
        }
        Activations { natural: values.to_vec(), by_nibble }
    }
}

/// Fills `out` with the products of rows `first..` and the activations.
pub(super) fn multiply_rows(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { multiply_rows_avx2(rows, first, x, out) };
    }
    multiply_rows_portable(rows, first, x, out);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn multiply_rows_avx2(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [f32]) {
    multiply_rows_portable(rows, first, x, out);
}

#[inline(always)]
fn multiply_rows_portable(rows: Rows<'_>, first: usize, x: &Activations, out: &mut [f32]) {
    let k = x.natural.len();
    let blocks = k / BLOCK;
    for (at, out) in out.iter_mut().enumerate() {
        let row = first + at;
        *out = match rows {
            Rows::Int4 { codes, scales } => dot_int4(
                &codes[row * k / 2..(row + 1) * k / 2],
                &scales[row * blocks..(row + 1) * blocks],
                &x.by_nibble,
            ),
            Rows::Int8 { codes, scales } => dot_int8(
                &codes[row * k..(row + 1) * k],
                &scales[row * blocks..(row + 1) * blocks],
                &x.natural,
            ),
            Rows::Half { items, stride } => {
                dot(&items[row * stride..row * stride + k], &x.natural, |half| to_single(half.to_bits()))
            }
            Rows::Single { items, stride } => {
                dot(&items[row * stride..row * stride + k], &x.natural, |single| single)
            }
        };
    }
}

/// Adds `factor` times a row of halves or singles to `sums`.
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
fn dot<T: Copy>(row: &[T], x: &[f32], to_single: impl Fn(T) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (row_chunks, row_rest) = row.as_chunks::<LANES>();
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    for (weights, x) in row_chunks.iter().zip(x_chunks) {
        for lane in 0..LANES {
            lanes[lane] += to_single(weights[lane]) * x[lane];
        }
    }
    for (lane, (weight, x)) in lanes.iter_mut().zip(row_rest.iter().zip(x_rest)) {
        *lane += to_single(*weight) * x;
    }
    total(lanes)
}

#[inline(always)]
fn dot_int4(codes: &[u8], scales: &[f16], x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (codes, _) = codes.as_chunks::<{ BLOCK / 2 }>();
    let (x, _) = x.as_chunks::<BLOCK>();
    for ((codes, scale), x) in codes.iter().zip(scales).zip(x) {
        let mut low = [0.0; LANES];
        let mut high = [0.0; LANES];
        for lane in 0..LANES {
            low[lane] = f32::from((codes[lane] << 4) as i8 >> 4);
            high[lane] = f32::from(codes[lane] as i8 >> 4);
        }
        let (even, odd) = x.split_at(LANES);
        add_scaled(&mut lanes, &low, *scale, 8.0, even);
        add_scaled(&mut lanes, &high, *scale, 8.0, odd);
    }
    total(lanes)
}

#[inline(always)]
fn dot_int8(codes: &[i8], scales: &[f16], x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (codes, _) = codes.as_chunks::<BLOCK>();
    let (x, _) = x.as_chunks::<BLOCK>();
    for ((codes, scale), x) in codes.iter().zip(scales).zip(x) {
        for half in 0..2 {
            let mut singles = [0.0; LANES];
            for lane in 0..LANES {
                singles[lane] = f32::from(codes[half * LANES + lane]);
            }
            add_scaled(&mut lanes, &singles, *scale, 128.0, &x[half * LANES..(half + 1) * LANES]);
        }
    }
    total(lanes)
}

/// Adds activations times weights, a weight being `code * scale` rounded to f16, as the graph says.
#[inline(always)]
fn add_scaled(lanes: &mut [f32; LANES], codes: &[f32; LANES], scale: f16, largest_code: f32, x: &[f32]) {
    let scale = to_single(scale.to_bits());
    if rounds_by_bits(scale, largest_code) {
        for lane in 0..LANES {
            lanes[lane] += round_normal(codes[lane] * scale) * x[lane];
        }
    } else {
        for lane in 0..LANES {
            lanes[lane] += f16::from_f32(codes[lane] * scale).to_f32() * x[lane];
        }
    }
}

/// Whether all products with nonzero codes are normal halves, before and after rounding.
#[inline(always)]
fn rounds_by_bits(scale: f32, largest_code: f32) -> bool {
    let size = scale.abs();
    size >= 6.103_515_6e-5 && size * largest_code < 65504.0
}

/// Rounds to the 11 significant bits of a normal half, nearest even; 0 stays 0.
#[inline(always)]
fn round_normal(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0xFFF + ((bits >> 13) & 1)) & !0x1FFF)
}

/// Rounds to f16, nearest even, without branches.
#[inline(always)]
pub(super) fn round_to_half(value: f32) -> f32 {
    const SMALLEST_NORMAL: u32 = (127 - 14) << 23;
    const INFINITE: u32 = 255 << 23;
    let magnitude = value.to_bits() & 0x7FFF_FFFF;
    // Halves below the normal range are multiples of 2^-24, as are the singles from 0.5 to 1.
    let tiny = (f32::from_bits(magnitude) + 0.5 - 0.5).to_bits();
    let normal = round_normal(f32::from_bits(magnitude)).to_bits();
    let finite = if magnitude < SMALLEST_NORMAL { tiny } else { normal };
    let rounded = if finite >= (127 + 16) << 23 { INFINITE } else { finite };
    let bits = if magnitude > INFINITE { magnitude } else { rounded };
    f32::from_bits(bits | value.to_bits() & 0x8000_0000)
}

/// A half as f32, without branches.
#[inline(always)]
fn to_single(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7FFF) << 13;
    let normal = magnitude + (112 << 23);
    // Below the normal range the exponent is too low by one and the leading bit is not there: put it in, subtract it.
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

    /// Dot product by the definition: each weight `code * scale` rounded to f16, sums in f64.
    fn by_definition(weights: impl Iterator<Item = (i32, f16)>, x: &[f32]) -> f64 {
        let weight =
            |(code, scale): (i32, f16)| f64::from(f16::from_f32(code as f32 * scale.to_f32()).to_f32());
        weights.zip(x).map(|(pair, x)| weight(pair) * f64::from(*x)).sum()
    }

    #[test]
    fn every_half_converts_as_the_library_converts_it() {
        for bits in 0..=u16::MAX {
            let (found, expected) = (to_single(bits), f16::from_bits(bits).to_f32());
            assert!(
                found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                "{bits:04x}"
            );
        }
    }

    /// Every half, the midpoint to the next one, and the singles beside these: where rounding is decided.
    #[test]
    fn singles_round_as_the_library_rounds_them() {
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

    proptest! {
        #[test]
        fn any_single_rounds_as_the_library_rounds_it(bits in any::<u32>()) {
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
        fn int4_rows_are_what_their_codes_mean(
            codes in prop::collection::vec(any::<u8>(), 2 * 48),
            scales in prop::collection::vec(0_u16..0x7C00, 2 * 3),
            negative in any::<bool>(),
            x in prop::collection::vec(-4.0_f32..4.0, 96),
        ) {
            let sign = u16::from(negative) << 15;
            let scales: Vec<f16> = scales.iter().map(|bits| f16::from_bits((bits >> 2) | sign)).collect();
            let (mut picked, mut portable) = ([0.0; 2], [0.0; 2]);
            let rows = Rows::Int4 { codes: &codes, scales: &scales };
            multiply_rows(rows, 0, &Activations::new(&x), &mut picked);
            multiply_rows_portable(rows, 0, &Activations::new(&x), &mut portable);
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
        fn int8_rows_are_what_their_codes_mean(
            codes in prop::collection::vec(any::<i8>(), 64),
            scales in prop::collection::vec(0.0_f32..0.1, 2),
            x in prop::collection::vec(-4.0_f32..4.0, 64),
        ) {
            let scales: Vec<f16> = scales.into_iter().map(f16::from_f32).collect();
            let (mut picked, mut portable) = ([0.0], [0.0]);
            let rows = Rows::Int8 { codes: &codes, scales: &scales };
            multiply_rows(rows, 0, &Activations::new(&x), &mut picked);
            multiply_rows_portable(rows, 0, &Activations::new(&x), &mut portable);
            prop_assert_eq!(picked.map(f32::to_bits), portable.map(f32::to_bits));
            let expected = by_definition((0..64).map(|at| (i32::from(codes[at]), scales[at / 32])), &x);
            prop_assert!((f64::from(picked[0]) - expected).abs() <= 1e-2, "{} instead of {expected}", picked[0]);
        }
    }
}
