//! Faults of the graph package's files.

use std::fs::File;

use output::{Digest, WrittenFile};
use serde_json::json;

use super::faults;
use crate::check::fixture::{PROVIDER, Release, assert_found};

faults! {
    |release: &Release| release.bundle(PROVIDER);

    missing_program: |b| b.remove(&b.in_asset("main.mlirb")) => ["package.program"];
    empty_program: |b| b.write(&b.in_asset("main.mlirb"), "") => ["package.program", "files.empty"];
    missing_hash: |b| b.remove(&b.in_asset("main.hash")) => ["package.hash-missing"];
    hash_as_text: |b| {
        let text = Digest::of_bytes(&b.read(&b.in_asset("main.mlirb"))).to_string();
        b.write(&b.in_asset("main.hash"), text);
    } => ["package.hash"];
    hash_of_something_else: |b| b.write(&b.in_asset("main.hash"), [0; 32]) => ["package.hash"];
    flipped_bit_in_a_blob: |b| {
        let mut program = b.read(&b.in_asset("main.mlirb"));
        program[700_000] ^= 4;
        b.write(&b.in_asset("main.mlirb"), program);
    } => ["package.hash"];
    truncated_program: |b| {
        let program = b.read(&b.in_asset("main.mlirb"));
        b.write(&b.in_asset("main.mlirb"), &program[..1_000_000]);
    } => ["package.hash", "graph.unreadable"];
    something_else_than_bytecode: |b| b.write(&b.in_asset("main.mlirb"), "version https://git-lfs") =>
        ["package.hash", "graph.unreadable"];
    missing_package_metadata: |b| b.remove(&b.in_asset("metadata.json")) => ["package.metadata"];
    package_metadata_that_is_no_json: |b| b.write(&b.in_asset("metadata.json"), "producer") =>
        ["package.metadata"];
    other_asset_version: |b| b.json(&b.in_asset("metadata.json"), |m| m["assetVersion"] = json!("3.0")) =>
        ["package.asset-version"];
    missing_producer: |b| b.json(&b.in_asset("metadata.json"), |m| {
        m.as_object_mut().unwrap().remove("producer");
    }) => ["package.producer"];
    empty_producer: |b| b.json(&b.in_asset("metadata.json"), |m| m["producer"] = json!(" ")) =>
        ["package.producer"];
}

#[test]
fn size_that_is_a_multiple_of_a_page() {
    let release = Release::new();
    let bundle = release.bundle(PROVIDER);
    let program = bundle.path(&bundle.in_asset("main.mlirb"));
    let facts = packer::check::facts::GraphFacts::read(&bundle.path(&bundle.asset())).unwrap();
    let file = File::options().write(true).open(&program).unwrap();
    file.set_len(file.metadata().unwrap().len().next_multiple_of(4096)).unwrap();
    bundle.write(&bundle.in_asset("main.hash"), WrittenFile::of(&program).unwrap().digest.as_bytes());
    bundle.seal();
    let report = bundle.check_graph_as(&facts);
    assert_found(&report, &["package.page-multiple"]);
}

#[test]
fn package_without_a_bundle() {
    let release = Release::new();
    let bundle = release.bundle(PROVIDER);
    let package = crate::check::fixture::Folder(bundle.path(&bundle.asset()));
    assert_found(&package.check(), &["package.bare"]);
    package.write("notes.txt", "x");
    package.json("metadata.json", |m| m["producer"] = json!(null));
    assert_found(&package.check(), &["package.bare", "package.producer", "files.unexpected"]);
}
