//! A checkpoint: its shape, its tensors, and whether they lie on a lattice.

use std::collections::BTreeMap;

use checkpoint::Role;
use checkpoint::config::LayerKind;
use checkpoint::source::TensorEntry;
use converter::Model;
use converter::head::HeadDecision;
use converter::plan::GraphPlan;
use converter::recipe::Treatment;
use quantizer::Int4Rule;
use serde::Serialize;

use super::Inspected;
use crate::origin::{Access, Opener};
use crate::source::SourceSpec;

/// What a checkpoint is.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "checkpoint")]
pub struct CheckpointSummary {
    /// Name of the model's architecture.
    #[serde(skip)]
    pub model: String,
    /// Repository that it comes from.
    pub repository: Option<String>,
    /// Commit of the repository.
    pub revision: Option<String>,
    /// Number of layers.
    pub layers: usize,
    /// Those with full attention.
    pub full_attention_layers: Vec<usize>,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// KV heads in layers with full attention, in models whose values are keys there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_kv_heads: Option<usize>,
    /// Width of a head.
    pub head_dim: usize,
    /// Width of a head in layers with full attention.
    pub global_head_dim: usize,
    /// Slots of the cache.
    pub slots: usize,
    /// Bytes of all caches for each position, by the forms that the model can have, in models that have several.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cache_position_bytes: BTreeMap<&'static str, u64>,
    /// Layers that read another layer's slot.
    #[serde(skip)]
    pub shared_layers: usize,
    /// Positions that most layers attend to.
    pub sliding_window: usize,
    /// Tokens.
    pub vocab: usize,
    /// Width of the per-layer rows, if there are some.
    pub ple_width: Option<usize>,
    /// Width of the rows of all layers together.
    #[serde(skip)]
    pub ple_total: Option<usize>,
    /// Whether the head is the embedding.
    pub tied_head: bool,
    /// Bytes of the decoder's tensors.
    pub decoder_bytes: u64,
    /// Number of tensors that are not the decoder's.
    pub skipped_tensors: usize,
    /// Their bytes.
    pub skipped_bytes: u64,
    /// KV tensors of layers that share a slot.
    pub unused_kv: Vec<String>,
    /// What `--head auto` would choose, with what was sampled.
    pub head: HeadDecision,
}

impl CheckpointSummary {
    pub(super) fn read(source: &SourceSpec, access: Access, opener: Opener<'_>) -> anyhow::Result<Inspected> {
        let source = opener.open(source, access)?.source;
        let source = &*source;
        let model = Model::open(source)?;
        let (config, checkpoint) = (&model.config, &model.checkpoint);
        let int4 = Treatment::Int4(Int4Rule::default());
        let head = HeadDecision::new(source, config, checkpoint, int4, None)?;
        let forms = GraphPlan::cache_forms(config).iter().filter(|_| config.per_layer.is_none());
        let values_from_keys = config.layers.iter().find(|layer| layer.values_from_keys);
        let full = config.layers.iter().filter(|layer| layer.kind == LayerKind::Full);
        let used = checkpoint.iter().filter(|(role, _)| *role != Role::Head || !checkpoint.head_is_tied());
        // Sorted: there may be any number of them.
        let is_skipped = |tensor: &&TensorEntry| checkpoint.skipped().binary_search(&tensor.name).is_ok();
        let identity = source.identity();
        Ok(Inspected::Checkpoint(CheckpointSummary {
            model: config.architecture.as_deref().unwrap_or(&config.text_model_type).to_owned(),
            repository: identity.repository.clone(),
            revision: identity.revision.clone(),
            layers: config.layers.len(),
            full_attention_layers: full.map(|layer| layer.index).collect(),
            hidden: config.hidden,
            heads: config.heads,
            kv_heads: config.kv_heads,
            full_kv_heads: values_from_keys.map(|layer| layer.kv_heads),
            head_dim: config.head_dim,
            global_head_dim: config.global_head_dim,
            slots: config.slots(),
            cache_position_bytes: forms
                .map(|form| (form.name(), config.cache_position_bytes(*form)))
                .collect(),
            shared_layers: config.layers.iter().filter(|layer| !layer.owns_slot()).count(),
            sliding_window: config.sliding_window,
            vocab: config.vocab,
            ple_width: config.per_layer.map(|per_layer| per_layer.width),
            ple_total: config.per_layer.map(|per_layer| per_layer.total),
            tied_head: checkpoint.head_is_tied(),
            decoder_bytes: used.map(|(_, tensor)| tensor.byte_len()).sum(),
            skipped_tensors: checkpoint.skipped().len(),
            skipped_bytes: source.tensors().iter().filter(is_skipped).map(TensorEntry::byte_len).sum(),
            unused_kv: checkpoint.ignored_kv().to_vec(),
            head,
        }))
    }
}
