//! A block's numbers in vectors.
//!
//! A 32-bit word of the checkpoint holds two bf16 numbers, so one shift yields the even-numbered elements of a block as f32, one
//! mask the odd-numbered ones, and codes pack without a shuffle. Arithmetic is IEEE with one rounding per operation, and sums
//! have a fixed order, so the bits are the same at every [`fearless_simd::Level`].

use std::ops::{Add, Div, Mul, Sub};

use fearless_simd::{
    MaskNarrow, Select, Simd, SimdBase, SimdFloat, SimdMask, SimdSplit, f32x4, f32x16, i32x8, mask32x16,
    u16x32, u32x16,
};
use half::bf16;

use crate::block::BLOCK;

/// Elements of one parity.
pub(super) const HALF: usize = BLOCK / 2;

/// The sum of this and a number below 2^22 is rounded to an integer, ties to even; its low bits are the integer in two's
/// complement.
pub(super) const INTEGERS: f32 = 12_582_912.0;

/// See [`Mask::count`].
pub(super) const FULL_COUNT: i32 = -4;

/// 32 numbers of a block.
#[derive(Clone, Copy)]
pub(super) struct Lanes<S: Simd> {
    even: f32x16<S>,
    odd: f32x16<S>,
}

/// A condition on each number of a block.
#[derive(Clone, Copy)]
pub(super) struct Mask<S: Simd> {
    even: mask32x16<S>,
    odd: mask32x16<S>,
}

/// The element of largest magnitude, the first one on a tie.
#[derive(Clone, Copy)]
pub(super) struct Extremum {
    pub(super) index: usize,
    pub(super) value: f32,
}

impl Extremum {
    #[inline(always)]
    pub(super) fn of<S: Simd>(simd: S, block: &[bf16; BLOCK]) -> Self {
        let magnitudes = u16x32::load_array(simd, bytemuck::cast(*block)) & 0x7fff;
        let largest = magnitudes.reduce_max();
        let (first, second) = magnitudes.split();
        let is_largest = first.simd_eq(largest).narrow(second.simd_eq(largest));
        let index = is_largest.to_bitmask().trailing_zeros() as usize % BLOCK;
        // The same as `half`, except for signaling NaN.
        Extremum { index, value: f32::from_bits(u32::from(block[index].to_bits()) << 16) }
    }
}

macro_rules! arithmetic {
    ($($operation:ident, $name:ident, $operator:tt;)*) => {$(
        impl<S: Simd> $operation for Lanes<S> {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: Self) -> Self {
                Lanes { even: self.even $operator other.even, odd: self.odd $operator other.odd }
            }
        }

        impl<S: Simd> $operation<f32> for Lanes<S> {
            type Output = Self;

            #[inline(always)]
            fn $name(self, other: f32) -> Self {
                Lanes { even: self.even $operator other, odd: self.odd $operator other }
            }
        }
    )*};
}

arithmetic! { Add, add, +; Sub, sub, -; Mul, mul, *; Div, div, /; }

impl<S: Simd> Lanes<S> {
    #[inline(always)]
    pub(super) fn load(simd: S, block: &[bf16; BLOCK]) -> Self {
        let words = u32x16::load_array(simd, bytemuck::pod_read_unaligned(bytemuck::cast_slice(block)));
        Lanes { even: f32x16::from_bits(words << 16), odd: f32x16::from_bits(words & 0xffff_0000) }
    }

    #[inline(always)]
    pub(super) fn splat(simd: S, x: f32) -> Self {
        let x = f32x16::splat(simd, x);
        Lanes { even: x, odd: x }
    }

    #[inline(always)]
    pub(super) fn abs(self) -> Self {
        Lanes { even: self.even.abs(), odd: self.odd.abs() }
    }

    #[inline(always)]
    pub(super) fn is_zero(self) -> Mask<S> {
        Mask { even: self.even.simd_eq(0.0), odd: self.odd.simd_eq(0.0) }
    }

    #[inline(always)]
    pub(super) fn floor(self) -> Self {
        Lanes { even: self.even.floor(), odd: self.odd.floor() }
    }

    #[inline(always)]
    pub(super) fn round_ties_even(self) -> Self {
        Lanes { even: self.even.round_ties_even(), odd: self.odd.round_ties_even() }
    }

    /// Of numbers that are not NaN.
    #[inline(always)]
    pub(super) fn min(self, other: f32) -> Self {
        Lanes { even: self.even.min(other), odd: self.odd.min(other) }
    }

    /// Of numbers that are not NaN.
    #[inline(always)]
    pub(super) fn max(self, other: f32) -> Self {
        Lanes { even: self.even.max(other), odd: self.odd.max(other) }
    }

    #[inline(always)]
    pub(super) fn equals(self, other: Self) -> Mask<S> {
        Mask { even: self.even.simd_eq(other.even), odd: self.odd.simd_eq(other.odd) }
    }

    /// Whether every number differs from another one by at most this fraction of itself.
    #[inline(always)]
    pub(super) fn are_near(self, other: Self, share: f32) -> bool {
        // Half of them are almost always enough to say no.
        (self.even - other.even).abs().simd_le(self.even.abs() * share).all_true()
            && (self.odd - other.odd).abs().simd_le(self.odd.abs() * share).all_true()
    }

