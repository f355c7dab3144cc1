//! Bundles and table folders: what their own files say.

use std::path::Path;

use anyhow::Context;
use packer::manifest::{self, Manifest};
use packer::metadata::{BundleMetadata, MAIN_ASSET};
use serde_json::{Value, json};
use text::small;
use text::terminal::word;

use super::{Lines, Report, Shown, package, tree};
use crate::digits;

pub(super) fn inspect_bundle(path: &Path, shown: &Shown) -> anyhow::Result<Report> {
    let metadata = BundleMetadata::read(path)?;
    let mut lines = Lines::default();
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
    let manifest = manifest_of(path, &mut lines)?;
    let files = tree::add(path, &mut lines)?;
    let mut asset = Value::Null;
    if let Some(main) = metadata.assets.get(MAIN_ASSET) {
        let report = package::inspect(&path.join(main), shown)?;
        lines.add(report.text.trim_end());
        asset = report.json;
    }
    let json = json!({"kind": "bundle", "metadata": metadata, "manifest": manifest, "files": files, "package": asset});
    Ok(Report { text: lines.0, json })
}

pub(super) fn inspect_tables(path: &Path) -> anyhow::Result<Report> {
    let meta = path.join("meta.json");
    let text = small::read(&meta, small::JSON).with_context(|| format!("cannot read {}", meta.display()))?;
    let meta: Value =
        serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", meta.display()))?;
    let mut lines = Lines::default();
    lines.title(format_args!("tables {}", path.display()));
    for (name, value) in meta.as_object().into_iter().flatten() {
        lines.add(format!("  {:<16} {}", word(name), word(&value.to_string())));
    }
    let manifest = manifest_of(path, &mut lines)?;
    let files = tree::add(path, &mut lines)?;
    Ok(Report {
        text: lines.0,
        json: json!({"kind": "tables", "meta": meta, "manifest": manifest, "files": files}),
    })
}

/// What the manifest of a folder says, if it has one.
fn manifest_of(path: &Path, lines: &mut Lines) -> anyhow::Result<Option<Manifest>> {
    if !path.join(manifest::FILE_NAME).exists() {
        lines.field("manifest", "none");
        return Ok(None);
    }
    let manifest = Manifest::read(path)?;
    lines.field("made by", &manifest.tool);
    if let Some(stamp) = &manifest.tables_digest {
        lines.field("stamp", stamp);
    }
    Ok(Some(manifest))
}
