//! A checkpoint for people.

use std::path::Path;

use coreai_bundle::inspect::CheckpointSummary;

use super::Lines;
use crate::digits;

pub(super) fn add(path: &Path, facts: &CheckpointSummary, lines: &mut Lines) {
    lines.title(format_args!("checkpoint {}", path.display()));
    lines.field("model", &facts.model);
    let full = &facts.full_attention_layers;
    lines.field("layers", format!("{}, full attention at {full:?}", facts.layers));
    lines.field("hidden", facts.hidden);
    let (heads, kv_heads) = (facts.heads, facts.kv_heads);
    let (width, global) = (facts.head_dim, facts.global_head_dim);
    let kv_heads = match facts.full_kv_heads {
        Some(full) => format!("{kv_heads} / {full} KV"),
        None => format!("{kv_heads} KV"),
    };
    lines.field("heads", format!("{heads} query, {kv_heads}, width {width} / {global}"));
    if facts.full_kv_heads.is_some() {
        lines.field("values", "keys in layers with full attention");
    }
    let shared = facts.shared_layers;
    lines.field("cache", format!("{} slots; {shared} layers read another layer's", facts.slots));
    for (form, bytes) in &facts.cache_position_bytes {
        lines.field("cache", format!("{form}: {} for 1,000 positions", digits::bytes(1000 * bytes)));
    }
    lines.field("window", facts.sliding_window);
    lines.field("vocabulary", digits::grouped(facts.vocab as u64));
    if let (Some(width), Some(total)) = (facts.ple_width, facts.ple_total) {
        lines.field("per layer", format!("{width} each, {total} in all"));
    }
    lines.field("head", if facts.tied_head { "tied to the embedding" } else { "its own tensor" });
    lines.field("decoder", digits::bytes(facts.decoder_bytes));
    let skipped = digits::bytes(facts.skipped_bytes);
    lines.field("skipped", format!("{} tensors, {skipped}", facts.skipped_tensors));
    if !facts.unused_kv.is_empty() {
        let unused = format!("{} tensors of layers that share a slot", facts.unused_kv.len());
        lines.field("unused KV", unused);
    }
    let head = &facts.head;
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
}
