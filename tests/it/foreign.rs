//! Tables and bundles of another training of the same model: all shapes and sizes are equal, only the weights differ.

use std::fs;

use fixtures::{Shape, SyntheticCheckpoint};
use serde_json::Value;

use crate::common::Dir;

/// Two trainings, converted into `a-out` and `b-out`.
fn scene() -> Dir {
    let dir = Dir::new();
    for (name, seed) in [("a", 1), ("b", 2)] {
        SyntheticCheckpoint { seed, ..SyntheticCheckpoint::new(Shape::small()) }
            .write(&dir.path(name))
            .unwrap();
        dir.ok(&["convert", name, "-o", &format!("{name}-out"), "--variant", "both", "--name", "m"]);
    }
    dir
}

#[test]
fn they_are_refused_by_convert_check_and_release() {
    let dir = scene();
    let error = dir.fails(&["convert", "b", "-o", "c-out", "--name", "m", "--tables", "a-out/m_gather_raw"]);
    // Rows of padding may be equal.
    assert!(error.contains(" of a-out/m_gather_raw/embed_per_layer.i8 is not that of"), "{error}");
    assert_eq!(dir.names("c-out"), [""; 0]);
    dir.ok(&["convert", "b", "-o", "c-out", "--name", "m", "--tables", "b-out/m_gather_raw"]);

    fs::write(dir.path("a-out/m_gather_raw/proj_norm.f32"), "short").unwrap();
    let error = dir.fails(&["convert", "a", "-o", "d-out", "--tables", "a-out/m_gather_raw"]);
    assert!(error.contains("proj_norm.f32 has 5 bytes"), "{error}");

    let checked =
        dir.command(&["check", "a-out/m_decode_int4lin", "--tables", "b-out/m_gather_raw"]).output().unwrap();
    assert!(String::from_utf8_lossy(&checked.stdout).contains("tables.foreign"));

    let terms = ["--base-model", "o/n", "--license-id", "mit", "--license", "a/config.json", "-o", "release"];
    let members = ["release", "a-out/m_decode_int4lin", "b-out/m_decode_int4lin_tbl", "b-out/m_gather_raw"];
    let error = dir.fails(&[&members[..], &terms].concat());
    assert!(error.contains("were made from different weights: their checksums of"), "{error}");
    let members = ["release", "b-out/m_decode_int4lin", "b-out/m_decode_int4lin_tbl", "b-out/m_gather_raw"];
    dir.ok(&[&members[..], &terms].concat());
}

#[test]
fn a_stamp_that_was_put_on_the_wrong_bundle_does_not_help() {
    let dir = scene();
    let path = |name: &str| dir.path(name).join("manifest.json");
    let read = |name: &str| -> Value { serde_json::from_slice(&fs::read(path(name)).unwrap()).unwrap() };
    let (bundle, tables) = ("a-out/m_decode_int4lin", "b-out/m_gather_raw");
    let (mut manifest, foreign) = (read(bundle), read(tables));
    assert_ne!(manifest["checksums"], read("b-out/m_decode_int4lin")["checksums"]);
    assert_eq!(manifest["checksums"], read("a-out/m_decode_int4lin_tbl")["checksums"]);
    manifest["tables_digest"] = foreign["tables_digest"].clone();
    fs::write(path(bundle), manifest.to_string()).unwrap();
    let metadata = dir.path(bundle).join("metadata.json");
    let stamps = |value: &Value| value["tables_digest"].as_str().unwrap().to_owned();
    let text = fs::read_to_string(&metadata).unwrap();
    fs::write(&metadata, text.replace(&stamps(&read("a-out/m_gather_raw")), &stamps(&foreign))).unwrap();
    let checked = dir.command(&["check", bundle, "--tables", tables, "--quick"]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(said.contains("tables.foreign") && said.contains("were made from other weights"), "{said}");
}
