//! The `q4_0` rule: GGML's reference quantizer.

use half::f16;

use super::QuantizeError;
use super::block::{BLOCK, Extremum, Fit};

/// `d = extremum / -8`, `code = clamp(trunc(weight * (1 / d) + 8.5), 0, 15) - 8`, all in f32 with the f32 `d`, which is then
/// stored as f16. If `1 / d` is infinite, for which GGML's result depends on the machine, codes are 0; the stored scale is then zero.
pub(super) fn fit(weights: &[f32; BLOCK]) -> Result<Fit, QuantizeError> {
    let extremum = Extremum::of(weights);
    let d = extremum.value / -8.0;
    let scale = f16::from_f32(d);
    if scale.is_infinite() {
        return Err(QuantizeError::Overflow { element: extremum.index });
    }
    let inverse = 1.0 / d;
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    let code = |weight: f32| (weight * inverse + 8.5).trunc().clamp(0.0, 15.0) as i8 - 8;
    Ok(Fit::measure(weights, scale, weights.map(code)))
}
