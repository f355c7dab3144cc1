//! What a tensor is in the decoder, and its name and shape.

use crate::config::{DecoderConfig, Layer};

/// A tensor's place in the decoder. The order is the one in which the model is listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Token embedding `[V, H]`.
    EmbedTokens,
    /// Per-layer embedding of all layers `[V, L * ld]`.
    EmbedTokensPerLayer,
    /// Projection of the embedding to all layers' inputs `[L * ld, H]`.
    PerLayerModelProjection,
    /// Norm of one layer's projected input `[ld]`.
    PerLayerProjectionNorm,
    /// A tensor of one layer, counted from 0.
    Layer(usize, LayerRole),
    /// Norm before the head `[H]`.
    FinalNorm,
    /// The head `[V, H]`; a copy of the embedding where it is tied.
    Head,
}

/// A tensor's place in a layer. `I` is the layer's MLP width, `D` its head width, `Q` and `K` its number of query
/// and of KV heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LayerRole {
    /// Norm before attention `[H]`.
    InputNorm,
    /// Query projection `[Q * D, H]`.
    QProj,
    /// Norm of one query head `[D]`.
    QNorm,
    /// Key projection `[K * D, H]`; only in layers that own a cache slot.
    KProj,
    /// Norm of one key head `[D]`; only in layers that own a cache slot.
    KNorm,
    /// Value projection `[K * D, H]`; only in layers that own a cache slot and do not take values from keys.
    VProj,
    /// Output projection of attention `[H, Q * D]`.
    OProj,
    /// Norm after attention `[H]`.
    PostAttentionNorm,
    /// Norm before the MLP `[H]`.
    PreFeedforwardNorm,
    /// Gate of the MLP `[I, H]`.
    GateProj,
    /// Upward projection of the MLP `[I, H]`.
    UpProj,
    /// Downward projection of the MLP `[H, I]`.
    DownProj,
    /// Norm after the MLP `[H]`.
    PostFeedforwardNorm,
    /// Gate of the per-layer input `[ld, H]`.
    PerLayerInputGate,
    /// Projection of the gated per-layer input `[H, ld]`.
    PerLayerProjection,
    /// Norm after the per-layer input `[H]`.
    PostPerLayerInputNorm,
    /// Factor on the layer's result `[1]`.
    LayerScalar,
}

impl LayerRole {
    /// All of them, in the model's order.
    pub const ALL: [Self; 17] = [
        Self::InputNorm,
        Self::QProj,
        Self::QNorm,
        Self::KProj,
        Self::KNorm,
        Self::VProj,
        Self::OProj,
        Self::PostAttentionNorm,
        Self::PreFeedforwardNorm,
        Self::GateProj,
        Self::UpProj,
        Self::DownProj,
        Self::PostFeedforwardNorm,
        Self::PerLayerInputGate,
        Self::PerLayerProjection,
        Self::PostPerLayerInputNorm,
        Self::LayerScalar,
    ];

    /// Name within the layer.
    pub fn name(self) -> &'static str {
        match self {
            Self::InputNorm => "input_layernorm.weight",
            Self::QProj => "self_attn.q_proj.weight",
            Self::QNorm => "self_attn.q_norm.weight",
            Self::KProj => "self_attn.k_proj.weight",
            Self::KNorm => "self_attn.k_norm.weight",
            Self::VProj => "self_attn.v_proj.weight",
            Self::OProj => "self_attn.o_proj.weight",
            Self::PostAttentionNorm => "post_attention_layernorm.weight",
            Self::PreFeedforwardNorm => "pre_feedforward_layernorm.weight",
            Self::GateProj => "mlp.gate_proj.weight",
            Self::UpProj => "mlp.up_proj.weight",
            Self::DownProj => "mlp.down_proj.weight",
            Self::PostFeedforwardNorm => "post_feedforward_layernorm.weight",
            Self::PerLayerInputGate => "per_layer_input_gate.weight",
            Self::PerLayerProjection => "per_layer_projection.weight",
            Self::PostPerLayerInputNorm => "post_per_layer_input_norm.weight",
            Self::LayerScalar => "layer_scalar",
        }
    }

    /// Whether a layer uses it; those of per-layer embeddings by all layers of models that have them.
    pub fn is_used_by(self, layer: &Layer) -> bool {
        match self {
            Self::KProj | Self::KNorm => layer.owns_slot(),
            Self::VProj => layer.owns_slot() && !layer.values_from_keys,
            _ => true,
        }
    }

    /// Whether only models with per-layer embeddings have it.
    pub fn is_per_layer(self) -> bool {
        matches!(self, Self::PerLayerInputGate | Self::PerLayerProjection | Self::PostPerLayerInputNorm)
    }

    /// Whether it is a matrix that a vector is multiplied by, which may be quantized.
    pub fn is_projection(self) -> bool {
        matches!(
            self,
            Self::QProj
                | Self::KProj
                | Self::VProj
                | Self::OProj
                | Self::GateProj
                | Self::UpProj
                | Self::DownProj
                | Self::PerLayerInputGate
                | Self::PerLayerProjection
        )
    }

    fn shape(self, config: &DecoderConfig, layer: &Layer) -> Vec<usize> {
        let (hidden, intermediate) = (config.hidden, layer.intermediate);
        let ple = config.per_layer.map_or(0, |per_layer| per_layer.width);
        match self {
            Self::InputNorm
            | Self::PostAttentionNorm
            | Self::PreFeedforwardNorm
            | Self::PostFeedforwardNorm
            | Self::PostPerLayerInputNorm => vec![hidden],
            Self::QProj => vec![config.query_width(layer), hidden],
            Self::KProj | Self::VProj => vec![config.kv_width(layer), hidden],
            Self::OProj => vec![hidden, config.query_width(layer)],
            Self::QNorm | Self::KNorm => vec![layer.head_dim],
            Self::GateProj | Self::UpProj => vec![intermediate, hidden],
            Self::DownProj => vec![hidden, intermediate],
            Self::PerLayerInputGate => vec![ple, hidden],
            Self::PerLayerProjection => vec![hidden, ple],
            Self::LayerScalar => vec![1],
        }
    }
}

