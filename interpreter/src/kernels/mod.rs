//! Dot products of activations with rows of weights, read directly from packed codes or f16.
//!
//! Each weight is decoded once for all tokens of a chunk. On x86-64 the kernels for AVX2 are selected at run time; the portable ones
//! are plain loops that vectorize, as on aarch64. Multiplications and additions are never fused and lanes are added in a fixed
//! order, so all kernels give the same bits, and a token gets the same bits in any chunk.

use half::f16;

mod accumulate;
#[cfg(target_arch = "x86_64")]
mod avx2;
mod halves;
mod portable;

pub(super) use accumulate::{Row, accumulate, accumulate_rounded};
pub(super) use halves::round_to_half;

/// Weights per block that the kernels for codes support, and the partial sums of a dot product: each takes one weight of every block.
pub(super) const BLOCK: usize = 32;
/// Rows whose weights are decoded together.
pub(super) const GROUP: usize = 8;

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
    /// The place of each partial sum's weight in a block. Of eight 4-bit codes in four bytes, those at even places (the low bits) come
    /// first, because that is how a register of four bytes is unpacked.
    fn places(self) -> &'static [u8; BLOCK] {
        const AS_STORED: [u8; BLOCK] = places(false);
        const EVEN_FIRST: [u8; BLOCK] = places(true);
        match self {
            Rows::Int4 { .. } => &EVEN_FIRST,
            _ => &AS_STORED,
        }
    }
}

const fn places(even_first: bool) -> [u8; BLOCK] {
    let mut places = [0; BLOCK];
    let mut at = 0;
    while at < BLOCK {
        places[at] = if even_first { at / 8 * 8 + at % 4 * 2 + at / 4 % 2 } else { at } as u8;
        at += 1;
    }
    places
}

/// Activations of the tokens of a chunk, arranged for the kernels of this processor.
pub(super) enum Activations {
    #[cfg(target_arch = "x86_64")]
    Avx2(avx2::Activations),
    Portable(portable::Activations),
}

