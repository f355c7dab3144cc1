//! bf16 numbers as f16 ones.

use fearless_simd::{Level, Simd};
use half::{bf16, f16};

use crate::QuantizeError;
use crate::block::F16_OVERFLOW;
use crate::dispatch::dispatch;

/// Bits of the smallest magnitude that does not fit.
const OVERFLOW: u16 = (F16_OVERFLOW.to_bits() >> 16) as u16;

/// Rounds to f16, ties to even.
pub(crate) fn to_f16(level: Level, weights: &[bf16], halves: &mut [f16]) -> Result<(), QuantizeError> {
    dispatch!(level, simd => convert(simd, weights, halves))
}

/// Plain loops, which the compiler turns into vectors.
#[inline(always)]
fn convert<S: Simd>(_: S, weights: &[bf16], halves: &mut [f16]) -> Result<(), QuantizeError> {
    let largest = weights.iter().fold(0, |largest, weight| largest.max(weight.to_bits() & 0x7fff));
    if largest >= OVERFLOW {
        return Err(first_fault(weights));
    }
    for (half, weight) in halves.iter_mut().zip(weights) {
        *half = f16::from_bits(half_bits(weight.to_bits()));
    }
    Ok(())
}

#[cold]
fn first_fault(weights: &[bf16]) -> QuantizeError {
    let overflows = |weight: &bf16| weight.to_bits() & 0x7fff >= OVERFLOW;
    let element = weights.iter().position(overflows).unwrap_or(0);
    if weights[element].is_finite() {
        QuantizeError::Overflow { element }
    } else {
        QuantizeError::NotFinite { element }
    }
}

/// Bits of the nearest f16 number of a bf16 number that fits.
#[inline(always)]
fn half_bits(bits: u16) -> u16 {
    let magnitude = bits & 0x7fff;
    // Normal numbers: exponents differ by 112, significands by three bits.
    let normal = magnitude.wrapping_sub(112 << 7) << 3;
    // Below them f16 numbers are 2^-24 apart, as f32 numbers from 0.5 on are: the sum rounds, its low bits count the steps.
    let sum = f32::from_bits(u32::from(magnitude) << 16) + 0.5;
    let subnormal = sum.to_bits() as u16;
    bits & 0x8000 | if magnitude < 113 << 7 { subnormal } else { normal }
}
