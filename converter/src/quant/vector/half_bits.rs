//! f16 numbers of single f32 numbers, inline.
//!
//! The conversions of `half` look up what the machine can do at every call, which in a loop over blocks costs more than the
//! conversion.

/// The smallest normal f16 number, 2^-14.
pub(super) const SMALLEST_NORMAL: f32 = 1.0 / 16384.0;

/// Smallest f32 magnitude that rounds to infinity.
const OVERFLOW: f32 = 65520.0;

/// The nearest f16 number of one that is not NaN, ties to even, as f32.
#[inline(always)]
pub(super) fn round_to_f16(x: f32) -> f32 {
    let magnitude = x.abs();
    if (SMALLEST_NORMAL..OVERFLOW).contains(&magnitude) {
        // f16 significands are 13 bits shorter.
        let bits = x.to_bits();
        f32::from_bits((bits + 0xfff + (bits >> 13 & 1)) & !0x1fff)
    } else {
        round_rare(x)
    }
}

#[cold]
fn round_rare(x: f32) -> f32 {
    let magnitude = x.abs();
    // Below normal f16 numbers are 2^-24 apart, as f32 numbers from 0.5 on are.
    let rounded = if magnitude < OVERFLOW { (magnitude + 0.5) - 0.5 } else { f32::INFINITY };
    rounded.copysign(x)
}

/// Bits of a finite f16 number that is given as f32.
#[inline(always)]
pub(super) fn f16_bits(x: f32) -> u16 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude >= SMALLEST_NORMAL.to_bits() { (magnitude >> 13) - (112 << 10) } else { rare_bits(x) };
    (bits >> 16 & 0x8000 | half) as u16
}

#[cold]
fn rare_bits(x: f32) -> u32 {
    (x.abs() + 0.5).to_bits() - 0.5_f32.to_bits()
}

#[cfg(test)]
mod tests {
    use super::{f16_bits, round_to_f16};
    use half::f16;

    #[test]
    fn same_as_the_library_around_every_f16_number_and_every_midpoint() {
        for bits in 0..=f16::INFINITY.to_bits() {
            let number = f16::from_bits(bits).to_f32();
            let midpoint = (f64::from(number) + f64::from(f16::from_bits(bits.saturating_sub(1)).to_f32())) / 2.0;
            for near in [number, midpoint as f32] {
                for x in [near.next_down(), near, near.next_up()].into_iter().filter(|x| !x.is_nan()) {
                    for x in [x, -x] {
                        let expected = f16::from_f32(x);
                        assert_eq!(round_to_f16(x).to_bits(), expected.to_f32().to_bits(), "{x}");
                        if expected.is_finite() {
                            assert_eq!(f16_bits(expected.to_f32()), expected.to_bits(), "{x}");
                        }
                    }
                }
            }
        }
    }
}
