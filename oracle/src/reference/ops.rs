//! The decoder's few functions on f32 tensors.

use candle_core::{D, Device, Result, Tensor};
use checkpoint::config::Rope;
use rayon::prelude::*;

/// Elements from which on candle (0.11, `PAR_ELEMWISE_MIN`) hands an operation to threads of its own. They wait for each other in loops,
/// which costs more than it saves where several of our threads do that at the same time.
const CANDLE_THREADS: usize = 64 * 1024;

/// Applies a function of rows to blocks of rows of some tensors, side by side. Few rows are one block.
pub(super) fn by_rows<const N: usize>(
    inputs: [&Tensor; N],
    f: impl Fn([&Tensor; N]) -> Result<Tensor> + Sync,
) -> Result<Tensor> {
    let rows = inputs.first().map_or(Ok(0), |input| input.dim(0))?;
    let widest = inputs.iter().map(|input| input.elem_count()).max().unwrap_or(0).div_ceil(rows.max(1));
    let at_once = ((CANDLE_THREADS - 1) / widest.max(1)).max(1);
    if rows <= at_once {
        return f(inputs);
    }
    side_by_side((0..rows).step_by(at_once).collect(), &|first| {
        let blocks = inputs
            .iter()
            .map(|input| input.narrow(0, first, at_once.min(rows - first)))
            .collect::<Result<Vec<_>>>()?;
        f(std::array::from_fn(|at| &blocks[at]))
    })
}

/// The blocks with these first rows, one below the other. It is compiled once, not for each function of rows.
fn side_by_side(firsts: Vec<usize>, block: &(dyn Fn(usize) -> Result<Tensor> + Sync)) -> Result<Tensor> {
    let blocks: Vec<Tensor> = firsts.into_par_iter().map(block).collect::<Result<_>>()?;
    Tensor::cat(&blocks, 0)
}

/// `x / rms(x) * weight` over the last axis.
pub(super) fn rms_norm(x: &Tensor, weight: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = x.broadcast_div(&(mean_square + eps)?.sqrt()?)?;
    match weight {
        Some(weight) => normed.broadcast_mul(weight),
        None => Ok(normed),
    }
}

/// Cosine and sine `[n, head_dim / 2]` of some positions.
pub(super) struct Rotation {
    pub(super) cos: Tensor,
    pub(super) sin: Tensor,
}

/// The rotation of positions `first..first + n`; pairs beyond the rotated ones have frequency 0.
///
/// Frequencies and angles are f32, as in `transformers`.
pub(super) fn rotations(rope: &Rope, head_dim: usize, first: usize, n: usize) -> Result<Rotation> {
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
    Ok(Rotation { cos: table(libm::cos)?, sin: table(libm::sin)? })
}

/// Rotates `x [n, heads, head_dim]` by `cos` and `sin` `[n, head_dim / 2]`: the two halves of a head are the two coordinates of its pairs.
pub(super) fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = x.dim(D::Minus1)? / 2;
    let (cos, sin) = (cos.unsqueeze(1)?, sin.unsqueeze(1)?);
    let (low, high) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
    let first = (low.broadcast_mul(&cos)? - high.broadcast_mul(&sin)?)?;
    let second = (high.broadcast_mul(&cos)? + low.broadcast_mul(&sin)?)?;
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
    let of_head = |head| by_rows([&scores.get(head)?, mask], |[scores, mask]| softmax(&(scores + mask)?));
    let shares: Vec<Tensor> = (0..heads).map(of_head).collect::<Result<_>>()?;
    let shares = Tensor::cat(&shares, 0)?.reshape((kv_heads, heads / kv_heads * n, total))?;
    let mixed = shares.matmul(&v.contiguous()?)?;
    mixed.reshape((heads, n, width))?.transpose(0, 1)?.contiguous()?.reshape((n, heads * width))
}

fn softmax(scores: &Tensor) -> Result<Tensor> {
    let exponentials = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
    exponentials.broadcast_div(&exponentials.sum_keepdim(D::Minus1)?)
}
