//! One block of weights, element by element.

use half::{bf16, f16};

use super::QuantizeError;

/// Weights that share a scale.
pub const BLOCK: usize = 32;

/// Smallest bf16 magnitude that is infinite in f16.
pub(super) const F16_OVERFLOW: f32 = 65536.0;

/// A scale and codes for a block, and how well they reproduce it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Fit {
    /// The scale.
    pub scale: f16,
    /// The codes.
    pub codes: [i8; BLOCK],
    /// Number of weights that are exact: `code * scale`, rounded to bf16 (ties to even), equals them.
    pub exact: u32,
    /// Sum of `(code * scale - weight)^2`, in f32.
    pub squared_error: f32,
    /// Sum of `weight^2`, in f32.
    pub squared_weights: f32,
    /// Whether the block is known to lie on a lattice: the codes reproduce every weight with this scale, or would with a scale
    /// that is not an f16 number. Only [`super::Int4Rule::Lattice`] looks for the latter.
    pub on_lattice: bool,
}

impl Fit {
    /// Measures how well a scale and codes reproduce finite weights.
    pub(super) fn measure(weights: &[f32; BLOCK], scale: f16, codes: [i8; BLOCK]) -> Self {
        let factor = scale.to_f32();
        let products = codes.map(|code| f32::from(code) * factor);
        let exact = count_exact(weights, scale, &codes);
        let errors: [f32; BLOCK] = std::array::from_fn(|i| products[i] - weights[i]);
        Fit {
            scale,
            codes,
            exact: exact as u32,
            squared_error: sum(errors.map(|error| error * error)),
            squared_weights: sum(weights.map(|weight| weight * weight)),
            on_lattice: exact == BLOCK,
        }
    }

    /// Whether every weight is exact.
    pub fn is_exact(&self) -> bool {
        self.exact as usize == BLOCK
    }
}

/// Number of weights that equal `code * scale`, rounded to bf16.
pub(super) fn count_exact(weights: &[f32; BLOCK], scale: f16, codes: &[i8; BLOCK]) -> usize {
    let scale = scale.to_f32();
    let is_exact = |(code, weight): (&i8, &f32)| round_to_bf16(f32::from(*code) * scale) == *weight;
    codes.iter().zip(weights).filter(|pair| is_exact(*pair)).count()
}

/// The element of largest magnitude, the first one on a tie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extremum {
    pub(super) index: usize,
    pub(super) value: f32,
}

impl Extremum {
    pub(super) fn of(weights: &[f32; BLOCK]) -> Self {
        let mut extremum = Extremum { index: 0, value: weights[0] };
        for (index, value) in weights.iter().copied().enumerate() {
            if value.abs() > extremum.value.abs() {
                extremum = Extremum { index, value };
            }
        }
        extremum
    }
}

/// The weights as f32, if all are finite.
pub(super) fn widen(block: &[bf16; BLOCK]) -> Result<[f32; BLOCK], QuantizeError> {
    match block.iter().position(|weight| !weight.is_finite()) {
        Some(element) => Err(QuantizeError::NotFinite { element }),
        None => Ok(block.map(bf16::to_f32)),
    }
}

/// The nearest bf16 number, ties to even.
pub(super) fn round_to_bf16(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// The nearest f16 number, ties to even.
pub(super) fn round_to_f16(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// A sum in f32, in the order of the vector path: neighbors first, then the second half onto the first until four are left,
/// then neighbors again.
pub(super) fn sum(values: [f32; BLOCK]) -> f32 {
    let mut sums: [f32; BLOCK / 2] = std::array::from_fn(|i| values[2 * i] + values[2 * i + 1]);
    for width in [8, 4] {
        for i in 0..width {
            sums[i] += sums[i + width];
        }
    }
    (sums[0] + sums[1]) + (sums[2] + sums[3])
}
