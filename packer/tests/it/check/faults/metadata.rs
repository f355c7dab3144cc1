//! Faults of `metadata.json`.

use serde_json::json;

use super::faults;
use crate::check::fixture::{PROVIDER, Release};

faults! {
    |release: &Release| release.bundle(PROVIDER);

    missing_file: |b| b.remove("metadata.json") => ["metadata.missing"];
    cut_off_text: |b| b.write("metadata.json", "{\"metadata_version\": \"0.2\",") => ["metadata.not-json"];
    list_instead_of_object: |b| b.write("metadata.json", "[]") => ["metadata.not-json"];
    other_version: |b| b.metadata(|m| m["metadata_version"] = json!("0.1")) => ["metadata.version"];
    version_as_a_number: |b| b.metadata(|m| m["metadata_version"] = json!(0.2)) => ["metadata.version"];
    other_kind: |b| b.metadata(|m| m["kind"] = json!("diffusion")) => ["metadata.kind"];
    no_name: |b| b.metadata(|m| m["name"] = json!(null)) => ["metadata.name"];
    another_name_than_the_folder: |b| b.metadata(|m| m["name"] = json!("gemma")) => ["metadata.name-differs"];

    no_assets: |b| b.metadata(|m| { m.as_object_mut().unwrap().remove("assets"); }) => ["metadata.assets"];
    assets_as_a_list: |b| b.metadata(|m| m["assets"] = json!(["x.aimodel"])) => ["metadata.assets"];
    asset_that_is_no_string: |b| b.metadata(|m| m["assets"]["extra"] = json!(3)) => ["metadata.asset-value"];
    no_main_asset: |b| b.metadata(|m| m["assets"] = json!({})) => ["metadata.main-asset"];
    main_asset_that_is_missing: |b| b.metadata(|m| m["assets"]["main"] = json!("other.aimodel")) =>
        ["metadata.asset-file"];
    main_asset_with_the_compiled_suffix: |b| {
        let compiled = format!("{}c", b.asset());
        b.metadata(|m| m["assets"]["main"] = json!(compiled));
    } => ["metadata.asset-file"];
    main_asset_outside_of_the_bundle: |b| b.metadata(|m| m["assets"]["main"] = json!("../x/x.aimodel")) =>
        ["metadata.asset-place"];
    main_asset_with_an_absolute_path: |b| b.metadata(|m| m["assets"]["main"] = json!("/x.aimodel")) =>
        ["metadata.asset-place"];
    main_asset_that_is_the_program: |b| {
        let program = b.in_asset("main.mlirb");
        b.metadata(|m| m["assets"]["main"] = json!(program));
    } => ["metadata.asset-kind"];
    main_asset_without_a_suffix: |b| {
        b.rename(&b.asset(), "graph");
        b.metadata(|m| m["assets"]["main"] = json!("graph"));
    } => ["metadata.asset-kind"];

    no_language: |b| b.metadata(|m| m["language"] = json!(null)) => ["metadata.language"];
    null_vocab_size: |b| b.language(|l| l["vocab_size"] = json!(null)) => ["metadata.vocab-size"];
    vocab_size_as_text: |b| b.language(|l| l["vocab_size"] = json!("512")) => ["metadata.vocab-size"];
    vocab_size_of_zero: |b| b.language(|l| l["vocab_size"] = json!(0)) => ["metadata.vocab-size"];
    fractional_max_context: |b| b.language(|l| l["max_context_length"] = json!(4096.5)) => ["metadata.max-context"];
    max_context_between_the_steps: |b| b.language(|l| l["max_context_length"] = json!(5000)) =>
        ["metadata.max-context-step"];
    max_context_below_the_first_step: |b| b.language(|l| l["max_context_length"] = json!(128)) =>
        ["metadata.max-context-step"];
    no_tokenizer_id: |b| b.language(|l| l["tokenizer"] = json!(null)) => ["metadata.tokenizer"];
    tokenizer_id_that_is_a_path: |b| b.language(|l| l["tokenizer"] = json!("/Users/me/gemma")) =>
        ["metadata.tokenizer-id"];
    tokenizer_not_embedded: |b| b.language(|l| l["embedded_tokenizer"] = json!(false)) =>
        ["metadata.embedded-tokenizer"];
    no_function_map: |b| b.language(|l| { l.as_object_mut().unwrap().remove("function_map"); }) =>
        ["metadata.function-map-missing"];
    function_map_without_main: |b| b.language(|l| l["function_map"] = json!({"main": ["decode"]})) =>
        ["metadata.function-map"];
    chunked_prefill: |b| b.language(|l| l["prefill_chunk_size"] = json!(128)) => ["metadata.prefill-chunk"];
    chunking_left_to_the_engine: |b| b.language(|l| {
        l.as_object_mut().unwrap().retain(|key, _| !key.starts_with("prefill"));
    }) => ["metadata.prefill-chunk", "metadata.prefill-chunk"];
    no_eos_token_ids: |b| b.language(|l| { l.as_object_mut().unwrap().remove("eos_token_ids"); }) =>
        ["metadata.eos-token-ids-missing"];
    eos_token_ids_without_the_turn_end: |b| b.language(|l| l["eos_token_ids"] = json!([1])) =>
        ["metadata.eos-token-ids"];
    eos_token_ids_as_text: |b| b.language(|l| l["eos_token_ids"] = json!(["<turn|>"])) =>
        ["metadata.eos-token-ids"];

    user_data_with_a_number: |b| b.metadata(|m| m["user_data"]["query_length"] = json!(1)) =>
        ["metadata.user-data"];
    user_data_as_a_list: |b| b.metadata(|m| m["user_data"] = json!([])) =>
        ["metadata.user-data", "metadata.engine-inputs-missing", "tables.stamp-missing"];
    other_engine_inputs: |b| b.metadata(|m| m["user_data"]["engine_inputs"] = json!("static")) =>
        ["metadata.engine-inputs"];
    other_cache_pairs: |b| b.metadata(|m| m["user_data"]["cache_pairs"] = json!("2")) => ["metadata.cache-pairs"];
    no_engine_inputs: |b| b.metadata(|m| { m["user_data"].as_object_mut().unwrap().remove("engine_inputs"); }) =>
        ["metadata.engine-inputs-missing"];

    no_source: |b| b.metadata(|m| { m.as_object_mut().unwrap().remove("source"); }) => ["metadata.source"];
    source_that_is_a_path: |b| b.metadata(|m| m["source"]["hf_model_id"] = json!("./checkpoints/gemma")) =>
        ["metadata.source-id"];
    null_compression: |b| b.metadata(|m| m["compression"] = json!(null)) => ["metadata.compression"];
    other_compression: |b| b.metadata(|m| m["compression"] = json!({"scheme": "int8-block32"})) =>
        ["metadata.compression"];
}
