//! `config.json`, checked once and turned into typed facts. After this, JSON is not read again.
//!
//! [`DecoderConfig`] describes the text decoders of Gemma 4 without a mixture of experts: the E-series (E2B, E4B) and the models
//! without per-layer embeddings (12B, 31B). What they differ in is in the facts of each [`Layer`]. Every other member of the family,
//! and every setting that would change the decoder's mathematics, is refused with a [`ConfigError`] that names the
//! field, what it says and what was expected.

mod caches;
mod error;
mod fields;
mod layers;
mod members;
mod overrides;
mod parse;
mod rope;
mod unique;

pub use caches::{CacheForm, CachePair, CachePlace};
pub use error::ConfigError;

use crate::source::Source;

/// Name of the configuration file.
pub const CONFIG_FILE: &str = "config.json";

/// Largest `config.json` that is parsed, in bytes.
pub const MAX_CONFIG_BYTES: usize = 4 << 20;

/// Most layers that are accepted, so that a broken count cannot cost memory.
pub const MAX_LAYERS: usize = 1024;

/// How far a layer's attention reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LayerKind {
    /// The last `sliding_window` positions.
    Sliding,
    /// Every earlier position.
    Full,
}

impl LayerKind {
    /// The name that `layer_types` and `rope_parameters` use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sliding => "sliding_attention",
            Self::Full => "full_attention",
        }
    }
}

/// One decoder layer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layer {
    /// Number of the layer, from 0.
    pub index: usize,
    /// How far its attention reaches.
    pub kind: LayerKind,
    /// Width of one attention head.
    pub head_dim: usize,
    /// Key and value heads; they divide the query heads.
    pub kv_heads: usize,
    /// Whether values are the key projection's result, before the keys' norm and rotation; then there is no value projection.
    pub values_from_keys: bool,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Slot that it reads in a cache that all layers share.
    pub slot: usize,
    /// Layer that writes this slot: itself, or the last layer of its kind that does not share.
    pub owner: usize,
}

impl Layer {
    /// Whether the layer projects keys and values itself and writes them to its slot.
    pub fn owns_slot(&self) -> bool {
        self.owner == self.index
    }
}

/// Per-layer embeddings: a row of a second table for each token, of which each layer takes a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerLayer {
    /// Width of one layer's part, ld.
    pub width: usize,
    /// Width of a row: that of all layers, L * ld.
    pub total: usize,
}

/// Rotary position embedding of one kind of layer.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Rope {
    /// Base of the frequencies `theta^(-2j / head_dim)`.
    pub theta: f64,
    /// Share of the head that is rotated.
    pub partial_rotary_factor: f64,
    /// Frequency pairs that are rotated, `floor(partial_rotary_factor * head_dim / 2)`; the others have frequency 0.
    pub rotary_pairs: usize,
}

/// The facts about a text decoder.
///
/// Sizes are at least 1 and at most `i32::MAX`, and so is every axis of every tensor that follows from them: the
/// product of any two sizes fits in a `u64`, and so does its number of bytes.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// `model_type` of the text part.
    pub text_model_type: String,
    /// `model_type` of the whole model where the text part is nested in one.
    pub outer_model_type: Option<String>,
    /// First of `architectures`, if given.
    pub architecture: Option<String>,
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads of sliding layers, the most that a layer has.
    pub kv_heads: usize,
    /// Head width of sliding layers.
    pub head_dim: usize,
    /// Head width of full layers, which is the width of a cache that all layers share.
    pub global_head_dim: usize,
    /// Per-layer embeddings, in models that have them.
    pub per_layer: Option<PerLayer>,
    /// Vocabulary, V.
    pub vocab: usize,
    /// Bound of the logits: `tanh(x / softcap) * softcap`.
    pub softcap: f64,
    /// Positions that a sliding layer sees, its own included.
    pub sliding_window: usize,
    /// Added to the mean square in every RMSNorm.
    pub rms_eps: f64,
    /// Rotation in sliding layers.
    pub sliding_rope: Rope,
    /// Rotation in full layers.
    pub full_rope: Rope,
    /// Whether the head is the embedding table, unless the checkpoint has a separate head.
    pub tied_head: bool,
    /// Longest context that the model was made for.
    pub max_positions: usize,
    /// Tokens that end a reply, in the configuration's order; empty if it names none.
    pub eos_ids: Vec<u32>,
    /// Token that begins a text.
    pub bos_id: Option<u32>,
    /// Token that pads.
    pub pad_id: Option<u32>,
    /// The layers, in order.
    pub layers: Vec<Layer>,
    /// Layer that writes each slot of a cache that all layers share: in the E-series sliding owners in layer order, then full
    /// owners; in models without per-layer embeddings owners in layer order.
    pub slot_owners: Vec<usize>,
}

impl DecoderConfig {
    /// Reads the bytes of `config.json`.
    ///
    /// # Errors
    /// [`ConfigError::Json`] if they are not a JSON object, [`ConfigError::Field`] for the first field that is missing,
    /// malformed, or asks for something this decoder does not do.
    pub fn from_json(bytes: &[u8]) -> Result<Self, ConfigError> {
        parse::decoder_config(bytes)
    }

    /// Reads `config.json` of a checkpoint.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json); also if the checkpoint has none.
    pub fn read(source: &dyn Source) -> Result<Self, ConfigError> {
        let bytes = source.read_file(CONFIG_FILE)?.ok_or(ConfigError::Absent)?;
        Self::from_json(&bytes)
    }

    /// Number of slots in a cache that all layers share.
    pub fn slots(&self) -> usize {
        self.slot_owners.len()
    }

    /// Slot of a layer in a cache that all layers share; `None` beyond the last layer.
    pub fn slot_of_layer(&self, layer: usize) -> Option<usize> {
        self.layers.get(layer).map(|layer| layer.slot)
    }

    /// The last layer that writes a slot: the layers after it change no cache.
    pub fn last_owner(&self) -> Option<&Layer> {
        self.layers.iter().rfind(|layer| layer.owns_slot())
    }

    /// Rotation in layers of a kind.
    pub fn rope(&self, kind: LayerKind) -> &Rope {
        match kind {
            LayerKind::Sliding => &self.sliding_rope,
            LayerKind::Full => &self.full_rope,
        }
    }

    /// Width of a layer's queries, all heads together.
    pub fn query_width(&self, layer: &Layer) -> usize {
        self.heads * layer.head_dim
    }

    /// Width of a layer's keys, or values, all KV heads together.
    pub fn kv_width(&self, layer: &Layer) -> usize {
        layer.kv_heads * layer.head_dim
    }

    /// The prefix of a text tensor's name: transformers nests the decoder of the whole model in
    /// `model.language_model`, and that of a text-only model (such as `gemma4_text` at the top) in `model`.
    pub fn tensor_prefix(&self) -> &'static str {
        if self.outer_model_type.is_some() { "model.language_model." } else { "model." }
    }
}
