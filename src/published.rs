//! Outputs that a run had finished before it was cut off. Their manifests say what they are.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use coreai_bundle::bundle::program_path;
use coreai_bundle::parts::packer::manifest::{Manifest, ManifestKind};
use coreai_bundle::parts::packer::verdict::Verdict;
use serde_json::{Value, json};

use crate::{digits, terminal};

/// Prints what was published; returns 1 if a bundle had failed its gate.
pub(crate) fn print(folder: &Path, manifests: &[Manifest]) -> anyhow::Result<ExitCode> {
    if terminal::is_json() {
        terminal::print_json(&done(folder, manifests))?;
    } else {
        let mut out = terminal::out();
        for manifest in manifests {
            let path = folder.join(&manifest.name);
            writeln!(out, "{}  {}, {}", path.display(), kind(manifest), digits::bytes(bytes(manifest)))?;
        }
    }
    let has_failed =
        manifests.iter().any(|manifest| Verdict::of(&manifest.gate).is_some_and(|verdict| !verdict.passed));
    Ok(ExitCode::from(u8::from(has_failed)))
}

fn kind(manifest: &Manifest) -> &str {
    match manifest.kind {
        ManifestKind::Tables => "tables",
        _ => manifest.conversion["variant"].as_str().unwrap_or("bundle"),
    }
}

fn bytes(manifest: &Manifest) -> u64 {
    manifest.files.iter().map(|file| file.size).sum()
}

/// The event that a run prints at its end, as far as it follows from the manifests.
fn done(folder: &Path, manifests: &[Manifest]) -> Value {
    let path = |manifest: &Manifest| folder.join(&manifest.name);
    let is_tables = |manifest: &&Manifest| manifest.kind == ManifestKind::Tables;
    let bundle = |manifest: &Manifest| {
        let program = program_path(&manifest.name);
        let program = manifest.files.iter().find(|file| file.path == program);
        json!({
            "path": path(manifest),
            "variant": kind(manifest),
            "bytes": bytes(manifest),
            "program_sha256": program.map(|file| file.sha256),
            "gate": manifest.gate,
        })
    };
    let tables = manifests.iter().find(is_tables).map(
        |manifest| json!({"path": path(manifest), "bytes": bytes(manifest), "stamp": manifest.tables_digest}),
    );
    let bundles: Vec<&Manifest> = manifests.iter().filter(|manifest| !is_tables(manifest)).collect();
    let conversion = bundles.first().map_or(&Value::Null, |manifest| &manifest.conversion);
    json!({
        "event": "done",
        "bundles": bundles.iter().map(|manifest| bundle(manifest)).collect::<Vec<_>>(),
        "tables": tables,
        "head": conversion["head"],
        "weights": conversion["totals"],
        "report": null,
    })
}
