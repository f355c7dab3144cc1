//! The best fit for a block that is not on a lattice.
//!
//! The extremum divided by each of [`DIVISORS`] gives codes `q`. Of all scales for these codes the one of least squares, `(Σ q w) /
//! (Σ q²)`, leaves the error `Σ w² - (Σ q w)² / (Σ q²)`: the codes for which the subtrahend is largest are kept, the first ones on
//! a tie. Their scale is rounded to f16, and codes are chosen again for it. `absmax` is used unless the result is better than
//! that of `absmax` by more than a rounding error.

use half::f16;

use crate::absmax::{self, Width};
use crate::block::{BLOCK, Extremum, Fit, sum};

/// What the extremum is divided by; positive ones make positive scales, negative ones make the extremum's code negative.
/// Further divisors gain less than half a percent of the error on normal, Laplace and uniform weights.
pub(crate) const DIVISORS: [f32; 9] = [7.0, 7.5, 8.0, 8.5, 6.5, 6.0, -8.0, -7.5, -8.5];

/// A fit must have an error below that of `absmax` times this. Errors in f32 are off by less than 2^-20, so a fit that is
/// kept is never worse.
pub(crate) const MARGIN: f32 = 1.0 - 1.0 / 65536.0;

pub(super) fn fit(weights: &[f32; BLOCK], extremum: Extremum) -> Fit {
    let plain = absmax::place(weights, extremum, Width::Int4);
    let (mut best, mut scale) = (0.0, 0.0);
    for divisor in DIVISORS {
        let inverse = divisor / if divisor > 0.0 { extremum.value.abs() } else { extremum.value };
        let codes = codes(weights, inverse);
        let products = sum(std::array::from_fn(|i| codes[i] * weights[i]));
        let squares = sum(codes.map(|code| code * code));
        let explained = products * products / squares;
        if explained > best {
            (best, scale) = (explained, products / squares);
        }
    }
    let scale = f16::from_f32(scale);
    if scale == f16::ZERO {
        return plain;
    }
    let codes = codes(weights, 1.0 / scale.to_f32());
    let best = Fit::measure(weights, scale, codes.map(|code| code as i8));
    better(best, plain)
}

/// The first fit if it is better than the second by more than a rounding error, else the second.
pub(super) fn better(first: Fit, second: Fit) -> Fit {
    if first.squared_error < second.squared_error * MARGIN { first } else { second }
}

fn codes(weights: &[f32; BLOCK], inverse: f32) -> [f32; BLOCK] {
    weights.map(|weight| (weight * inverse).round_ties_even().clamp(-8.0, 7.0))
}
