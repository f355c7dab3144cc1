//! `inspect`, `check` and `pack` on what `convert` wrote.

use serde_json::{Value, json};

use crate::common::{Dir, tiny, tree};

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
    let program = crate::common::package(&bundle).join("main.mlirb");
    let mut bytes = std::fs::read(&program).unwrap();
    bytes[1_000_000] ^= 1;
    std::fs::write(&program, bytes).unwrap();
    let output = dir.command(&["check", bundle.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(crate::common::text(&output.stdout).contains("main.mlirb"), "{}", crate::common::both(&output));
}

#[test]
fn what_is_not_a_model_is_reported() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("empty")).unwrap();
    assert!(dir.fails(&["inspect", "empty"]).contains("empty is empty"));
    std::fs::write(dir.path("empty/notes"), "").unwrap();
    assert!(dir.fails(&["inspect", "empty"]).contains("is it a checkpoint folder?"));
    assert!(dir.fails(&["inspect", "absent"]).contains("absent"));
}

#[test]
fn one_layer_of_the_graph_is_listed_with_names_of_weights() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--no-tables"]);
    let bundle = "out/gemma4_e4b_qat_decode_int4lin";
    let text = dir.ok(&["inspect", bundle, "--graph", "--layer", "5"]);
    assert!(text.contains("constant @layers.5.mlp.down_proj.weight/codes : tensor<128x256xsi4>"), "{text}");
    assert!(!text.contains("@layers.4.") && !text.contains("@layers.6."), "{text}");
    let whole = dir.json(&["inspect", bundle, "--graph", "--json"]);
    let lines = whole["package"]["listing"].as_array().unwrap();
    assert!(lines.len() > 1780 && lines.len() > text.lines().count(), "{}", lines.len());
    assert!(dir.fails(&["inspect", bundle, "--graph", "--layer", "12"]).contains("layer 12"));
    assert!(dir.fails(&["inspect", &tiny(), "--weights"]).contains("packages"));
}

#[test]
fn statistics_are_those_of_the_packed_weights() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--no-tables"]);
    let json = dir.json(&["inspect", "out/gemma4_e4b_qat_decode_int4lin", "--weights", "--json"]);
    let weights = json["package"]["weights"].as_array().unwrap();
    let find = |name: &str| weights.iter().find(|weight| weight["name"] == name).unwrap();
    let weight = find("layers.5.mlp.down_proj.weight");
    let codes: Vec<u64> =
        weight["codes"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect();
    assert_eq!(codes.iter().sum::<u64>(), 128 * 256);
    assert_eq!(weight["scales"]["count"], 128 * 8);
    assert_eq!(weight["zeros"], codes[8]);
    // The tiny checkpoint lies on the lattice: its own weights have these statistics.
    let path = fixtures::data::tiny_checkpoint();
    let source = checkpoint::source::LocalSource::open(&path).unwrap();
    use checkpoint::source::Source;
    let name = source
        .tensors()
        .iter()
        .find(|tensor| tensor.name.ends_with("layers.5.mlp.down_proj.weight"))
        .unwrap();
    let mut bytes = vec![0; name.byte_len() as usize];
    source.read_at(name, 0, &mut bytes).unwrap();
    let values = bytes.chunks_exact(2).map(|pair| half::bf16::from_le_bytes([pair[0], pair[1]]).to_f64());
    let rms = (values.map(|value| value * value).sum::<f64>() / (128.0 * 256.0)).sqrt();
    assert!((weight["rms"].as_f64().unwrap() / rms - 1.0).abs() < 1e-4);
}

#[test]
fn a_package_without_names_takes_those_of_a_matching_one() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--no-tables"]);
    let ours = "out/gemma4_e4b_qat_decode_int4lin";
    let theirs = fixtures::data::ReferencePackage::TblInt4.path();
    let theirs = theirs.to_str().unwrap();
    let layer = ["--graph", "--layer", "5"];
    assert!(dir.fails(&[&["inspect", theirs], &layer[..]].concat()).contains("--names"));
    // Exports put the smallest tensors into the program, and constants in another order.
    let codes = |text: &str| -> Vec<String> {
        let constants = text.lines().filter_map(|line| line.split_once("= constant @"));
        let mut codes: Vec<String> = constants
            .filter(|(_, weight)| weight.contains("/codes"))
            .map(|(_, weight)| weight.to_owned())
            .collect();
        codes.sort();
        codes
    };
    let expected = codes(&dir.ok(&[&["inspect", ours], &layer[..]].concat()));
    let found = codes(&dir.ok(&[&["inspect", theirs, "--names", ours], &layer[..]].concat()));
    assert_eq!(expected.len(), 9);
    assert_eq!(found, expected);
}

/// Anything that takes time quadratic in their number would take too long.
#[test]
fn a_hundred_thousand_other_tensors_do_no_harm() {
    const COUNT: u64 = 100_000;
    let dir = Dir::new();
    std::fs::create_dir(dir.path("model")).unwrap();
    for (path, bytes) in tree(&fixtures::data::tiny_checkpoint()) {
        std::fs::write(dir.path("model").join(path), bytes).unwrap();
    }
    let path = dir.path("model/model.safetensors");
    let whole = std::fs::read(&path).unwrap();
    let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let (header, data) = (&whole[8..8 + length], &whole[8 + length..]);
    let mut header: serde_json::Map<String, Value> = serde_json::from_slice(header).unwrap();
    for number in 0..COUNT {
        let empty = json!({"dtype": "BF16", "shape": [0], "data_offsets": [data.len(), data.len()]});
        header.insert(format!("model.vision_tower.tensor{number}"), empty);
    }
    let header = serde_json::to_vec(&header).unwrap();
    std::fs::write(&path, [&(header.len() as u64).to_le_bytes(), &header[..], data].concat()).unwrap();
    let result = dir.json(&["inspect", "model", "--json"]);
    assert!(result["skipped_tensors"].as_u64().unwrap() >= COUNT, "{result}");
    let plan = dir.json(&["convert", "model", "--dry-run", "--json"]);
    assert_eq!(plan["graphs"].as_array().unwrap().len(), 1);
}
