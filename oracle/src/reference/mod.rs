//! The decoder in fp32, straight from a checkpoint's bf16 weights.
//!
//! Weights pass by: some rows of one matrix at a time, whatever the model's size. Many positions go through together
//! (teacher-forced), or one after the other; keys and values stay cached, so both can follow each other.

mod error;
mod ops;
mod weights;

use candle_core::{Device, Tensor};
use checkpoint::config::{DecoderConfig, Layer, LayerKind, PerLayer};
use checkpoint::source::Source;
use checkpoint::{Checkpoint, LayerRole, Role};

pub use error::ReferenceError;

use ops::{attend, mask, rms_norm, rotate, rotations};
use weights::Weights;

/// Positions whose logits are in memory together.
const LOGITS_AT_ONCE: usize = 64;

/// Called with the residual stream after each layer: the layer, and f32 `[n, H]`, row-major.
pub type LayerObserver<'o> = &'o mut dyn FnMut(usize, &[f32]);

/// Called with each position's logits: the position among those given, and f32 `[V]`.
pub type LogitsObserver<'o> = &'o mut dyn FnMut(usize, &[f32]);

/// A checkpoint's decoder in the middle of a sequence.
#[derive(Debug)]
pub struct Reference<'s> {
    config: DecoderConfig,
    weights: Weights<'s>,
    /// Keys and values `[kv_heads, positions, head_dim]` of each slot; `None` before the first token.
    cache: Vec<Option<(Tensor, Tensor)>>,
    positions: usize,
}

impl<'s> Reference<'s> {
    /// Reads the configuration and finds the tensors; no weights yet.
    ///
    /// # Errors
    /// If the checkpoint is not one of this family's text decoders.
    pub fn open(source: &'s dyn Source) -> Result<Self, ReferenceError> {
        let config = DecoderConfig::read(source)?;
        let checkpoint = Checkpoint::new(&config, source.tensors())?;
        let cache = vec![None; config.slots()];
        Ok(Reference { config, weights: Weights::new(source, checkpoint), cache, positions: 0 })
    }

    /// The checkpoint's configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Some rows of a matrix, as f32, one after the other.
    ///
    /// # Errors
    /// If the checkpoint has no such matrix or row, or cannot be read.
    pub fn weight_rows(&self, role: Role, rows: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        Ok(self.weights.rows(role, rows)?.flatten_all()?.to_vec1::<f32>()?)
    }

