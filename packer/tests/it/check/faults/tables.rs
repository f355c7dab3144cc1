//! Faults of gather tables and of their tie to bundles.

use serde_json::json;

use super::faults;
use crate::check::fixture::{Folder, PROVIDER, Release, TABLES, TBL, assert_found, write_tables};

faults! {
    |release: &Release| release.tables();

    missing_meta: |t| t.remove("meta.json") => ["tables.meta"];
    meta_that_is_no_json: |t| t.write("meta.json", "V=512") => ["tables.meta"];
    meta_without_an_extent: |t| t.json("meta.json", |m| { m.as_object_mut().unwrap().remove("D"); }) =>
        ["tables.meta"];
    meta_that_contradicts_itself: |t| t.json("meta.json", |m| m["PLD"] = json!(383)) => ["tables.meta"];
    meta_without_epsilon: |t| t.json("meta.json", |m| m["rms_eps"] = json!(null)) => ["tables.meta"];
    meta_of_absurd_size: |t| t.json("meta.json", |m| m["V"] = json!(u64::MAX)) => ["tables.meta"];
    wrong_scale_of_the_embedding: |t| t.json("meta.json", |m| m["embed_scale_pl"] = json!(32.0)) =>
        ["tables.constant"];
    missing_projection: |t| t.remove("proj.f32") => ["tables.file-missing"];
    missing_row_scales: |t| t.remove("embed_tokens.scale.f32") => ["tables.file-missing"];
    truncated_table: |t| {
        let bytes = t.read("embed_per_layer.i8");
        t.write("embed_per_layer.i8", &bytes[..bytes.len() - 4096]);
    } => ["tables.size"];
    scale_that_is_not_a_number: |t| {
        let mut bytes = t.read("embed_per_layer.scale.f32");
        bytes[400..404].copy_from_slice(&f32::NAN.to_le_bytes());
        t.write("embed_per_layer.scale.f32", bytes);
    } => ["tables.scale"];
    negative_scale: |t| {
        let mut bytes = t.read("embed_tokens.scale.f32");
        bytes[0..4].copy_from_slice(&(-0.5_f32).to_le_bytes());
        t.write("embed_tokens.scale.f32", bytes);
    } => ["tables.scale"];
    no_manifest: |t| t.remove("manifest.json") => ["manifest.missing"];
}

#[test]
fn truncated_table_in_a_copy() {
    let release = Release::new();
    let tables = release.tables();
    let bytes = tables.read("embed_per_layer.i8");
    tables.write("embed_per_layer.i8", &bytes[..1000]);
    assert_found(&tables.check(), &["manifest.size", "tables.size"]);
}

#[test]
fn manifest_without_a_stamp() {
    let release = Release::new();
    let tables = release.tables();
    tables.json("manifest.json", |m| {
        m.as_object_mut().unwrap().remove("tables_digest");
    });
    assert_found(&tables.check(), &["tables.stamp-missing"]);
    // Whether the bundle belongs to them cannot be determined.
    assert_found(&release.bundle(TBL).check(), &["tables.stamp-missing"]);
}

#[test]
fn stamp_of_other_files() {
    let release = Release::new();
    let tables = release.tables();
    let other = output::Digest::of_bytes(b"other").to_string();
    tables.json("manifest.json", |m| m["tables_digest"] = json!(other));
    assert_found(&tables.check(), &["tables.stamp"]);
}

#[test]
fn foreign_table_of_the_same_shape() {
    let release = Release::new();
    release.tables().remove("");
    write_tables(&release.tables().0, 2);
    for name in [PROVIDER, TBL] {
        assert_found(&release.bundle(name).check(), &["tables.foreign"]);
    }
    assert_found(&release.tables().check(), &[]);
}

#[test]
fn tables_of_several_models_beside_the_right_ones() {
    let release = Release::new();
    write_tables(&release.root.join("ios-frontend/another_gather_raw"), 2);
    assert_found(&release.bundle(TBL).check(), &[]);
    release.tables().remove("");
    assert_found(&release.bundle(TBL).check(), &["tables.foreign"]);
}

#[test]
fn missing_tables() {
    let release = Release::new();
    release.tables().remove("");
    assert_found(&release.bundle(PROVIDER).check(), &["tables.not-found"]);
    release.whole().seal();
    let needs = ["tables.not-in-release"; 3];
    assert_found(&release.whole().check(), &needs);
}

#[test]
fn bundle_without_a_stamp_is_compared_by_shape() {
    let release = Release::new();
    let bundle = release.bundle(PROVIDER);
    bundle.metadata(|m| {
        m["user_data"].as_object_mut().unwrap().remove("tables_digest");
    });
    bundle.seal();
    assert_found(&bundle.check(), &["tables.stamp-missing"]);
    release.tables().json("meta.json", |m| m["V"] = json!(600));
    assert_found(&bundle.check(), &["tables.stamp-missing", "tables.shape"]);
}

/// A folder with Apple's form of the table.
fn safetensors(header: &str, data: usize) -> (tempfile::TempDir, Folder) {
    let scratch = tempfile::tempdir().unwrap();
    let folder = Folder(scratch.path().join(TABLES));
    std::fs::create_dir(&folder.0).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 1);
    folder.write("gemma_ple.safetensors", bytes);
    (scratch, folder)
}

const HEADER: &str = r#"{"__metadata__":{"embed_scale":"11.3","ple_scale":"0.1","ple_zero_point":"0","dtype":"SI8"},
    "embed_tokens_per_layer":{"dtype":"I8","shape":[512,384],"data_offsets":[0,196608]}}"#;

#[test]
fn safetensors_form_is_checked() {
    let good = safetensors(HEADER, 512 * 384).1;
    drop(good);
    let cases = [
        (HEADER.to_owned(), 512 * 384, None),
        (HEADER.to_owned(), 512 * 384 - 1, Some("tables.meta")),
        (HEADER.replace("I8\",\"shape", "F16\",\"shape"), 512 * 384, Some("tables.meta")),
        (HEADER.replace("ple_scale", "scale"), 512 * 384, Some("tables.meta")),
        (HEADER.replace("tokens_per_layer", "tokens"), 512 * 384, Some("tables.meta")),
        ("not json".to_owned(), 10, Some("tables.meta")),
    ];
    for (header, data, expected) in cases {
        let (_scratch, folder) = safetensors(&header, data);
        let expected: Vec<&str> = ["manifest.missing"].into_iter().chain(expected).collect();
        assert_found(&folder.check(), &expected);
    }
    let (_scratch, folder) = safetensors(HEADER, 0);
    folder.write("gemma_ple.safetensors", u64::MAX.to_le_bytes());
    assert_found(&folder.check(), &["manifest.missing", "tables.meta"]);
}