    #[inline(always)]
    pub(super) fn are_below(self, other: f32) -> bool {
        (self.even.simd_lt(other) & self.odd.simd_lt(other)).all_true()
    }

    #[inline(always)]
    pub(super) fn is_below(self, other: f32) -> Mask<S> {
        Mask { even: self.even.simd_lt(other), odd: self.odd.simd_lt(other) }
    }

    /// Whether one of some integers below 2^22 is odd.
    #[inline(always)]
    pub(super) fn has_odd_integers(self) -> bool {
        let (even, odd) = ((self.even + INTEGERS).to_bits(), (self.odd + INTEGERS).to_bits());
        ((even | odd) & 1).simd_eq(1).any_true()
    }

    /// Numbers to whose bits a mask was applied.
    #[inline(always)]
    pub(super) fn and_bits(self, mask: u32) -> Self {
        Lanes {
            even: f32x16::from_bits(self.even.to_bits() & mask),
            odd: f32x16::from_bits(self.odd.to_bits() & mask),
        }
    }

    /// The midpoints between bf16 numbers above 0 and the next smaller and the next larger one.
    #[inline(always)]
    pub(super) fn midpoints(self) -> [Self; 2] {
        // Half a step is 2^15 steps of f32, also where the size of steps changes, at powers of two.
        let (even, odd) = (self.even.to_bits(), self.odd.to_bits());
        [
            Lanes { even: f32x16::from_bits(even - 0x8000), odd: f32x16::from_bits(odd - 0x8000) },
            Lanes { even: f32x16::from_bits(even + 0x8000), odd: f32x16::from_bits(odd + 0x8000) },
        ]
    }

    /// The nearest bf16 numbers, ties to even, of numbers that are 0 or of magnitudes from 2^-126 to 2^111.
    #[inline(always)]
    pub(super) fn round_to_bf16(self) -> Self {
        // The last bit of the sum with 1.5 * 2^16 times its power of two is worth what a bf16 number's is.
        let shift = self.and_bits(0x7f80_0000) * 98304.0;
        (self + shift) - shift
    }

    /// Sums of eight numbers each; their own [`SimdBase::reduce_sum`] is the sum in the order of [`crate::block::sum`].
    #[inline(always)]
    pub(super) fn partial_sums(self) -> f32x4<S> {
        let (first, second) = (self.even + self.odd).split();
        let (first, second) = (first + second).split();
        first + second
    }

    #[inline(always)]
    pub(super) fn sum(self) -> f32 {
        self.partial_sums().reduce_sum()
    }

    /// The largest of numbers that are not NaN.
    #[inline(always)]
    pub(super) fn largest(self) -> f32 {
        self.even.max(self.odd).reduce_max()
    }

    /// The smallest of numbers that are not NaN.
    #[inline(always)]
    pub(super) fn smallest(self) -> f32 {
        self.even.min(self.odd).reduce_min()
    }

    /// Packs integers of `bits` bits, [`INTEGERS`] added, each odd-numbered element above the even-numbered one before it.
    #[inline(always)]
    pub(super) fn pack(self, bits: u32) -> u32x16<S> {
        let mask = (1 << bits) - 1;
        (self.even.to_bits() & mask) | ((self.odd.to_bits() & mask) << bits)
    }

    /// The integers that [`Lanes::pack`] packed, in two's complement.
    #[inline(always)]
    pub(super) fn unpack(pairs: u32x16<S>, bits: u32) -> Self {
        Lanes { even: decode(pairs & ((1 << bits) - 1), bits), odd: decode(pairs >> bits, bits) }
    }
}

impl<S: Simd> Mask<S> {
    #[inline(always)]
    pub(super) fn all(self) -> bool {
        (self.even & self.odd).all_true()
    }

    /// Number of true ones in eight parts, each below zero; all are [`FULL_COUNT`] if every one is true.
    #[inline(always)]
    pub(super) fn count(self) -> i32x8<S> {
        let (first, second) = (self.even.to_vector() + self.odd.to_vector()).split();
        first + second
    }

    /// Number of true ones.
    #[inline(always)]
    pub(super) fn total(self) -> u32 {
        self.count().reduce_sum().unsigned_abs()
    }

    #[inline(always)]
    pub(super) fn select(self, if_true: Lanes<S>, if_false: Lanes<S>) -> Lanes<S> {
        Lanes {
            even: self.even.select(if_true.even, if_false.even),
            odd: self.odd.select(if_true.odd, if_false.odd),
        }
    }
}

/// The numbers that bits in two's complement represent.
#[inline(always)]
fn decode<S: Simd>(codes: u32x16<S>, bits: u32) -> f32x16<S> {
    // With the highest bit flipped they are the numbers plus that bit's worth.
    let bias = 1 << (bits - 1);
    f32x16::from_bits((codes ^ bias) | INTEGERS.to_bits()) - (INTEGERS + bias as f32)
}
