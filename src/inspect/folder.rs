//! Bundles and table folders for people.

use std::path::Path;

use coreai_bundle::inspect::{BundleSummary, TablesSummary};
use coreai_bundle::parts::packer::manifest::Manifest;
use coreai_bundle::parts::text::terminal::word;

use super::{Lines, package, tree};
use crate::digits;

pub(super) fn add_bundle(facts: &BundleSummary, blobs: bool, lines: &mut Lines) {
    let metadata = &facts.metadata;
    lines.title(format_args!("bundle {}", metadata.name));
    lines.field("vocabulary", digits::grouped(metadata.language.vocab_size));
    lines.field("context", digits::grouped(metadata.language.max_context_length));
    lines.field(
        "weights",
        metadata.compression.as_ref().map_or("f16", |compression| compression.scheme.as_str()),
    );
    let origin = metadata.source.as_ref().and_then(|source| source.hf_model_id.as_deref());
    lines.field("source", origin.unwrap_or("a folder of unknown origin"));
    match metadata.tables_digest() {
        Some(stamp) => lines.field("tables", stamp),
        None => lines.field("tables", "no stamp"),
    }
    metadata.user_data.iter().for_each(|(key, value)| lines.field("user data", format!("{key}: {value}")));
    add_manifest(facts.manifest.as_ref(), lines);
    tree::add(&facts.files, lines);
    if let Some(facts) = &facts.package {
        package::add(facts, blobs, lines);
    }
}

pub(super) fn add_tables(path: &Path, facts: &TablesSummary, lines: &mut Lines) {
    lines.title(format_args!("tables {}", path.display()));
    for (name, value) in facts.meta.as_object().into_iter().flatten() {
        lines.add(format!("  {:<16} {}", word(name), word(&value.to_string())));
    }
    add_manifest(facts.manifest.as_ref(), lines);
    tree::add(&facts.files, lines);
}

fn add_manifest(manifest: Option<&Manifest>, lines: &mut Lines) {
    let Some(manifest) = manifest else { return lines.field("manifest", "none") };
    lines.field("made by", &manifest.tool);
    if let Some(stamp) = &manifest.tables_digest {
        lines.field("stamp", stamp);
    }
}
