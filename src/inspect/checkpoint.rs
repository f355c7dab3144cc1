//! A checkpoint: its shape, its tensors, and whether they lie on a lattice.

use std::path::Path;

use checkpoint::Role;
use checkpoint::config::LayerKind;
use converter::Model;
use converter::head::HeadDecision;
use converter::quant::Int4Rule;
use converter::recipe::Treatment;
use serde_json::json;

use super::{Lines, Report};
use crate::digits;
use crate::origin::{self, Access};

pub(super) fn inspect(path: &Path, access: &Access) -> anyhow::Result<Report> {
    let source = origin::open(&path.to_string_lossy(), access)?.source;
    let source = &*source;
    let model = Model::open(source)?;
    let config = &model.config;
    let int4 = Treatment::Int4(Int4Rule::default());
    let head = HeadDecision::new(source, config, &model.checkpoint, int4, None)?;
    let full: Vec<usize> =
        config.layers.iter().filter(|layer| layer.kind == LayerKind::Full).map(|layer| layer.index).collect();
    let shared = config.layers.iter().filter(|layer| !layer.owns_slot()).count();
    let used: u64 = model
        .checkpoint
        .iter()
        .filter(|(role, _)| *role != Role::Head || !model.checkpoint.head_is_tied())
        .map(|(_, tensor)| tensor.byte_len())
        .sum();
    let skipped: u64 = source
        .tensors()
        .iter()
        // Sorted: there may be any number of them.
        .filter(|tensor| model.checkpoint.skipped().binary_search(&tensor.name).is_ok())
        .map(checkpoint::source::TensorEntry::byte_len)
        .sum();

    let mut lines = Lines::default();
    lines.title(format_args!("checkpoint {}", path.display()));
    lines.field("model", config.architecture.as_deref().unwrap_or(&config.text_model_type));
    lines.field("layers", format!("{}, full attention at {full:?}", config.layers.len()));
    lines.field("hidden", config.hidden);
    lines.field(
        "heads",
        format!(
            "{} query, {} KV, width {} / {}",
            config.heads, config.kv_heads, config.head_dim, config.global_head_dim
        ),
    );
    lines.field("cache", format!("{} slots; {shared} layers read another layer's", config.slots()));
    lines.field("window", config.sliding_window);
    lines.field("vocabulary", digits::grouped(config.vocab as u64));
    if let Some(per_layer) = config.per_layer {
        lines.field("per layer", format!("{} each, {} in all", per_layer.width, per_layer.total));
    }
    lines.field(
        "head",
        if model.checkpoint.head_is_tied() { "tied to the embedding" } else { "its own tensor" },
    );
    lines.field("decoder", digits::bytes(used));
    lines.field(
        "skipped",
        format!("{} tensors, {}", model.checkpoint.skipped().len(), digits::bytes(skipped)),
    );
    if !model.checkpoint.ignored_kv().is_empty() {
        lines.field(
            "unused KV",
            format!("{} tensors of layers that share a slot", model.checkpoint.ignored_kv().len()),
        );
    }
    for (name, sample) in [("projections", head.body), ("head", head.head)] {
        if let Some(sample) = sample {
            let share = digits::percent(sample.on_lattice, sample.blocks);
            let mut line = format!("{share} of {} sampled blocks of the {name}", sample.blocks);
            if sample.exact < sample.on_lattice {
                let exact = digits::percent(sample.exact, sample.blocks);
                line.push_str(&format!(", {exact} with an f16 scale"));
            }
            lines.field("lattice", line);
        }
    }
    lines.field("--head auto", format!("{}, {}", head.treatment.format(), head.reason));
    let json = json!({
        "kind": "checkpoint",
        "repository": source.identity().repository,
        "revision": source.identity().revision,
        "layers": config.layers.len(),
        "full_attention_layers": full,
        "hidden": config.hidden,
        "heads": config.heads,
        "kv_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "global_head_dim": config.global_head_dim,
        "slots": config.slots(),
        "sliding_window": config.sliding_window,
        "vocab": config.vocab,
        "ple_width": config.per_layer.map(|per_layer| per_layer.width),
        "tied_head": model.checkpoint.head_is_tied(),
        "decoder_bytes": used,
        "skipped_tensors": model.checkpoint.skipped().len(),
        "skipped_bytes": skipped,
        "unused_kv": model.checkpoint.ignored_kv(),
        "head": head,
    });
    Ok(Report { text: lines.0, json })
}
