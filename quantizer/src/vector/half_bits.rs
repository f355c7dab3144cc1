//! Converts f32 numbers to f16 without branches, so that loops over several become vectors.

/// The smallest normal f16 number, 2^-14.
pub(super) const SMALLEST_NORMAL: f32 = 1.0 / 16384.0;

/// The nearest f16 number of one below 65520 in magnitude, ties to even, as f32.
#[inline(always)]
pub(super) fn round_to_f16(x: f32) -> f32 {
    let magnitude = x.abs();
    let bits = magnitude.to_bits();
    // f16 significands are 13 bits shorter.
    let normal = f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff);
    // Below normal numbers f16 numbers are 2^-24 apart, as f32 numbers from 0.5 on are.
    let subnormal = (magnitude + 0.5) - 0.5;
    (if magnitude < SMALLEST_NORMAL { subnormal } else { normal }).copysign(x)
}

/// Bits of a finite f16 number that is passed as f32.
#[inline(always)]
pub(super) fn f16_bits(x: f32) -> u16 {
    let magnitude = x.abs();
    let normal = (magnitude.to_bits() >> 13).wrapping_sub(112 << 10);
    let subnormal = (magnitude + 0.5).to_bits().wrapping_sub(0.5_f32.to_bits());
    let half = if magnitude < SMALLEST_NORMAL { subnormal } else { normal };
    (x.to_bits() >> 16 & 0x8000 | half) as u16
}

#[cfg(test)]
mod tests {
    use super::{f16_bits, round_to_f16};
    use half::f16;

    #[test]
    fn same_as_the_library_around_every_f16_number_and_every_midpoint() {
        for bits in 0..f16::INFINITY.to_bits() {
            let number = f16::from_bits(bits).to_f32();
            let midpoint = (number + f16::from_bits(bits.saturating_sub(1)).to_f32()) / 2.0;
            for near in [number, midpoint] {
                for x in [near.next_down(), near, near.next_up()] {
                    for x in [x, -x] {
                        let expected = f16::from_f32(x);
                        assert_eq!(round_to_f16(x).to_bits(), expected.to_f32().to_bits(), "{x}");
                        assert_eq!(f16_bits(expected.to_f32()), expected.to_bits(), "{x}");
                    }
                }
            }
        }
    }
}