    /// Number of tokens fed so far.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.cache = vec![None; self.config.slots()];
        self.positions = 0;
    }

    /// Feeds tokens, all together; gives the normed result of the last layer for each.
    ///
    /// # Errors
    /// A token outside the vocabulary, or a checkpoint that cannot be read.
    pub fn feed(&mut self, tokens: &[u32], observer: LayerObserver<'_>) -> Result<Hidden, ReferenceError> {
        let n = tokens.len();
        let embedded = self.weights.rows(Role::EmbedTokens, tokens)?;
        let mut x = (embedded * (self.config.hidden as f64).sqrt())?;
        let per_layer = self.per_layer_inputs(&x, tokens)?;
        for index in 0..self.config.layers.len() {
            let layer = self.config.layers[index].clone();
            x = self.attention(&x, &layer)?;
            x = self.feedforward(&x, &layer)?;
            if let Some(inputs) = &per_layer {
                x = self.gate(&x, &inputs.narrow(1, index, 1)?.squeeze(1)?, &layer)?;
            }
            x = self.scaled(&x, &layer)?;
            observer(index, &x.flatten_all()?.to_vec1::<f32>()?);
        }
        self.positions += n;
        let normed = rms_norm(&x, Some(&self.weights.vector(Role::FinalNorm)?), self.config.rms_eps)?;
        Ok(Hidden(normed))
    }

    /// Gives the logits of each position, in order.
    ///
    /// # Errors
    /// If the head cannot be read.
    pub fn logits(&self, hidden: &Hidden, observer: LogitsObserver<'_>) -> Result<(), ReferenceError> {
        let n = hidden.0.dim(0)?;
        for first in (0..n).step_by(LOGITS_AT_ONCE) {
            let part = hidden.0.narrow(0, first, LOGITS_AT_ONCE.min(n - first))?;
            let raw = self.weights.project(&part, Role::Head)?;
            let capped = ((raw / self.config.softcap)?.tanh()? * self.config.softcap)?;
            for at in 0..capped.dim(0)? {
                observer(first + at, &capped.get(at)?.to_vec1::<f32>()?);
            }
        }
        Ok(())
    }

    /// Feeds tokens and gives the logits after the last one, f32 `[V]`.
    ///
    /// # Errors
    /// As [`Reference::feed`]; no tokens are an error too.
    pub fn next(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        let hidden = self.feed(tokens, &mut |_, _| {})?;
        let last = hidden.0.narrow(0, tokens.len().saturating_sub(1), 1)?;
        let mut logits = Vec::new();
        self.logits(&Hidden(last), &mut |_, row| logits = row.to_vec())?;
        Ok(logits)
    }

    /// All layers' inputs `[n, L, ld]`, in models with per-layer embeddings.
    fn per_layer_inputs(&self, x: &Tensor, tokens: &[u32]) -> Result<Option<Tensor>, ReferenceError> {
        let Some(PerLayer { width, .. }) = self.config.per_layer else { return Ok(None) };
        let shape = (tokens.len(), self.config.layers.len(), width);
        let projected = self.weights.project(x, Role::PerLayerModelProjection)?;
        let projected = (projected * (self.config.hidden as f64).powf(-0.5))?.reshape(shape)?;
        let norm = self.weights.vector(Role::PerLayerProjectionNorm)?;
        let projected = rms_norm(&projected, Some(&norm), self.config.rms_eps)?;
        let rows = self.weights.rows(Role::EmbedTokensPerLayer, tokens)?;
        let rows = (rows * (width as f64).sqrt())?.reshape(shape)?;
        Ok(Some(((projected + rows)? * std::f64::consts::FRAC_1_SQRT_2)?))
    }

    fn norm(&self, x: &Tensor, layer: &Layer, role: LayerRole) -> Result<Tensor, ReferenceError> {
        let weight = self.weights.vector(Role::Layer(layer.index, role))?;
        Ok(rms_norm(x, Some(&weight), self.config.rms_eps)?)
    }

    /// A projection split into heads, `[heads, n, head_dim]`.
    fn heads(
        &self,
        x: &Tensor,
        layer: &Layer,
        role: LayerRole,
        heads: usize,
    ) -> Result<Tensor, ReferenceError> {
        let projected = self.weights.project(x, Role::Layer(layer.index, role))?;
        Ok(projected.reshape((x.dim(0)?, heads, layer.head_dim))?.transpose(0, 1)?.contiguous()?)
    }

    fn attention(&mut self, x: &Tensor, layer: &Layer) -> Result<Tensor, ReferenceError> {
        let n = x.dim(0)?;
        let h = self.norm(x, layer, LayerRole::InputNorm)?;
        let rotation = rotations(self.config.rope(layer.kind), layer.head_dim, self.positions, n)?;
        let q = self.heads(&h, layer, LayerRole::QProj, self.config.heads)?;
        let q = rotate(&self.norm(&q, layer, LayerRole::QNorm)?, &rotation)?;
        if layer.owns_slot() {
            let projected = self.heads(&h, layer, LayerRole::KProj, layer.kv_heads)?;
            let k = rotate(&self.norm(&projected, layer, LayerRole::KNorm)?, &rotation)?;
            let v = if layer.values_from_keys {
                projected
            } else {
                self.heads(&h, layer, LayerRole::VProj, layer.kv_heads)?
            };
            let v = rms_norm(&v, None, self.config.rms_eps)?;
            let joined = match self.cache[layer.slot].take() {
                Some((keys, values)) => (Tensor::cat(&[keys, k], 1)?, Tensor::cat(&[values, v], 1)?),
                None => (k, v),
            };
            self.cache[layer.slot] = Some(joined);
        }
        let empty =
            || Tensor::zeros((layer.kv_heads, 0, layer.head_dim), candle_core::DType::F32, &Device::Cpu);
        let (k, v) = match &self.cache[layer.slot] {
            Some((k, v)) => (k.clone(), v.clone()),
            None => (empty()?, empty()?),
        };
        let window = (layer.kind == LayerKind::Sliding).then_some(self.config.sliding_window);
        let mixed = attend(&q, &k, &v, &mask(n, self.positions + n, window)?)?;
        let out = self.weights.project(&mixed, Role::Layer(layer.index, LayerRole::OProj))?;
        Ok((x + self.norm(&out, layer, LayerRole::PostAttentionNorm)?)?)
    }

    fn feedforward(&self, x: &Tensor, layer: &Layer) -> Result<Tensor, ReferenceError> {
        let role = |role| Role::Layer(layer.index, role);
        let f = self.norm(x, layer, LayerRole::PreFeedforwardNorm)?;
        let gate = self.weights.project(&f, role(LayerRole::GateProj))?.gelu()?;
        let up = self.weights.project(&f, role(LayerRole::UpProj))?;
        let down = self.weights.project(&(gate * up)?, role(LayerRole::DownProj))?;
        Ok((x + self.norm(&down, layer, LayerRole::PostFeedforwardNorm)?)?)
    }

    /// The layer's factor.
    fn scaled(&self, x: &Tensor, layer: &Layer) -> Result<Tensor, ReferenceError> {
        let factor = self.weights.vector(Role::Layer(layer.index, LayerRole::LayerScalar))?;
        Ok(x.broadcast_mul(&factor)?)
    }

    /// The per-layer input.
    fn gate(&self, x: &Tensor, input: &Tensor, layer: &Layer) -> Result<Tensor, ReferenceError> {
        let role = |role| Role::Layer(layer.index, role);
        let gate = self.weights.project(x, role(LayerRole::PerLayerInputGate))?.gelu()?;
        let projected = self.weights.project(&(gate * input)?, role(LayerRole::PerLayerProjection))?;
        Ok((x + self.norm(&projected, layer, LayerRole::PostPerLayerInputNorm)?)?)
    }
}

/// Normed results of the last layer, `[n, H]`: what the head reads.
#[derive(Clone, Debug)]
pub struct Hidden(Tensor);
