//! Faults of an ahead-of-time compiled bundle.

use output::Digest;
use serde_json::json;

use super::faults;
use crate::check::fixture::{COMPILED, PROVIDER, Release, assert_found};

faults! {
    |release: &Release| release.bundle(COMPILED);

    main_asset_that_is_missing: |b| b.metadata(|m| m["assets"]["main"] = json!("x.h18p.aimodelc")) =>
        ["metadata.asset-file"];
    main_asset_left_at_the_portable_graph: |b| {
        b.metadata(|m| m["assets"]["main"] = json!(format!("{PROVIDER}.aimodel")));
    } => ["metadata.asset-file"];
    no_program: |b| b.remove(&b.in_asset("main-h18p.mlirb")) => ["compiled.program"];
    program_of_another_architecture: |b| {
        b.rename(&b.in_asset("main-h18p.mlirb"), &b.in_asset("main-h17p.mlirb"));
        b.rename(&b.in_asset("main-h18p-delegates"), &b.in_asset("main-h17p-delegates"));
    } => ["compiled.architecture", "compiled.architecture", "compiled.targets"];
    delegates_of_another_architecture: |b| {
        std::fs::create_dir(b.path(&b.in_asset("main-h17p-delegates"))).unwrap();
        b.write(&b.in_asset("main-h17p-delegates/segment"), "x");
    } => ["compiled.architecture"];
    unknown_architecture: |b| {
        b.rename(&b.in_asset("main-h18p.mlirb"), &b.in_asset("main-h18q.mlirb"));
        b.rename(&b.in_asset("main-h18p-delegates"), &b.in_asset("main-h18q-delegates"));
        let asset = b.asset().replace("h18p", "h18q");
        b.rename(&b.asset(), &asset);
        b.metadata(|m| {
            m["assets"]["main"] = json!(asset);
            m["compilation"]["targets"] = json!(["h18q"]);
        });
        b.json("manifest.json", |m| m["compiled_from"]["architecture"] = json!("h18q"));
    } => ["compiled.unknown-architecture", "compiled.architecture"];
    no_delegates: |b| b.remove(&b.in_asset("main-h18p-delegates")) => ["compiled.files"];
    no_statistics: |b| b.remove(&b.in_asset("stats.json")) => ["compiled.files"];
    no_hash: |b| b.remove(&b.in_asset("main.hash")) => ["compiled.files"];
    program_that_does_not_fit_its_hash: |b| b.write(&b.in_asset("main-h18p.mlirb"), "other") =>
        ["compiled.hash"];
    hash_that_is_none: |b| b.write(&b.in_asset("main.hash"), "unknown") => ["compiled.hash"];
    no_targets: |b| b.metadata(|m| { m.as_object_mut().unwrap().remove("compilation"); }) =>
        ["compiled.targets"];
}

#[test]
fn source_that_was_converted_again() {
    let release = Release::new();
    let source = release.bundle(PROVIDER);
    let program = source.in_asset("main.mlirb");
    let mut bytes = source.read(&program);
    bytes[600_000] ^= 1;
    source.write(&source.in_asset("main.hash"), Digest::of_bytes(&bytes).as_bytes());
    source.write(&program, bytes);
    source.seal();
    assert_found(&release.bundle(COMPILED).check(), &["compiled.stale"]);
    // The same without a manifest to read the digest from.
    source.remove("manifest.json");
    assert_found(&release.bundle(COMPILED).check(), &["compiled.stale"]);
}

#[test]
fn hash_as_text_is_taken_too() {
    let release = Release::new();
    let bundle = release.bundle(COMPILED);
    bundle.write(&bundle.in_asset("main.hash"), Digest::of_bytes(b"program").to_string());
    bundle.seal();
    assert_found(&bundle.check(), &[]);
}
