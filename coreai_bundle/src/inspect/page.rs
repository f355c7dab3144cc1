//! A package or a bundle as a page: what the files alone tell.

use std::path::{Path, PathBuf};

use ::oracle::text::Text;
use aimodel::package::{PROGRAM, Package};
use anyhow::{Context, bail};
use packer::TOOL;
use packer::manifest::{self, FileRecord, Manifest, SourceRecord};
use packer::metadata::{self, BundleMetadata, MAIN_ASSET};
use packer::replace::Outputs;
use packer::tokenizer;
use report::{Conversion, Digest, Group, Origin, Recovery, Report, Size, Tensor, layer_of};
use serde_json::Value;

use super::package;
use super::weights::{self, WeightSummary};
use crate::origin::folder_name;
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
        reporting::gate::name_tokens(&mut report.gates, || Text::open(&path.join(tokenizer::FOLDER)).ok());
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
        name: folder_name(path)?,
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
    report.made_by = Some(manifest.tool.clone());
    report.origin = manifest.source.as_ref().and_then(origin);
    report.conversion = conversion(&manifest.conversion);
    report.digests = digests(manifest);
    let measured = manifest.conversion.get("tensors").and_then(Value::as_array);
    for figures in measured.into_iter().flatten() {
        let name = figures["name"].as_str().unwrap_or_default();
        if let Some(tensor) = report.tensors.iter_mut().find(|tensor| tensor.name == name) {
            tensor.recovery = recovery(figures, tensor);
        }
    }
    report.gates.extend(reporting::gate::of_record(&manifest.name, &manifest.gate));
    report.evaluations.extend(eval::of_manifest(&manifest.name, &manifest.evaluation));
}

/// Nothing without a repository: a manifest does not name folders.
fn origin(source: &SourceRecord) -> Option<Origin> {
    // Files with weights are read in part, so they are listed without a digest.
    let weights = source.files.iter().filter(|file| file.sha256.is_none()).map(|file| file.size);
    Some(Origin {
        name: source.repository.clone()?,
        revision: source.revision.clone(),
        weight_bytes: Some(weights.fold(0, u64::saturating_add)),
    })
}

fn conversion(record: &Value) -> Option<Conversion> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Conversion {
        variants: vec![text(&record["variant"])?],
        rule: text(&record["rule"])?,
        weights: text(&record["weights"])?,
        head: text(&record["head"]["format"])?,
        head_reason: text(&record["head"]["reason"])?,
        resumed: false,
    })
}

/// The digest of the program, and the stamp of the tables that belong to it.
fn digests(manifest: &Manifest) -> Vec<Digest> {
    let is_program = |path: &str| path.rsplit('/').next() == Some(PROGRAM);
    let programs = manifest.files.iter().filter(|file| is_program(&file.path));
    let program = |file: &FileRecord| Digest {
        of: format!("program of {}", manifest.name),
        sha256: file.sha256.to_string(),
    };
    let stamp = manifest
        .tables_digest
        .map(|stamp| Digest { of: "stamp of the tables".to_owned(), sha256: stamp.to_string() });
    programs.map(program).chain(stamp).collect()
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
