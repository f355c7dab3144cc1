//! What a layer computes, for one sequence or for several that are fed together.
//!
//! All positions of all sequences are rows of one tensor `[n, H]`, so a matrix is multiplied with all of them at once. Only
//! attention looks at sequences.

use std::ops::Range;

use candle_core::{D, DType, Device, Tensor};
use checkpoint::config::{DecoderConfig, Layer, LayerKind, PerLayer};
use checkpoint::{LayerRole, Role};
use rayon::prelude::*;

use super::error::ReferenceError;
use super::ops::{Rotation, attend, by_rows, mask, rms_norm, rotate, rotations};
use super::weights::Weights;

/// Sequences that are fed together.
#[derive(Debug)]
pub struct Sequences {
    /// Tokens that each has seen before.
    past: Vec<usize>,
    /// The rows of each.
    rows: Vec<Range<usize>>,
    /// For each slot, keys and values `[kv_heads, positions, head_dim]` of each sequence.
    cache: Vec<Vec<Option<(Tensor, Tensor)>>>,
}

impl Sequences {
    /// New sequences, with as many cache slots.
    pub(super) fn new(count: usize, slots: usize) -> Self {
        Sequences { past: vec![0; count], rows: vec![0..0; count], cache: vec![vec![None; count]; slots] }
    }

    /// Tokens that each has seen.
    pub(super) fn past(&self) -> &[usize] {
        &self.past
    }

    /// Prepares for this many tokens of each.
    pub(super) fn begin(&mut self, lengths: impl IntoIterator<Item = usize>) {
        let mut end = 0;
        for (rows, length) in self.rows.iter_mut().zip(lengths) {
            *rows = end..end + length;
            end += length;
        }
    }

    /// They have seen the tokens that [`Sequences::begin`] was told.
    pub(super) fn end(&mut self) {
        self.past.iter_mut().zip(&self.rows).for_each(|(past, rows)| *past += rows.len());
    }

    /// Forgets the keys and values of a slot.
    pub(super) fn forget(&mut self, slot: usize) {
        self.cache[slot].fill(None);
    }

    /// The positions that are fed, from the first one of any sequence to the last one of any.
    fn positions(&self) -> Range<usize> {
        let fed = self.past.iter().zip(&self.rows).filter(|(_, rows)| !rows.is_empty());
        let first = fed.clone().map(|(past, _)| *past).min().unwrap_or(0);
        first..fed.map(|(past, rows)| past + rows.len()).max().unwrap_or(0)
    }
}

/// Queries, and keys and values where the layer makes them: `[n, heads * head_dim]` of all sequences.
struct Projected {
    q: Tensor,
    kv: Option<(Tensor, Option<Tensor>)>,
}

/// What the sequences of a pass have in common in a layer: how positions are rotated, and what they may see.
struct Places {
    first: usize,
    rotation: Rotation,
    mask: Tensor,
}

/// The decoder's functions, with the weights that they use.
pub(super) struct Decoder<'d> {
    pub(super) config: &'d DecoderConfig,
    pub(super) weights: &'d Weights<'d>,
}