impl Activations {
    /// Arranges `values` [tokens, k] for products with these rows.
    pub(super) fn new(values: &[f32], k: usize, rows: Rows<'_>) -> Self {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("f16c") {
            return Activations::Avx2(avx2::Activations::new(values, k, rows));
        }
        Activations::Portable(portable::Activations::new(values, k, rows))
    }

    /// Fills `out`, one slice per token, with the products of rows `first..` and the token's activations. The rows are of the
    /// kind for which the activations were arranged.
    pub(super) fn multiply_rows(&self, rows: Rows<'_>, first: usize, out: &mut [&mut [f32]]) {
        match self {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: these activations are only made if the processor has AVX2 and F16C.
            Activations::Avx2(x) => unsafe { avx2::multiply_rows(rows, first, x, out) },
            Activations::Portable(x) => portable::multiply_rows(rows, first, x, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::halves::to_single;
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
        Activations::new(x, k, rows).multiply_rows(rows, 0, &mut out);
        (0..height).map(|row| found.iter().map(|found| found[row]).collect()).collect()
    }

    /// The order of additions: 32 interleaved sums, which are then added in halves.
    fn in_order(weights: &[f32], x: &[f32]) -> f32 {
        let mut sums = [[0.0; BLOCK / 2]; 2];
        for (at, (weight, x)) in weights.iter().zip(x).enumerate() {
            sums.as_flattened_mut()[at % BLOCK] += weight * x;
        }
        portable::total(sums)
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
                    assert_eq!(found.to_bits(), in_order(weights, x).to_bits());
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

    /// Of eight 4-bit codes, those at even places come first.
    #[test]
    fn sums_of_codes_have_the_same_order_in_any_chunk() {
        let (tokens, height, k) = (6, 11, 544);
        let x = numbers(tokens * k);
        let codes: Vec<u8> = (0..height * k / 2).map(|at| (at * 89 % 256) as u8).collect();
        let scales: Vec<f16> = numbers(height * k / BLOCK).into_iter().map(f16::from_f32).collect();
        let found = products(Rows::Int4 { codes: &codes, scales: &scales }, height, &x, k);
        let places: Vec<usize> = (0..k).map(|at| at / 8 * 8 + at % 4 * 2 + at / 4 % 2).collect();
        for (row, found) in found.iter().enumerate() {
            let weight = |place: &usize| {
                let byte = codes[(row * k + place) / 2];
                let code = if place.is_multiple_of(2) { (byte << 4) as i8 >> 4 } else { byte as i8 >> 4 };
                f16::from_f32(f32::from(code) * scales[(row * k + place) / BLOCK].to_f32()).to_f32()
            };
            let weights: Vec<f32> = places.iter().map(weight).collect();
            for (x, found) in x.chunks_exact(k).zip(found) {
                let x: Vec<f32> = places.iter().map(|place| x[*place]).collect();
                assert_eq!(found.to_bits(), in_order(&weights, &x).to_bits());
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

    /// A value of any kind of number, by its bits.
    fn any_half() -> impl Strategy<Value = f16> {
        any::<u16>().prop_map(f16::from_bits)
    }

    /// Mostly usual numbers, so that sums of many are finite, and few of any kind.
    fn half() -> impl Strategy<Value = f16> {
        prop_oneof![200 => (-8.0_f32..8.0).prop_map(f16::from_f32), 1 => any_half()]
    }

    /// Checks that this processor's kernels and the portable ones give the same bits, from any row on, in any chunk.
    fn assert_portable_bits(rows: Rows<'_>, height: usize, k: usize, x: &[f32]) -> Result<(), TestCaseError> {
        let tokens = x.len() / k;
        for first in [0, height / 3] {
            let both = [true, false].map(|is_portable| {
                let mut found = vec![vec![0.0_f32; height - first]; tokens];
                let mut out: Vec<&mut [f32]> = found.iter_mut().map(Vec::as_mut_slice).collect();
                if is_portable {
                    portable::multiply_rows(rows, first, &portable::Activations::new(x, k, rows), &mut out);
                } else {
                    Activations::new(x, k, rows).multiply_rows(rows, first, &mut out);
                }
                found.concat()
            });
            for (at, (portable, picked)) in both[0].iter().zip(&both[1]).enumerate() {
                let same = portable.to_bits() == picked.to_bits() || portable.is_nan() && picked.is_nan();
                prop_assert!(same, "{picked} instead of {portable} at {at}");
            }
        }
        Ok(())
    }

    /// Random items, to be repeated by [`repeated`]: drawing as many as a product takes is slower than the product. Their number is
    /// prime, so that rows and blocks differ.
    fn few<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
        prop::collection::vec(item, 509)
    }

    fn repeated<T: Copy>(few: &[T], count: usize) -> Vec<T> {
        few.iter().copied().cycle().take(count).collect()
    }

    proptest! {
        #[test]
        fn codes_have_the_same_bits_on_every_processor(
            (tokens, height, blocks) in (1_usize..11, 1_usize..20, 1_usize..40),
            codes in few(any::<u8>()),
            scales in few(half()),
            x in few(half()),
        ) {
            let k = blocks * BLOCK;
            let x: Vec<f32> = repeated(&x, tokens * k).into_iter().map(f16::to_f32).collect();
            let (codes, scales) = (repeated(&codes, height * k), repeated(&scales, height * blocks));
            let rows = Rows::Int4 { codes: &codes[..height * k / 2], scales: &scales };
            assert_portable_bits(rows, height, k, &x)?;
            let rows = Rows::Int8 { codes: bytemuck::cast_slice(&codes), scales: &scales };
            assert_portable_bits(rows, height, k, &x)?;
        }

        #[test]
        fn plain_weights_have_the_same_bits_on_every_processor(
            (tokens, height, k, gap) in (1_usize..11, 1_usize..20, 1_usize..700, 0_usize..3),
            items in few(half()),
            x in few(half()),
        ) {
            let x: Vec<f32> = repeated(&x, tokens * k).into_iter().map(f16::to_f32).collect();
            let stride = k + gap;
            let items = repeated(&items, height * stride - gap);
            assert_portable_bits(Rows::Half { items: &items, stride }, height, k, &x)?;
            let items: Vec<f32> = items.into_iter().map(f16::to_f32).collect();
            assert_portable_bits(Rows::Single { items: &items, stride }, height, k, &x)?;
        }

        /// Every scale, also those below the normal range, infinite ones and those that are not numbers.
        #[test]
        fn any_scale_has_the_same_bits_on_every_processor(
            codes in prop::collection::vec(any::<u8>(), 3 * BLOCK),
            scales in prop::collection::vec(any_half(), 3),
            x in prop::collection::vec(half(), 2 * BLOCK),
        ) {
            let x: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
            let rows = Rows::Int4 { codes: &codes[..3 * BLOCK / 2], scales: &scales };
            assert_portable_bits(rows, 3, BLOCK, &x)?;
            assert_portable_bits(Rows::Int8 { codes: bytemuck::cast_slice(&codes), scales: &scales }, 3, BLOCK, &x)?;
        }

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
            accumulate::accumulate_rounded_portable(&row, factor, &mut portable);
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
            Activations::new(&x, 96, rows).multiply_rows(rows, 0, &mut [&mut picked]);
            portable::multiply_rows(rows, 0, &portable::Activations::new(&x, 96, rows), &mut [&mut portable]);
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
            Activations::new(&x, 64, rows).multiply_rows(rows, 0, &mut [&mut picked]);
            portable::multiply_rows(rows, 0, &portable::Activations::new(&x, 64, rows), &mut [&mut portable]);
            prop_assert_eq!(picked.map(f32::to_bits), portable.map(f32::to_bits));
            let expected = by_definition((0..64).map(|at| (i32::from(codes[at]), scales[at / 32])), &x);
            prop_assert!((f64::from(picked[0]) - expected).abs() <= 1e-2, "{} instead of {expected}", picked[0]);
        }
    }
}
