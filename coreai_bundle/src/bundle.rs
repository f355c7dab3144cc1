//! Bundles from what the converter wrote: metadata, tokenizer, manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ::oracle::gate::GateReport;
use aimodel::package::{PROGRAM, Package};
use checkpoint::config::CONFIG_FILE;
use checkpoint::source::{Source, TensorChecksums};
use converter::decoder::{Functions, Sequence, Variant};
use converter::plan::GraphPlan;
use converter::recipe::{EmbeddingForm, Override, PerLayerForm, Recipe, Treatment};
use converter::statistics::WeightStatistics;
use converter::{Model, Plan};
use output::{Digest, StagedDirectory, WrittenFile};
use packer::TOOL;
use packer::bundle::BundleParts;
use packer::manifest::{FUNCTIONS, FileRecord, Provenance, SourceFile, SourceRecord, WeightsCheck};
use packer::metadata::{
    BundleMetadata, EngineInputs, LanguageBundle, PromptReading, QueryLength, SourceMetadata,
};
use packer::template::Renderer;
use packer::tokenizer::{self, PreparedTokenizer, Purpose};
use report::FunctionWork;
use serde::Serialize;
use serde_json::{Value, json};

use crate::functions;

/// What goes into a bundle besides its tokenizer.
pub(crate) struct BundleInputs<'a> {
    pub(crate) name: &'a str,
    pub(crate) graph: &'a GraphPlan,
    pub(crate) package: &'a WrittenFile,
    pub(crate) model: &'a Model<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) statistics: &'a WeightStatistics,
    /// Of the tensors that were read.
    pub(crate) checksums: &'a TensorChecksums,
    pub(crate) max_context: u64,
    /// Tokens of a prompt that the engine should read at a time.
    pub(crate) prompt_chunk: u64,
    /// Stamp of the tables that belong to it.
    pub(crate) stamp: Option<Digest>,
    /// The gate's report, if it was run.
    pub(crate) gate: Option<GateReport>,
}

/// A bundle that is complete.
#[derive(Debug, Serialize)]
pub struct FinishedBundle {
    /// Its folder.
    pub path: PathBuf,
    /// Variant of its graph.
    pub variant: &'static str,
    /// Bytes of all its files.
    pub bytes: u64,
    /// SHA-256 of its program.
    pub program_sha256: String,
    /// What its functions cost for each token.
    pub functions: Vec<FunctionWork>,
    /// What was fixed in its tokenizer.
    pub repairs: Vec<String>,
    /// The gate's report, if it was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<GateReport>,
}

