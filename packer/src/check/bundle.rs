//! Rules of a bundle folder: how its parts fit together.

use aimodel::package::PROGRAM;

use super::context::{Context, Folder};
use super::facts::{GraphFacts, WeightFacts};
use super::files::Contents;
use super::graph::{PLE_TABLE, PLE_TOKENS};
use super::metadata::MetadataFacts;
use super::tables::Needed;
use super::{chunking, compiled, files, graph, metadata, package, rules, tables, tokenizer};
use crate::FileError;
use crate::contents::{COMPILED, is_asset};
use crate::manifest;
use crate::metadata::{EngineInputs, FILE_NAME};
use crate::tokenizer::FOLDER as TOKENIZER_FOLDER;

/// From this size on, an int4 graph must be compiled ahead of time for the iPhone.
const LARGE: u64 = 2_000_000_000;

/// What a release needs to know of a bundle in it.
pub(super) struct BundleSummary {
    /// The tables that the bundle needs, if it needs any.
    pub(super) tables: Option<Needed>,
    pub(super) is_compiled: bool,
}

/// Checks a bundle that is not part of a release: its tables are looked for beside it.
pub(super) fn check_alone(context: &mut Context<'_>, folder: &Folder) -> Result<(), FileError> {
    let summary = check(context, folder)?;
    if let Some(needed) = summary.tables {
        tables::check_beside(context, folder, &needed);
    }
    Ok(())
}

/// Checks a bundle without its tables.
pub(super) fn check(context: &mut Context<'_>, folder: &Folder) -> Result<BundleSummary, FileError> {
    let metadata = metadata::check(context, folder);
    let assets = metadata.as_ref().map(|metadata| metadata.assets.clone()).unwrap_or_default();
    let contents = files::check(context, folder, &|path| expects(path, &assets))?;
    if contents.manifest.is_none() && !paths::exists(&folder.path.join(manifest::FILE_NAME)) {
        let what = "the bundle has no manifest";
        context.report(&rules::MANIFEST_MISSING, folder, manifest::FILE_NAME, what);
    }
    check_gate(context, folder, &contents);
    let metadata = metadata.unwrap_or_default();
    let mut summary = BundleSummary { tables: None, is_compiled: false };
    if let Some(asset) = &metadata.main_asset {
        summary.is_compiled = asset.trim_end_matches('/').ends_with(COMPILED);
        let facts = check_asset(context, folder, asset, &metadata, &contents)?;
        let needed = needed_tables(facts.as_ref(), &metadata);
        summary.tables = needed.map(|needed| Needed { manifest: contents.manifest.clone(), ..needed });
        check_engine(context, folder, facts.as_ref(), &metadata);
        chunking::check(context, folder, facts.as_ref(), &metadata);
        if let Some(facts) = &facts {
            check_against_graph(context, folder, asset, facts, &metadata);
        }
    }
    if metadata.embeds_tokenizer || paths::is_folder(&folder.path.join(TOKENIZER_FOLDER)) {
        tokenizer::check(context, folder, &metadata);
    }
    Ok(summary)
}

/// Reports a bundle that failed its gate when it was made.
fn check_gate(context: &mut Context<'_>, folder: &Folder, contents: &Contents) {
    let Some(gate) = contents.manifest.as_ref().map(|manifest| &manifest.gate) else { return };
    if gate["passed"] == false {
        let what = format!(
            "the gate failed: {} of {} positions agree; \"gate\" in the manifest has the reasons",
            gate["agreed"], gate["qualified"]
        );
        context.report(&rules::MANIFEST_GATE, folder, manifest::FILE_NAME, what);
    }
}

/// Whether a file belongs in a bundle that has no manifest.
fn expects(path: &str, assets: &[String]) -> bool {
    if path == FILE_NAME || path.ends_with("_ple.safetensors") {
        return true;
    }
    match path.split_once('/') {
        Some((TOKENIZER_FOLDER, name)) => tokenizer::expects(name),
        Some((asset, inner)) if assets.iter().any(|known| known.trim_end_matches('/') == asset) => {
            asset.ends_with(COMPILED) || package::expects(inner)
        }
        _ => false,
    }
}

/// Checks the main asset; returns the facts of a portable graph.
fn check_asset(
    context: &mut Context<'_>,
    folder: &Folder,
    asset: &str,
    metadata: &MetadataFacts,
    contents: &Contents,
) -> Result<Option<GraphFacts>, FileError> {
    let asset = asset.trim_end_matches('/');
    let part = folder.part(asset);
    if !paths::exists(&part.path) {
        let others: Vec<String> = assets_in(folder);
        let found = if others.is_empty() { "no graph package".to_owned() } else { others.join(", ") };
        let what = format!("assets.main is '{asset}', the bundle holds {found}");
        context.report(&rules::METADATA_ASSET_FILE, folder, FILE_NAME, what);
        return Ok(None);
    }
    if !paths::is_folder(&part.path) || !is_asset(asset) {
        let what = format!("assets.main is '{asset}', which is not an .aimodel or .aimodelc folder");
        context.report(&rules::METADATA_ASSET_KIND, folder, FILE_NAME, what);
        return Ok(None);
    }
    if asset.ends_with(COMPILED) {
        compiled::check(context, folder, asset, metadata, contents)?;
        return Ok(None);
    }
    let facts = package::check(context, &part)?;
    if let Some(facts) = &facts {
        graph::check(context, &part, facts);
        let size = contents.files.get(&format!("{asset}/{PROGRAM}")).copied().unwrap_or_default();
        if size >= LARGE && facts.weights.iter().any(|weight| weight.element == "si4") {
            let what = format!("an int4 graph of {:.2} GB", size as f64 / 1e9);
            context.report(&rules::GRAPH_LARGE, folder, asset, what);
        }
    }
    Ok(facts)
}