impl Role {
    /// Every role that the decoder uses, in the model's order. The head is one of them, tied or not.
    pub fn needed(config: &DecoderConfig) -> impl Iterator<Item = Self> {
        let layers = config.layers.iter().flat_map(|layer| {
            LayerRole::ALL
                .into_iter()
                .filter(|role| role.is_used_by(layer))
                .map(|role| Self::Layer(layer.index, role))
        });
        let has_per_layer = config.per_layer.is_some();
        [
            Self::EmbedTokens,
            Self::EmbedTokensPerLayer,
            Self::PerLayerModelProjection,
            Self::PerLayerProjectionNorm,
        ]
        .into_iter()
        .chain(layers)
        .chain([Self::FinalNorm, Self::Head])
        .filter(move |role| has_per_layer || !role.is_per_layer())
    }

    /// Name without the decoder's prefix, such as `layers.5.mlp.down_proj.weight`; the head is `lm_head.weight`.
    pub fn short_name(self) -> String {
        match self {
            Self::EmbedTokens => "embed_tokens.weight".to_owned(),
            Self::EmbedTokensPerLayer => "embed_tokens_per_layer.weight".to_owned(),
            Self::PerLayerModelProjection => "per_layer_model_projection.weight".to_owned(),
            Self::PerLayerProjectionNorm => "per_layer_projection_norm.weight".to_owned(),
            Self::Layer(layer, role) => format!("layers.{layer}.{}", role.name()),
            Self::FinalNorm => "norm.weight".to_owned(),
            Self::Head => "lm_head.weight".to_owned(),
        }
    }

    /// Name in the checkpoint. The head's is outside the decoder, without prefix.
    pub fn name(self, config: &DecoderConfig) -> String {
        match self {
            Self::Head => self.short_name(),
            _ => format!("{}{}", config.tensor_prefix(), self.short_name()),
        }
    }

    /// Whether only models with per-layer embeddings have it.
    pub fn is_per_layer(self) -> bool {
        match self {
            Self::EmbedTokensPerLayer | Self::PerLayerModelProjection | Self::PerLayerProjectionNorm => true,
            Self::Layer(_, role) => role.is_per_layer(),
            Self::EmbedTokens | Self::FinalNorm | Self::Head => false,
        }
    }

    /// Shape of the tensor according to the configuration; empty for a layer that does not exist.
    pub fn shape(self, config: &DecoderConfig) -> Vec<usize> {
        let (width, row) = config.per_layer.map_or((0, 0), |per_layer| (per_layer.width, per_layer.total));
        match self {
            Self::EmbedTokens | Self::Head => vec![config.vocab, config.hidden],
            Self::EmbedTokensPerLayer => vec![config.vocab, row],
            Self::PerLayerModelProjection => vec![row, config.hidden],
            Self::PerLayerProjectionNorm => vec![width],
            Self::FinalNorm => vec![config.hidden],
            Self::Layer(index, role) => {
                config.layers.get(index).map(|layer| role.shape(config, layer)).unwrap_or_default()
            }
        }
    }

    /// Whether it is a matrix that may be quantized: every projection and the head, but not the embeddings.
    pub fn is_projection(self) -> bool {
        match self {
            Self::PerLayerModelProjection | Self::Head => true,
            Self::Layer(_, role) => role.is_projection(),
            Self::EmbedTokens
            | Self::EmbedTokensPerLayer
            | Self::PerLayerProjectionNorm
            | Self::FinalNorm => false,
        }
    }
}

/// Modules of keys and values that layers without a slot may carry but never use, by full name. transformers drops
/// the same four when it loads a checkpoint.
pub(super) fn dead_kv_prefixes(config: &DecoderConfig) -> impl Iterator<Item = String> {
    let prefix = config.tensor_prefix();
    config.layers.iter().filter(|layer| !layer.owns_slot()).flat_map(move |layer| {
        ["k_proj", "v_proj", "k_norm", "v_norm"]
            .map(|module| format!("{prefix}layers.{}.self_attn.{module}", layer.index))
    })
}

/// Value projections, by full name, of layers whose values are the result of the key projection.
pub(super) fn contradicting_values(config: &DecoderConfig) -> impl Iterator<Item = String> {
    let layers = config.layers.iter().filter(|layer| layer.values_from_keys);
    layers.map(|layer| Role::Layer(layer.index, LayerRole::VProj).name(config))
}
