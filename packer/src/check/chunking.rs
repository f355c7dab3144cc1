//! Rules for how prompts are cut: what the metadata says, and what the graph takes.

use serde_json::Value;

use super::context::{Context, Folder};
use super::facts::{FunctionFacts, GraphFacts};
use super::metadata::{CHUNK_SIZE, CHUNK_THRESHOLD, ChunkKeys, MetadataFacts};
use super::rules;
use crate::metadata::{FILE_NAME, QueryLength, user_data};

/// Compares the keys with the graph, or, for a compiled one, with what the metadata says about it.
pub(super) fn check(
    context: &mut Context<'_>,
    folder: &Folder,
    facts: Option<&GraphFacts>,
    metadata: &MetadataFacts,
) {
    let (said, prefill_said) = (metadata.query_length.as_deref(), metadata.prefill_query_length.as_deref());
    let (main, prefill) = match facts {
        Some(facts) => {
            // A number other than one is a fault of the inputs, and is reported there.
            let is_understood =
                |length: &QueryLength| !matches!(length, QueryLength::Fixed(tokens) if *tokens != 1);
            let main = facts.main().and_then(FunctionFacts::query_length).filter(is_understood);
            let prefill = facts.prefill().and_then(FunctionFacts::query_length);
            if main.is_some() {
                check_stated(context, folder, user_data::QUERY_LENGTH, said, main);
            }
            if prefill.is_some() || facts.prefill().is_none() {
                check_stated(context, folder, user_data::PREFILL_QUERY_LENGTH, prefill_said, prefill);
            }
            (main, prefill)
        }
        None => (said.and_then(parse).or(Some(QueryLength::Fixed(1))), prefill_said.and_then(parse)),
    };
    let (Some(reader), Some(chunk)) = (prefill.or(main), &metadata.chunk) else { return };
    match reader {
        QueryLength::Fixed(tokens) => {
            for (key, value) in [(CHUNK_SIZE, &chunk.size), (CHUNK_THRESHOLD, &chunk.threshold)] {
                if value.as_ref().and_then(Value::as_u64) != Some(tokens) {
                    report(context, folder, key, value.as_ref(), &format!("not {tokens}"));
                }
            }
        }
        QueryLength::Dynamic => check_dynamic(context, folder, chunk),
    }
}

/// The keys for a function that takes any number of tokens. The size has a default in the engine.
fn check_dynamic(context: &mut Context<'_>, folder: &Folder, chunk: &ChunkKeys) {
    if let Some(size) = &chunk.size {
        match size.as_u64() {
            Some(1) => {
                let what = format!("language.{CHUNK_SIZE} is 1");
                context.report(&rules::METADATA_CHUNK_ONE, folder, FILE_NAME, what);
            }
            Some(2..) => {}
            _ => report(context, folder, CHUNK_SIZE, Some(size), "not a positive whole number"),
        }
    }
    if let Some(threshold) = &chunk.threshold {
        report(context, folder, CHUNK_THRESHOLD, Some(threshold), "and must be left out");
    }
}

fn report(context: &mut Context<'_>, folder: &Folder, key: &str, value: Option<&Value>, fault: &str) {
    let found = value.map_or("missing".to_owned(), Value::to_string);
    context.report(
        &rules::METADATA_CHUNKING,
        folder,
        FILE_NAME,
        format!("language.{key} is {found}, {fault}"),
    );
}

/// Compares what the metadata says about a function with the function. Bundles of other tools need not say anything.
fn check_stated(
    context: &mut Context<'_>,
    folder: &Folder,
    key: &str,
    stated: Option<&str>,
    length: Option<QueryLength>,
) {
    let Some(stated) = stated else { return };
    let found = length.map_or("no such function".to_owned(), |length| length.to_string());
    if stated != found {
        let what = format!("user_data.{key} is '{stated}', the graph has: {found}");
        context.report(&rules::METADATA_QUERY_LENGTH, folder, FILE_NAME, what);
    }
}

/// A query length as the metadata writes it.
fn parse(text: &str) -> Option<QueryLength> {
    match text {
        "dynamic" => Some(QueryLength::Dynamic),
        number => number.parse().ok().map(QueryLength::Fixed),
    }
}
