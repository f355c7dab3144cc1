//! Conversions between half and single precision by an instruction of the processor, for Apple's runtime on Linux.
//!
//! That runtime (coreai-core 1.0.0b3) converts every operand and every result of half precision with two functions of its
//! Swift library, which compute in software and take more than half of its time. A library that is preloaded comes before
//! Swift's, so with this one the runtime calls these functions instead. Both compute what IEEE 754 says, so results stay what they are.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::arch::x86_64::{
    _MM_FROUND_TO_NEAREST_INT, _mm_castps_si128, _mm_castsi128_ps, _mm_cvtph_ps, _mm_cvtps_ph, _mm_cvtss_f32,
    _mm_set_ss,
};

/// Half to single precision. By the compilers' convention, the half is in the low 16 bits of the register of a single.
///
/// # Safety
///
/// The processor must have F16C.
#[unsafe(no_mangle)]
#[target_feature(enable = "f16c")]
pub extern "C" fn __extendhfsf2(half: f32) -> f32 {
    _mm_cvtss_f32(_mm_cvtph_ps(_mm_castps_si128(_mm_set_ss(half))))
}

/// Single to half precision, to the nearest, ties to even. The half is where [`__extendhfsf2`] expects it.
///
/// # Safety
///
/// The processor must have F16C.
#[unsafe(no_mangle)]
#[target_feature(enable = "f16c")]
pub extern "C" fn __truncsfhf2(single: f32) -> f32 {
    _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm_set_ss(single))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    /// The bits of the single that the library makes of a half, and of the half that it makes of a single.
    fn converted(half: f16, single: f32) -> (u32, u16) {
        // SAFETY: the caller has asked for F16C.
        unsafe {
            let extended = __extendhfsf2(f32::from_bits(half.to_bits().into()));
            (extended.to_bits(), __truncsfhf2(single).to_bits() as u16)
        }
    }

    /// `half` converts in software where it is told so: a constant is such a place.
    #[test]
    fn every_half_and_what_lies_around_it_is_converted_as_in_software() {
        if !is_x86_feature_detected!("f16c") {
            return;
        }
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let (exact, next) = (half.to_f32_const(), f16::from_bits(bits.wrapping_add(1)).to_f32_const());
            // The half's own value, its neighbors, and the middle between it and the next half with its neighbors.
            let middle = f32::midpoint(exact, next).to_bits();
            for single in [exact.to_bits(), middle]
                .into_iter()
                .flat_map(|at| [at.wrapping_sub(1), at, at.wrapping_add(1)])
            {
                let single = f32::from_bits(single);
                let (extended, truncated) = converted(half, single);
                if half.is_nan() {
                    assert!(f32::from_bits(extended).is_nan(), "{bits:#06x}");
                } else {
                    assert_eq!(extended, exact.to_bits(), "{bits:#06x}");
                }
                let expected = f16::from_f32_const(single);
                if expected.is_nan() {
                    assert!(f16::from_bits(truncated).is_nan(), "{single:e}");
                } else {
                    assert_eq!(truncated, expected.to_bits(), "{single:e}");
                }
            }
        }
    }
}
