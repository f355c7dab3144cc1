//! A package or a bundle as a page: what the files alone tell.

use std::path::{Path, PathBuf};

use aimodel::package::{PROGRAM, Package};
use anyhow::{Context, bail};
use packer::TOOL;
use packer::manifest::{self, Manifest};
use packer::metadata::{self, BundleMetadata, MAIN_ASSET};
use packer::replace::Outputs;
use report::{Exactness, Gate, Group, Origin, Recovery, Report, Size, Tensor, layer_of};
use serde_json::Value;

use super::package;
use super::weights::{self, WeightSummary};
use crate::{eval, functions, reporting, runnable};

/// Writes the page of what is at `path`, with the names of weights in `names`, to a file; returns the file. Its name follows that of
/// `path` unless it is given.
///
/// # Errors
/// If this is not a package or bundle, it cannot be read, or the page must not be written.
pub fn write(path: &Path, names: Option<&Path>, output: Option<&Path>) -> anyhow::Result<PathBuf> {
    let output = match output {
        Some(output) => output.to_owned(),
        None => {
            let name = paths::resolve(path)?;
            let name = name.file_name().unwrap_or_default().to_string_lossy().into_owned();
            PathBuf::from(format!("{name}{}", packer::archive::REPORTS[1]))
        }
    };
    let outputs = Outputs::new(std::iter::once(path).chain(names), false);
    let report = read(path, names)?;
    reporting::write_page(&report, &output, &outputs)?;
    Ok(output)
}

fn read(path: &Path, names: Option<&Path>) -> anyhow::Result<Report> {
    // A package has a metadata.json too.
    let is_package = paths::exists(&path.join(PROGRAM));
    let is_bundle = !is_package && paths::exists(&path.join(metadata::FILE_NAME));
    let (directory, chunk) = if is_bundle {
        let metadata = BundleMetadata::read(path)?;
        let main = metadata.assets.get(MAIN_ASSET);
        let main = main.with_context(|| format!("{} names no main asset", path.display()))?;
        (path.join(main), runnable::chunk_of(&metadata))
    } else {
        (path.to_owned(), runnable::DEFAULT_CHUNK.get() as u64)
    };
    if !paths::exists(&directory.join(PROGRAM)) {
        bail!("{}: --html is for packages, and for bundles that hold one", directory.display());
    }
    let mut package = Package::open(&directory)?;
    if let Some(other) = names {
        package::take_names(&mut package, &directory, other)?;
    }
    let mut report = of_package(&package, path, chunk)?;
    if is_bundle && paths::exists(&path.join(manifest::FILE_NAME)) {
        add_manifest(&mut report, &Manifest::read(path)?);
    }
    if report.tensors.iter().all(|tensor| tensor.recovery.is_none()) {
        report.unknown.push("What quantization lost: only a manifest of this tool records it.".to_owned());
    }
    Ok(report)
}

fn of_package(package: &Package, path: &Path, chunk: u64) -> anyhow::Result<Report> {
    let weights = weights::read(package)?;
    let mut sizes: Vec<Size> = weights
        .iter()
        .map(|weight| Size {
            group: Group::of(&weight.name),
            layer: layer_of(&weight.name),
            bytes: weight.bytes,
        })
        .collect();
    let length = package.bytecode.length;
    let known: u64 = sizes.iter().map(|size| size.bytes).sum();
    sizes.push(Size { group: Group::Program, layer: None, bytes: length.saturating_sub(known) });
    Ok(Report {
        name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        tool: TOOL.to_owned(),
        sizes,
        functions: functions::of_package(package, chunk),
        tensors: weights.iter().filter_map(WeightSummary::tensor).collect(),
        unknown: vec!["Which cache slot a layer uses: the graph does not name them.".to_owned()],
        ..Report::default()
    })
}

/// Adds what the run that made a bundle measured.
fn add_manifest(report: &mut Report, manifest: &Manifest) {
    let source = manifest.source.as_ref();
    report.origin = source.and_then(|source| {
        Some(Origin { name: source.repository.clone()?, revision: source.revision.clone() })
    });
    let measured = manifest.conversion.get("tensors").and_then(Value::as_array);
    for figures in measured.into_iter().flatten() {
        let name = figures["name"].as_str().unwrap_or_default();
        if let Some(tensor) = report.tensors.iter_mut().find(|tensor| tensor.name == name) {
            tensor.recovery = recovery(figures, tensor);
        }
    }
    report.gates.extend(gate(&manifest.name, &manifest.gate));
    report.evaluations.extend(eval::of_manifest(&manifest.name, &manifest.evaluation));
}

fn recovery(figures: &Value, tensor: &Tensor) -> Option<Recovery> {
    Some(Recovery {
        blocks: figures["blocks"].as_u64()?,
        blocks_on_lattice: figures["blocks_on_lattice"].as_u64()?,
        blocks_exact: figures["blocks_exact"].as_u64()?,
        weights: tensor.shape.iter().product(),
        weights_exact: figures["weights_exact"].as_u64()?,
        relative_error: figures["relative_error"].as_f64()?,
        worst: None,
    })
}

/// The weights that were counted; nothing if they were not.
fn exactness(parts: &Value) -> Vec<Exactness> {
    let part = |found: &Value| {
        let (weights, weights_exact) = (found["weights"].as_u64()?, found["weights_exact"].as_u64()?);
        Some(Exactness { part: found["part"].as_str()?.to_owned(), weights, weights_exact })
    };
    parts.as_array().into_iter().flatten().filter_map(part).collect()
}

/// The verdict; manifests do not keep positions.
fn gate(bundle: &str, gate: &Value) -> Option<Gate> {
    let (agreed, qualified) = (gate["agreed"].as_u64()?, gate["qualified"].as_u64()?);
    let passed = gate["passed"].as_bool()?;
    let word = if passed { "passed" } else { "FAILED" };
    Some(Gate {
        bundle: bundle.to_owned(),
        passed,
        verdict: format!("gate {word}: {agreed} of {qualified} qualified positions agree"),
        reference: gate["reference"].as_str().unwrap_or("not named").to_owned(),
        causes: Vec::new(),
        exactness: exactness(&gate["exactness"]),
        sequences: Vec::new(),
    })
}
