//! Models without per-layer embeddings, as a user converts them.

use std::fs;

use crate::common::{Dir, tiny};
use fixtures::data;
use serde_json::{Value, json};

fn dense() -> String {
    data::tiny_dense_checkpoint().to_str().unwrap().to_owned()
}

/// The trained lattice loses nothing: no winner changes, in either form of the caches and however prompts are read.
#[test]
fn lattice_codes_pass_the_gate() {
    let dir = Dir::new();
    for (cache, name) in
        [("padded", "gemma4_12b_qat_decode_int4lin"), ("split", "gemma4_12b_qat_decode_int4lin_split")]
    {
        dir.ok(&["convert", &dense(), "-o", cache, "--cache", cache]);
        assert!(dir.names(cache).contains(&name.to_owned()), "{:?}", dir.names(cache));
        let bundle = format!("{cache}/{name}");
        let oracle = data::tiny_dense_checkpoint().join("oracle.json").display().to_string();
        let arguments = ["gate", &bundle, "--oracle", &oracle, "--checkpoint", &dense(), "--json"];
        let report = dir.json(&arguments);
        assert_eq!((&report["passed"], &report["causes"]), (&json!(true), &json!([])), "{cache}");
        assert_eq!(report["agreed"], report["qualified"], "{cache}");
        assert!(report["distances"]["mean_cosine"].as_f64().unwrap() >= 0.9999, "{cache}");
        assert!(report["distances"]["min_cosine"].as_f64().unwrap() >= 0.9999, "{cache}");
        assert!(dir.ok(&["check", &bundle]).contains("0 defects"), "{cache}");
    }
}

fn read(dir: &Dir, path: &str) -> Value {
    serde_json::from_slice(&fs::read(dir.path(path)).unwrap()).unwrap()
}

#[test]
fn metadata_and_reports_know_the_caches() {
    let dir = Dir::new();
    dir.ok(&["convert", &dense(), "-o", "out"]);
    dir.ok(&["convert", &dense(), "-o", "out", "--cache", "split"]);
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "stock"]);
    let form =
        |name: &str, bytes: u64, used: bool| json!({"form": name, "position_bytes": bytes, "is_used": used});
    // 12 slots of 2 heads 64 wide; or 10 of 2 heads 32 wide and 2 of 1 head 64 wide; keys and values of 2 bytes.
    let dense = |split: bool| vec![form("padded", 6144, !split), form("split", 3072, split)];
    for (name, pairs, caches) in [
        ("gemma4_12b_qat_decode_int4lin", Value::Null, dense(false)),
        ("gemma4_12b_qat_decode_int4lin_split", json!("2"), dense(true)),
        ("gemma4_e4b_qat_decode_int4lin_stock", Value::Null, vec![form("padded", 7 * 2 * 64 * 4, true)]),
    ] {
        let metadata = read(&dir, &format!("out/{name}/metadata.json"));
        assert_eq!(metadata["user_data"]["cache_pairs"], pairs, "{name}");
        assert_eq!(metadata["user_data"]["engine_inputs"], "none", "{name}");
        let memory = read(&dir, &format!("out/{name}.report.json"))["memory"].clone();
        assert_eq!((&memory["caches"], &memory["max_context"]), (&json!(caches), &json!(4096)), "{name}");
        let package = fs::metadata(dir.path(&format!("out/{name}/{name}.aimodel/main.mlirb"))).unwrap();
        assert_eq!(memory["graph_bytes"], package.len(), "{name}");
    }
}

#[test]
fn what_only_the_other_family_has_is_refused() {
    let dir = Dir::new();
    for variant in ["provider", "tbl", "both"] {
        let said = dir.fails(&["convert", &dense(), "-o", "out", "--variant", variant]);
        assert!(said.contains("this model has no per-layer embeddings, so there is no"), "{said}");
        assert!(said.contains("leave --variant out"), "{said}");
    }
    for form in ["raw", "safetensors"] {
        let said = dir.fails(&["tables", &dense(), "-o", "out", "--ple", form]);
        assert!(
            said.contains("this model has no per-layer embeddings, so there are no tables to make"),
            "{said}"
        );
    }
    for variant in ["provider", "stock"] {
        let said = dir.fails(&["convert", &tiny(), "-o", "out", "--variant", variant, "--cache", "split"]);
        assert!(
            said.contains("--cache split is for models without per-layer embeddings (12B, 31B)"),
            "{said}"
        );
    }
    assert!(!dir.path("out").exists() || dir.names("out").is_empty());
}

#[test]
fn inspect_shows_heads_values_and_caches() {
    let dir = Dir::new();
    let shown = dir.ok(&["inspect", &dense()]);
    for part in [
        "4 query, 2 / 1 KV, width 32 / 64",
        "keys in layers with full attention",
        "padded: 6.14 MB for 1,000",
        "split: 3.07 MB",
    ] {
        assert!(shown.contains(part), "{part} is not in:\n{shown}");
    }
    let json = dir.json(&["inspect", &dense(), "--json"]);
    assert_eq!(json["cache_position_bytes"], json!({"padded": 6144, "split": 3072}));
    assert_eq!(
        (&json["kv_heads"], &json["full_kv_heads"], &json["ple_width"]),
        (&json!(2), &json!(1), &Value::Null)
    );
}

#[test]
fn diff_and_explain_know_the_forms_of_the_caches_and_the_tensors() {
    let dir = Dir::new();
    dir.ok(&["convert", &dense(), "-o", "out"]);
    dir.ok(&["convert", &dense(), "-o", "out", "--cache", "split"]);
    let package = |name: &str| format!("out/{name}/{name}.aimodel");
    let (padded, split) =
        (package("gemma4_12b_qat_decode_int4lin"), package("gemma4_12b_qat_decode_int4lin_split"));
    let output = dir.command(&["diff", &padded, &split]).output().unwrap();
    let shown = crate::common::text(&output.stdout);
    assert!(shown.contains("keyCacheFull") && shown.contains("different"), "{shown}");
    let keys = "layers.5.self_attn.k_proj.weight";
    let source = dir.json(&["explain", &dense(), keys, "--row", "3", "--json"]);
    let packed = dir.json(&["explain", &split, keys, "--row", "3", "--json"]);
    assert_eq!(source["lattice"]["codes"], packed["codes"]);
    let said = dir.fails(&["explain", &split, "layers.5.self_attn.v_proj.weight"]);
    assert!(said.contains("there is no tensor"), "{said}");
}
