//! `inspect`, `check` and `pack` on what `convert` wrote.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

mod common;

use common::{Dir, tiny};

#[test]
fn everything_that_convert_writes_can_be_looked_at_and_is_without_defects() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "both"]);
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "stock"]);
    let bundle = "out/gemma4_e4b_qat_decode_int4lin";
    let text = dir.ok(&["inspect", bundle]);
    assert!(text.contains("ple_tokens: tensor<1x1x12x32xf16>"), "{text}");
    assert!(text.contains("1780 ops"), "{text}");
    let text = dir.ok(&["inspect", &format!("{bundle}/gemma4_e4b_qat_decode_int4lin.aimodel"), "--blobs"]);
    assert!(text.contains("layers.5.mlp.down_proj.weight/codes"), "{text}");
    let json = dir.json(&["inspect", "out/gemma4_e4b_qat_gather_raw", "--json"]);
    assert_eq!(json["meta"]["PLD"], 384);
    let json = dir.json(&["inspect", &tiny(), "--json"]);
    assert_eq!((&json["slots"], &json["layers"]), (&7.into(), &12.into()));
    for name in dir.names("out") {
        let report = dir.json(&["check", &format!("out/{name}"), "--json"]);
        let findings = report["findings"].as_array().unwrap();
        assert!(findings.iter().all(|finding| finding["severity"] == "note"), "{name}: {findings:#?}");
    }
    dir.ok(&["pack", "out", "-o", "out.zip"]);
    assert!(dir.path("out.zip").exists());
}

#[test]
fn a_flipped_bit_is_found() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--no-tables"]);
    let bundle = dir.path("out/gemma4_e4b_qat_decode_int4lin");
    let program = common::package(&bundle).join("main.mlirb");
    let mut bytes = std::fs::read(&program).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&program, bytes).unwrap();
    let output = dir.command(&["check", bundle.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(common::text(&output.stdout).contains("main.mlirb"), "{}", common::both(&output));
}

#[test]
fn what_is_no_model_at_all_is_said() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("empty")).unwrap();
    assert!(dir.fails(&["inspect", "empty"]).contains("no checkpoint"));
    assert!(dir.fails(&["inspect", "absent"]).contains("absent"));
}
