//! Faults in how the parts of a bundle fit together.

use serde_json::json;

use super::faults;
use crate::check::fixture::{PROVIDER, Release, TBL, assert_found};

faults! {
    |release: &Release| release.bundle(TBL);

    vocabulary_larger_than_the_logits: |b| b.language(|l| l["vocab_size"] = json!(513)) => ["graph.vocabulary"];
    vocabulary_smaller_than_the_tokenizer: |b| b.language(|l| l["vocab_size"] = json!(500)) =>
        ["graph.vocabulary", "tokenizer.ids"];
    graph_of_the_other_variant: |b| {
        let provider = crate::check::fixture::reference("provider.int4-symmetric");
        b.remove(&b.asset());
        crate::check::fixture::copy(&provider, &b.path(&b.asset()));
    } => ["metadata.engine-inputs"];
    uncompressed_graph_that_claims_compression: |b| {
        b.remove(&b.asset());
        crate::check::fixture::copy(&crate::check::fixture::reference("provider.f16"), &b.path(&b.asset()));
        b.metadata(|m| m["user_data"]["engine_inputs"] = json!("per-token"));
    } => ["metadata.compression"];
}

#[test]
fn large_int4_graph_must_be_compiled_for_the_iphone() {
    let release = Release::new();
    let bundle = release.bundle(PROVIDER);
    // A graph of that size without its gigabytes: the reader is handed the facts of the small one.
    let facts = packer::check::facts::GraphFacts::read(&bundle.path(&bundle.asset())).unwrap();
    let program = bundle.path(&bundle.in_asset("main.mlirb"));
    std::fs::File::options().write(true).open(program).unwrap().set_len(2_000_000_001).unwrap();
    bundle.remove("manifest.json");
    let reader = |_: &std::path::Path| Ok(facts.clone());
    let options = packer::check::Options {
        graph_reader: &reader,
        digests: false,
        ..packer::check::Options::new(&packer::template::Conversation::render)
    };
    let report = packer::check::check(&bundle.0, &options).unwrap();
    assert_found(&report, &["graph.needs-compiling", "manifest.missing"]);
}
