//! Rows of the gather tables as int8: `scale = max|row| / 127`, `code = clamp(round_half_even(row / scale), -127, 127)`, all in f32.

use fearless_simd::Level;
use half::bf16;

use crate::QuantizeError;
use crate::dispatch::dispatch;

/// Lower limit of a row's largest magnitude, so that a row of zeros gets a scale above zero.
const SMALLEST_EXTREMUM: f32 = 1e-12;

/// Largest code.
const LARGEST_CODE: f32 = 127.0;

/// Adding and subtracting this rounds an f32 below 2^22 to an integer, half to even.
const ROUNDING: f32 = 12_582_912.0;

/// Quantizes rows of `width` elements by the rule of the gather tables: `codes` gets one i8 as u8 per element, `scales` one f32 per row.
/// Their lengths must match, and `width` be at least 1.
///
/// # Errors
/// [`QuantizeError`] with the index of the first element that is NaN or infinite.
pub fn quantize_rows(
    weights: &[bf16],
    width: usize,
    codes: &mut [u8],
    scales: &mut [f32],
) -> Result<(), QuantizeError> {
    debug_assert!(weights.len() == codes.len() && weights.len() == scales.len() * width);
    let level = Level::new();
    let rows = weights.chunks_exact(width).zip(codes.chunks_exact_mut(width)).zip(scales);
    for (row, ((weights, codes), scale)) in rows.enumerate() {
        let finite = dispatch!(level, _simd => quantize_row(weights, codes, scale));
        if !finite {
            let at = weights.iter().position(|weight| !weight.is_finite()).unwrap_or(0);
            return Err(QuantizeError::NotFinite { element: row * width + at });
        }
    }
    Ok(())
}

/// One row; false if an element is not finite. The compiler vectorizes it for each level of instructions; no rounding depends
/// on that.
#[inline(always)]
fn quantize_row(weights: &[bf16], codes: &mut [u8], scale: &mut f32) -> bool {
    // The magnitude of a bf16 grows with its bits, so the extremum is found among integers.
    let extremum_bits = weights.iter().fold(0_u16, |most, weight| most.max(weight.to_bits() & 0x7FFF));
    let extremum = bf16::from_bits(extremum_bits).to_f32();
    *scale = extremum.max(SMALLEST_EXTREMUM) / LARGEST_CODE;
    for (weight, code) in weights.iter().zip(codes) {
        let value = f32::from_bits(u32::from(weight.to_bits()) << 16) / *scale;
        let rounded = (value + ROUNDING) - ROUNDING;
        *code = rounded.clamp(-LARGEST_CODE, LARGEST_CODE) as i32 as u8;
    }
    extremum.is_finite()
}

#[cfg(test)]
mod tests {
    use half::bf16;
    use proptest::prelude::*;

    use super::quantize_rows;

    fn quantize(row: &[bf16]) -> (Vec<i8>, f32) {
        let (mut codes, mut scales) = (vec![0; row.len()], [0.0]);
        quantize_rows(row, row.len(), &mut codes, &mut scales).unwrap();
        (codes.into_iter().map(|code| code as i8).collect(), scales[0])
    }

    #[test]
    fn a_row_of_zeros_has_a_scale() {
        assert_eq!(quantize(&[bf16::ZERO; 8]), (vec![0; 8], 1e-12_f32 / 127.0));
    }

    #[test]
    fn an_element_that_is_not_finite_is_named() {
        let mut row = vec![bf16::ONE; 8];
        row[6] = bf16::NAN;
        let error = quantize_rows(&row, 4, &mut [0; 8], &mut [0.0; 2]).unwrap_err();
        assert!(error.to_string().contains('6'), "{error}");
    }

    proptest! {
        #[test]
        fn codes_are_the_nearest(bits in proptest::collection::vec(any::<u16>(), 1..300)) {
            let row: Vec<bf16> = bits.into_iter().map(bf16::from_bits).filter(|weight| weight.is_finite()).collect();
            prop_assume!(!row.is_empty());
            let (codes, scale) = quantize(&row);
            for (weight, code) in row.iter().zip(codes) {
                prop_assert_eq!(f32::from(code), (weight.to_f32() / scale).round_ties_even().clamp(-127.0, 127.0));
            }
        }
    }
}