impl Decoder<'_> {
    /// The first layer's input `[n, H]`.
    pub(super) fn embed(&self, tokens: &[u32]) -> Result<Tensor, ReferenceError> {
        let embedded = self.weights.rows(Role::EmbedTokens, tokens)?;
        Ok((embedded * (self.config.hidden as f64).sqrt())?)
    }

    /// All layers' inputs `[n, L, ld]`, in models with per-layer embeddings.
    pub(super) fn per_layer_inputs(
        &self,
        x: &Tensor,
        tokens: &[u32],
    ) -> Result<Option<Tensor>, ReferenceError> {
        let Some(PerLayer { width, .. }) = self.config.per_layer else { return Ok(None) };
        let projected = self.weights.project(x, Role::PerLayerModelProjection)?;
        let norm = self.weights.vector(Role::PerLayerProjectionNorm)?;
        let rows = self.weights.rows(Role::EmbedTokensPerLayer, tokens)?;
        let joined = by_rows([&projected, &rows], |[projected, rows]| {
            let shape = (rows.dim(0)?, self.config.layers.len(), width);
            let projected = (projected * (self.config.hidden as f64).powf(-0.5))?.reshape(shape)?;
            let projected = rms_norm(&projected, Some(&norm), self.config.rms_eps)?;
            let rows = (rows * (width as f64).sqrt())?.reshape(shape)?;
            (projected + rows)? * std::f64::consts::FRAC_1_SQRT_2
        })?;
        Ok(Some(joined))
    }

    /// A layer's result for its input `[n, H]`, and its own per-layer input.
    pub(super) fn layer(
        &self,
        x: &Tensor,
        per_layer: Option<&Tensor>,
        layer: &Layer,
        sequences: &mut Sequences,
    ) -> Result<Tensor, ReferenceError> {
        let mut x = self.attention(x, layer, sequences)?;
        x = self.feedforward(&x, layer)?;
        if let Some(inputs) = per_layer {
            x = self.gate(&x, &inputs.narrow(1, layer.index, 1)?.squeeze(1)?, layer)?;
        }
        self.scaled(&x, layer)
    }

    /// What the head reads.
    pub(super) fn final_norm(&self, x: &Tensor) -> Result<Tensor, ReferenceError> {
        let weight = self.weights.vector(Role::FinalNorm)?;
        Ok(by_rows([x], |[x]| rms_norm(x, Some(&weight), self.config.rms_eps))?)
    }

    /// Logits `[n, V]` after the soft cap.
    pub(super) fn logits(&self, hidden: &Tensor) -> Result<Vec<f32>, ReferenceError> {
        let mut logits = self.weights.product(hidden, Role::Head)?;
        let (cap, inverse) = (self.config.softcap as f32, (1.0 / self.config.softcap) as f32);
        logits.par_iter_mut().for_each(|logit| *logit = (*logit * inverse).tanh() * cap);
        Ok(logits)
    }

    fn vector(&self, layer: &Layer, role: LayerRole) -> Result<Tensor, ReferenceError> {
        self.weights.vector(Role::Layer(layer.index, role))
    }

    fn project(&self, x: &Tensor, layer: &Layer, role: LayerRole) -> Result<Tensor, ReferenceError> {
        self.weights.project(x, Role::Layer(layer.index, role))
    }

    fn norm(&self, x: &Tensor, layer: &Layer, role: LayerRole) -> Result<Tensor, ReferenceError> {
        let weight = self.vector(layer, role)?;
        Ok(by_rows([x], |[x]| rms_norm(x, Some(&weight), self.config.rms_eps))?)
    }

    /// `x` plus the normed result of a block.
    fn joined(
        &self,
        x: &Tensor,
        result: &Tensor,
        layer: &Layer,
        role: LayerRole,
    ) -> Result<Tensor, ReferenceError> {
        let weight = self.vector(layer, role)?;
        Ok(by_rows([x, result], |[x, result]| x + rms_norm(result, Some(&weight), self.config.rms_eps)?)?)
    }

    fn attention(
        &self,
        x: &Tensor,
        layer: &Layer,
        sequences: &mut Sequences,
    ) -> Result<Tensor, ReferenceError> {
        let h = self.norm(x, layer, LayerRole::InputNorm)?;
        let q = self.project(&h, layer, LayerRole::QProj)?;
        let kv = match (layer.owns_slot(), layer.values_from_keys) {
            (false, _) => None,
            (true, true) => Some((self.project(&h, layer, LayerRole::KProj)?, None)),
            (true, false) => {
                let k = self.project(&h, layer, LayerRole::KProj)?;
                Some((k, Some(self.project(&h, layer, LayerRole::VProj)?)))
            }
        };
        let projected = Projected { q, kv };
        let positions = sequences.positions();
        let window = (layer.kind == LayerKind::Sliding).then_some(self.config.sliding_window);
        let places = Places {
            first: positions.start,
            rotation: rotations(
                self.config.rope(layer.kind),
                layer.head_dim,
                positions.start,
                positions.len(),
            )?,
            mask: mask(positions.len(), positions.end, window)?,
        };
        let norms = (self.vector(layer, LayerRole::QNorm)?, self.key_norm(layer)?);
        let Sequences { past, rows, cache } = sequences;
        let mixed: Vec<Tensor> = rows
            .par_iter()
            .zip(past)
            .zip(&mut cache[layer.slot])
            .map(|((rows, past), cache)| {
                if rows.is_empty() {
                    return Ok(None);
                }
                self.mixed(layer, &projected, rows, *past, &places, &norms, cache).map(Some)
            })
            .filter_map(Result::transpose)
            .collect::<candle_core::Result<_>>()?;
        let mixed = match <[Tensor; 1]>::try_from(mixed) {
            Ok([mixed]) => mixed,
            Err(mixed) => Tensor::cat(&mixed, 0)?,
        };
        let out = self.project(&mixed, layer, LayerRole::OProj)?;
        self.joined(x, &out, layer, LayerRole::PostAttentionNorm)
    }

    fn key_norm(&self, layer: &Layer) -> Result<Option<Tensor>, ReferenceError> {
        layer.owns_slot().then(|| self.vector(layer, LayerRole::KNorm)).transpose()
    }

    /// Attention of one sequence, `[rows, heads * head_dim]`; adds its keys and values to the cache.
    #[expect(clippy::too_many_arguments, reason = "a closure within attention, were it shorter")]
    fn mixed(
        &self,
        layer: &Layer,
        projected: &Projected,
        rows: &Range<usize>,
        past: usize,
        places: &Places,
        (q_norm, k_norm): &(Tensor, Option<Tensor>),
        cache: &mut Option<(Tensor, Tensor)>,
    ) -> candle_core::Result<Tensor> {
        let (n, eps) = (rows.len(), self.config.rms_eps);
        let of_rows = |of_positions: &Tensor| of_positions.narrow(0, past - places.first, n);
        let (cos, sin) = (of_rows(&places.rotation.cos)?, of_rows(&places.rotation.sin)?);
        // Of the sequence's rows: normed, rotated unless they are values, and then by head, `[heads, n, head_dim]`.
        let heads = |x: &Tensor, norm: Option<&Tensor>, rotates: bool| {
            let x = by_rows([&x.narrow(0, rows.start, n)?, &cos, &sin], |[x, cos, sin]| {
                let x = x.reshape((x.dim(0)?, (), layer.head_dim))?;
                let x = rms_norm(&x, norm, eps)?;
                if rotates { rotate(&x, cos, sin) } else { Ok(x) }
            })?;
            x.transpose(0, 1)?.contiguous()
        };
        let q = heads(&projected.q, Some(q_norm), true)?;
        if let Some((k, v)) = &projected.kv {
            let v = heads(v.as_ref().unwrap_or(k), None, false)?;
            let k = heads(k, k_norm.as_ref(), true)?;
            *cache = Some(match cache.take() {
                Some((keys, values)) => (Tensor::cat(&[keys, k], 1)?, Tensor::cat(&[values, v], 1)?),
                None => (k, v),
            });
        }
        let (k, v) = match cache {
            Some((k, v)) => (k.clone(), v.clone()),
            None => {
                let empty = Tensor::zeros((layer.kv_heads, 0, layer.head_dim), DType::F32, &Device::Cpu)?;
                (empty.clone(), empty)
            }
        };
        let mask = of_rows(&places.mask)?.narrow(D::Minus1, 0, past + n)?;
        attend(&q, &k, &v, &mask)
    }

    fn feedforward(&self, x: &Tensor, layer: &Layer) -> Result<Tensor, ReferenceError> {
        let f = self.norm(x, layer, LayerRole::PreFeedforwardNorm)?;
        let gate = self.project(&f, layer, LayerRole::GateProj)?;
        let up = self.project(&f, layer, LayerRole::UpProj)?;
        let inner = by_rows([&gate, &up], |[gate, up]| gate.gelu()? * up)?;
        drop((gate, up));
        let down = self.project(&inner, layer, LayerRole::DownProj)?;
        self.joined(x, &down, layer, LayerRole::PostFeedforwardNorm)
    }

    /// The layer's factor.
    fn scaled(&self, x: &Tensor, layer: &Layer) -> Result<Tensor, ReferenceError> {
        let factor = self.vector(layer, LayerRole::LayerScalar)?;
        Ok(by_rows([x], |[x]| x.broadcast_mul(&factor))?)
    }

    /// The per-layer input.
    fn gate(&self, x: &Tensor, input: &Tensor, layer: &Layer) -> Result<Tensor, ReferenceError> {
        let gate = self.project(x, layer, LayerRole::PerLayerInputGate)?;
        let inner = by_rows([&gate, input], |[gate, input]| gate.gelu()? * input)?;
        let projected = self.project(&inner, layer, LayerRole::PerLayerProjection)?;
        self.joined(x, &projected, layer, LayerRole::PostPerLayerInputNorm)
    }
}