impl FinishedBundle {
    /// Its name, which is its folder's.
    pub(crate) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// File name of a bundle's package.
pub(crate) fn asset_name(bundle: &str) -> String {
    format!("{bundle}.aimodel")
}

/// Path of a bundle's program.
pub fn program_path(bundle: &str) -> String {
    format!("{}/{PROGRAM}", asset_name(bundle))
}

/// The checkpoint's tokenizer, repaired.
pub(crate) fn tokenizer(
    model: &Model<'_>,
    allow_no_template: bool,
    render: Renderer<'_>,
) -> anyhow::Result<PreparedTokenizer> {
    let mut files = Vec::new();
    for name in tokenizer::SOURCE_FILES {
        if let Some(bytes) = model.source.read_file(name)? {
            files.push((name.to_owned(), bytes));
        }
    }
    let vocab_size = model.config.vocab as u64;
    let purpose = Purpose { vocab_size, allow_no_template, render };
    Ok(tokenizer::prepare(files, &purpose)?)
}

/// Completes the bundle in `folder`, which holds its package.
pub(crate) fn assemble(
    folder: &StagedDirectory,
    facts: &BundleInputs<'_>,
    tokenizer: &PreparedTokenizer,
) -> anyhow::Result<FinishedBundle> {
    let asset = asset_name(facts.name);
    let package = Package::open(&folder.path().join(&asset))?;
    let functions = functions::of_package(&package, facts.prompt_chunk);
    let program = FileRecord {
        path: program_path(facts.name),
        size: facts.package.bytes,
        sha256: facts.package.digest,
    };
    let parts = BundleParts {
        metadata: metadata(facts, &asset, tokenizer),
        tokenizer: tokenizer.clone(),
        provenance: Provenance {
            tool: TOOL.to_owned(),
            source: Some(source_record(facts.model.source)?),
            conversion: conversion(facts, &functions),
            checksums: in_words(facts.checksums),
            gate: serde_json::to_value(&facts.gate)?,
            tables_digest: facts.stamp,
            compiled_from: None,
            recipe: Value::Null,
        },
        known_files: vec![program],
    };
    let manifest = packer::bundle::assemble(folder, parts)?;
    Ok(FinishedBundle {
        path: folder.target().to_owned(),
        variant: facts.graph.variant.name(),
        bytes: manifest.files.iter().map(|file| file.size).sum(),
        program_sha256: facts.package.digest.to_string(),
        functions,
        repairs: tokenizer.repairs.iter().map(ToString::to_string).collect(),
        gate: facts.gate.clone(),
    })
}

fn metadata(facts: &BundleInputs<'_>, asset: &str, tokenizer: &PreparedTokenizer) -> BundleMetadata {
    let identity = facts.model.source.identity();
    let scheme = scheme(&facts.graph.recipe);
    let mut metadata = BundleMetadata::language_bundle(&LanguageBundle {
        name: facts.name,
        asset,
        tokenizer: identity.repository.as_deref().unwrap_or_default(),
        vocab_size: facts.model.config.vocab as u64,
        max_context_length: facts.max_context,
        eos_token_ids: &tokenizer.eos_token_ids,
        engine_inputs: match facts.graph.variant {
            Variant::Provider => EngineInputs::PerToken,
            Variant::Table => EngineInputs::Static,
            Variant::Stock => EngineInputs::None,
        },
        prompts: prompt_reading(facts.graph.functions, facts.prompt_chunk),
        source: SourceMetadata {
            model_definition: Some(TOOL.to_owned()),
            hf_model_id: identity.repository.clone(),
            hf_revision: identity.revision.clone(),
            weights: Some(weights_in_words(&facts.graph.recipe)),
            ..SourceMetadata::default()
        },
        scheme: scheme.as_deref(),
        tool: TOOL,
    });
    metadata.set_cache_pairs(facts.model.config.cache_pairs(facts.graph.caches).len());
    metadata
}

fn prompt_reading(functions: Functions, chunk: u64) -> PromptReading {
    let length = |sequence| match sequence {
        Sequence::One => QueryLength::Fixed(1),
        Sequence::Fixed(tokens) => QueryLength::Fixed(tokens.into()),
        Sequence::Dynamic => QueryLength::Dynamic,
    };
    let prefill = functions.prefill.map(|prefill| length(prefill.sequence()));
    PromptReading { main: length(functions.main), prefill, chunk }
}

/// Name of the weight scheme; none for half precision throughout.
fn scheme(recipe: &Recipe) -> Option<String> {
    let one = |treatment| match treatment {
        Treatment::Int4(rule) => format!("int4-block32-{}", rule.name()),
        Treatment::Int8 => "int8-block32-absmax".to_owned(),
        Treatment::F16 => "f16".to_owned(),
    };
    let overrides: String = recipe
        .overrides
        .iter()
        .map(|given| format!(", {} {}", given.tensors, one(given.treatment)))
        .collect();
    match (recipe.projections, recipe.head) {
        (Treatment::F16, Treatment::F16) if overrides.is_empty() => None,
        (projections, head) if projections == head => Some(one(projections) + &overrides),
        (projections, head) => Some(format!("{}, head {}{overrides}", one(projections), one(head))),
    }
}

fn weights_in_words(recipe: &Recipe) -> String {
    let head = recipe.head.format();
    let mut projections = recipe.projections.format().to_owned();
    if !recipe.overrides.is_empty() {
        let of = |given: &Override| format!("{} {}", given.tensors, given.treatment.format());
        let overrides: Vec<String> = recipe.overrides.iter().map(of).collect();
        projections = format!("{projections} ({})", overrides.join(", "));
    }
    let tables = match (recipe.embedding, recipe.per_layer) {
        (EmbeddingForm::F16, PerLayerForm::Int8) => {
            return format!("{projections} projections, {head} head, f16 embedding and norms");
        }
        (EmbeddingForm::F16, PerLayerForm::Int4(_)) => "head, f16 embedding, int4 per-layer table",
        (_, PerLayerForm::Int8) => "head and embedding",
        (_, PerLayerForm::Int4(_)) => "head and embedding, int4 per-layer table",
    };
    format!("{projections} projections, {head} {tables}, f16 norms")
}

/// Checksums as manifests hold them.
pub(crate) fn in_words(checksums: &TensorChecksums) -> BTreeMap<String, String> {
    checksums.iter().map(|(tensor, checksum)| (tensor.clone(), checksum.to_string())).collect()
}

/// Where the weights come from. Files with weights are read in part, so they are listed without a digest.
pub(crate) fn source_record(source: &dyn Source) -> anyhow::Result<SourceRecord> {
    let identity = source.identity();
    let mut sizes: Vec<(String, u64)> = Vec::new();
    for tensor in source.tensors() {
        match sizes.iter_mut().find(|(file, _)| **file == *tensor.file) {
            Some((_, end)) => *end = (*end).max(tensor.range.end),
            None => sizes.push((tensor.file.to_string(), tensor.range.end)),
        }
    }
    let mut files: Vec<SourceFile> =
        sizes.into_iter().map(|(path, size)| SourceFile { path, size, sha256: None }).collect();
    for name in std::iter::once(CONFIG_FILE).chain(tokenizer::SOURCE_FILES) {
        if let Some(bytes) = source.read_file(name)? {
            let (path, size) = (name.to_owned(), bytes.len() as u64);
            files.push(SourceFile { path, size, sha256: Some(Digest::of_bytes(&bytes)) });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let (repository, revision) = (identity.repository.clone(), identity.revision.clone());
    let weights = identity.verified.map(WeightsCheck::of);
    Ok(SourceRecord { repository, revision, weights, files })
}

/// The rule and its measurements, for the manifest.
///
/// Functions are listed if a call takes several tokens.
fn conversion(facts: &BundleInputs<'_>, functions: &[FunctionWork]) -> Value {
    let tensors: Vec<Value> = facts
        .statistics
        .tensors
        .iter()
        .map(|tensor| {
            json!({
                "name": tensor.name,
                "format": tensor.treatment.format(),
                "shape": tensor.shape,
                "blocks": tensor.statistics.blocks,
                "blocks_on_lattice": tensor.statistics.blocks_on_lattice,
                "blocks_exact": tensor.statistics.blocks_exact,
                "weights_exact": tensor.statistics.weights_exact,
                "relative_error": tensor.statistics.relative_error(),
            })
        })
        .collect();
    let mut conversion = json!({
        "variant": facts.graph.variant.name(),
        "weights": facts.graph.recipe.projections.format(),
        "rule": facts.graph.recipe.rule().name(),
        "head": facts.plan.head,
        "totals": facts.statistics.totals(),
        "tensors": tensors,
    });
    if functions.iter().any(|function| function.tokens > 1) {
        conversion[FUNCTIONS] = json!(functions);
    }
    conversion
}
