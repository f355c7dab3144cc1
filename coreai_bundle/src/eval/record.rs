//! Figures in manifests, and from there in pages.

use std::path::Path;

use ::oracle::eval::Share;
use anyhow::{Context, bail};
use packer::manifest::{self, Manifest};
use packer::replace::{FileKind, Outputs};
use report::{Agreement, CurvePart};
use serde_json::{Value, json};

use super::{EvaluatedBundle, Evaluation};
use crate::outputs;

/// Puts the figures into a bundle's manifest.
pub(super) fn write(evaluation: &Evaluation, found: &EvaluatedBundle, bundle: &Path) -> anyhow::Result<()> {
    if let Some(archive) = paths::archive_of(bundle) {
        bail!(
            "--record writes into the bundle's manifest, and {} is an archive: unpack it, or record before packing",
            archive.display()
        );
    }
    let mut manifest = Manifest::read(bundle).with_context(|| {
        format!("the figures of {} cannot be recorded without a manifest", bundle.display())
    })?;
    let mut figures = json!({"text": evaluation.text, "reference": evaluation.reference});
    if let (Value::Object(all), Value::Object(own)) = (&mut figures, serde_json::to_value(&found.figures)?) {
        all.extend(own);
    }
    manifest.evaluation = figures;
    let output = Outputs::new(Vec::<String>::new(), true).file(FileKind::Manifest);
    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    outputs::write_text(&bundle.join(manifest::FILE_NAME), output, &text)
}

/// The figures as a page shows them.
pub(super) fn facts(evaluation: &Evaluation, found: &EvaluatedBundle) -> report::Evaluation {
    let figures = &found.figures;
    let share = |share: Share| Agreement {
        agreed: share.agreed as u64,
        of: share.of as u64,
        low: share.low,
        high: share.high,
    };
    let part = |part: &::oracle::eval::report::CurvePart| CurvePart {
        first: part.first as u64,
        last: part.last as u64,
        positions: part.positions as u64,
        mean_kl: part.mean_kl,
        agreement: part.agreement,
    };
    report::Evaluation {
        bundle: found.bundle.clone(),
        text: evaluation.text.clone(),
        positions: evaluation.reference.positions as u64,
        window: evaluation.reference.window as u64,
        perplexity: figures.perplexity,
        reference_perplexity: evaluation.reference.perplexity,
        mean_kl: figures.mean_kl,
        max_kl: figures.max_kl,
        agreement: share(figures.agreement),
        sure: share(figures.sure),
        curve: figures.curve.iter().map(part).collect(),
    }
}

/// The figures that a manifest has.
pub(crate) fn of_manifest(bundle: &str, evaluation: &Value) -> Option<report::Evaluation> {
    let mut facts = evaluation.as_object()?.clone();
    let reference = facts.remove("reference")?;
    facts.insert("bundle".to_owned(), bundle.into());
    facts.insert("positions".to_owned(), reference["positions"].clone());
    facts.insert("window".to_owned(), reference["window"].clone());
    facts.insert("reference_perplexity".to_owned(), reference["perplexity"].clone());
    serde_json::from_value(Value::Object(facts)).ok()
}
