//! The decoder's few functions on f32 tensors.

use candle_core::{D, Device, Result, Tensor};
use checkpoint::config::Rope;

/// `x / rms(x) * weight` over the last axis.
pub(super) fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = x.broadcast_div(&(mean_square + eps)?.sqrt()?)?;
    match weight {
        Some(weight) => normed.broadcast_mul(weight),
        None => Ok(normed),
    }
}

/// Cosine and sine `[n, head_dim / 2]` of positions `first..first + n`; pairs beyond the rotated ones have frequency 0.
///
/// Frequencies and angles are f32, as in `transformers`.
pub(super) fn rotations(rope: &Rope, head_dim: usize, first: usize, n: usize) -> Result<(Tensor, Tensor)> {
    let frequency = |pair: usize| {
        let rotated = pair < rope.rotary_pairs;
        if rotated { (1.0 / libm::pow(rope.theta, 2.0 * pair as f64 / head_dim as f64)) as f32 } else { 0.0 }
    };
    let frequencies: Vec<f32> = (0..head_dim / 2).map(frequency).collect();
    let angles: Vec<f32> = (first..first + n)
        .flat_map(|at| frequencies.iter().map(move |frequency| at as f32 * frequency))
        .collect();
    let table = |f: fn(f64) -> f64| {
        let values: Vec<f32> = angles.iter().map(|angle| f(f64::from(*angle)) as f32).collect();
        Tensor::from_vec(values, (n, head_dim / 2), &Device::Cpu)
    };
    Ok((table(libm::cos)?, table(libm::sin)?))
}

/// Rotates `x [heads, n, head_dim]`: the two halves of a head are the two coordinates of its pairs.
pub(super) fn rotate(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (low, high) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let first = (low.broadcast_mul(cos)? - high.broadcast_mul(sin)?)?;
    let second = (high.broadcast_mul(cos)? + low.broadcast_mul(sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)
}

/// What each of the `n` last of `total` positions may see: 0, or minus infinity, `[n, total]`.
pub(super) fn mask(n: usize, total: usize, window: Option<usize>) -> Result<Tensor> {
    let visible = |at: usize, seen: usize| seen <= at && window.is_none_or(|window| at - seen < window);
    let values: Vec<f32> = (total - n..total)
        .flat_map(|at| (0..total).map(move |seen| if visible(at, seen) { 0.0 } else { f32::NEG_INFINITY }))
        .collect();
    Tensor::from_vec(values, (n, total), &Device::Cpu)
}

/// Attention with scale 1: `q [heads, n, d]`, `k` and `v` `[kv_heads, total, d]`; the result is `[n, heads * d]`.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let (heads, n, width) = q.dims3()?;
    let (kv_heads, total, _) = k.dims3()?;
    // Query heads of one KV head lie together.
    let grouped = q.contiguous()?.reshape((kv_heads, heads / kv_heads * n, width))?;
    let scores = grouped.matmul(&k.t()?.contiguous()?)?.reshape((heads, n, total))?;
    let scores = scores.broadcast_add(mask)?;
    let exponentials = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    let shares = exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)?;
    let mixed = shares.reshape((kv_heads, heads / kv_heads * n, total))?.matmul(&v.contiguous()?)?;
    mixed.reshape((heads, n, width))?.transpose(0, 1)?.contiguous()?.reshape((n, heads * width))
}
