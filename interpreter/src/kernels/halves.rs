//! Conversions between f16 and f32 in plain code that vectorizes.

/// Rounds to the 11 significant bits of a normal f16, ties to even; 0 stays 0.
#[inline(always)]
pub(super) fn round_normal(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0xFFF + ((bits >> 13) & 1)) & !0x1FFF)
}

/// Rounds to f16, ties to even, without branches.
#[inline(always)]
pub(crate) fn round_to_half(value: f32) -> f32 {
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
pub(super) fn to_single(half: u16) -> f32 {
    let magnitude = u32::from(half & 0x7FFF) << 13;
    let normal = magnitude + (112 << 23);
    // Below the normal range the exponent is too low by one and there is no leading bit: add one, then subtract its value.
    let tiny = (f32::from_bits(magnitude + (113 << 23)) - 6.103_515_6e-5).to_bits();
    let infinite = magnitude + (224 << 23);
    let bits = if magnitude < 1 << 23 { tiny } else { normal };
    let bits = if magnitude >= 31 << 23 { infinite } else { bits };
    f32::from_bits(bits | u32::from(half & 0x8000) << 16)
}