fn assets_in(folder: &Folder) -> Vec<String> {
    let entries = paths::list(&folder.path).into_iter().flatten();
    entries.map(|entry| entry.name.to_string_lossy().into_owned()).filter(|name| is_asset(name)).collect()
}

/// Compares the metadata with the graph.
fn check_against_graph(
    context: &mut Context<'_>,
    folder: &Folder,
    asset: &str,
    facts: &GraphFacts,
    metadata: &MetadataFacts,
) {
    let logits = facts.main().and_then(|main| main.output("logits"));
    let vocabulary = logits.and_then(|logits| logits.shape.last().copied().flatten());
    if let (Some(graph), Some(stated)) = (vocabulary, metadata.vocab_size)
        && graph != stated
    {
        let what = format!("language.vocab_size is {stated}, the logits of {asset} have {graph} entries");
        context.report(&rules::GRAPH_VOCABULARY, folder, FILE_NAME, what);
    }
    if let Some(what) = compression_fault(&facts.weights, metadata.scheme.as_deref()) {
        context.report(&rules::METADATA_COMPRESSION, folder, FILE_NAME, what);
    }
}

/// What is wrong with the compression that the metadata states.
fn compression_fault(weights: &[WeightFacts], scheme: Option<&str>) -> Option<String> {
    let has = |element: &str| weights.iter().any(|weight| weight.element == element);
    match scheme {
        None if weights.is_empty() => None,
        None => Some(format!("compression names no scheme, and {} weights are quantized", weights.len())),
        Some(scheme) if weights.is_empty() => {
            Some(format!("compression is '{scheme}', and no weight is quantized"))
        }
        Some(scheme) => {
            let untrue = |bits: &str, element: &str| scheme.contains(bits) && !has(element);
            (untrue("int4", "si4") || untrue("int8", "si8"))
                .then(|| format!("compression is '{scheme}', and no weight is stored so"))
        }
    }
}

/// Compares what `user_data` says with what the graph needs.
fn check_engine(
    context: &mut Context<'_>,
    folder: &Folder,
    facts: Option<&GraphFacts>,
    metadata: &MetadataFacts,
) {
    let Some(stated) = &metadata.engine_inputs else {
        let what = format!("user_data.{} is missing", crate::metadata::user_data::ENGINE_INPUTS);
        context.report(&rules::METADATA_ENGINE_MISSING, folder, FILE_NAME, what);
        return;
    };
    let Some(main) = facts.and_then(GraphFacts::main) else { return };
    let required = EngineInputs::of_inputs(main.inputs.iter().map(|input| input.name.as_str())).as_str();
    if stated != required {
        let what = format!("user_data.engine_inputs is '{stated}', the graph needs '{required}'");
        context.report(&rules::METADATA_ENGINE, folder, FILE_NAME, what);
    }
    let (pairs, stated) = ((main.states.len() / 2).to_string(), metadata.cache_pairs.as_deref());
    if stated.is_some_and(|stated| stated != pairs) {
        let stated = stated.unwrap_or_default();
        let what = format!("user_data.cache_pairs is '{stated}', the graph has {pairs} pairs of caches");
        context.report(&rules::METADATA_CACHE_PAIRS, folder, FILE_NAME, what);
    }
}

/// The tables that a bundle needs, according to its graph, or to the metadata for a compiled one.
fn needed_tables(facts: Option<&GraphFacts>, metadata: &MetadataFacts) -> Option<Needed> {
    let digest = metadata.tables_digest;
    let Some(main) = facts.and_then(GraphFacts::main) else {
        let stated = metadata.engine_inputs.as_deref();
        let needs = stated.is_some_and(|stated| stated != EngineInputs::None.as_str());
        return needs.then_some(Needed { digest, rows: metadata.vocab_size, width: None, manifest: None });
    };
    let extent = |name: &str, axis: usize| main.input(name)?.shape.get(axis).copied().flatten();
    if main.input(PLE_TOKENS).is_some() {
        let layers_by_width = extent(PLE_TOKENS, 2).zip(extent(PLE_TOKENS, 3));
        let width = layers_by_width.and_then(|(layers, width)| layers.checked_mul(width));
        Some(Needed { digest, rows: metadata.vocab_size, width, manifest: None })
    } else if main.input(PLE_TABLE).is_some() {
        Some(Needed { digest, rows: extent(PLE_TABLE, 0), width: extent(PLE_TABLE, 1), manifest: None })
    } else {
        None
    }
}
