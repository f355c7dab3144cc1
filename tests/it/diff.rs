//! `diff`: what differs is named, down to the block; what does not is not.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{Dir, tiny};
use checkpoint::source::{LocalSource, Source, TensorEntry};
use fixtures::data::ReferencePackage;
use serde_json::{Value, json};

const BUNDLE: &str = "gemma4_e4b_qat_decode_int4lin";
const TABLES: &str = "gemma4_e4b_qat_gather_raw";

fn copy(from: &Path, to: &Path) {
    for (path, bytes) in crate::common::tree(from) {
        let path = to.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Runs `diff --json`; returns its exit status and what it says about one file.
fn file(dir: &Dir, arguments: &[&str], path: &str) -> (i32, Value) {
    let output = dir.command(&[&["diff", "--json"], arguments].concat()).output().unwrap();
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", crate::common::both(&output)));
    let file = report["files"].as_array().unwrap().iter().find(|file| file["path"] == path);
    (output.status.code().unwrap(), file.cloned().unwrap_or_default())
}

/// A converted bundle in `a` and a copy of it in `b`.
fn two() -> Dir {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "a", "--variant", "provider"]);
    copy(&dir.path("a"), &dir.path("b"));
    dir
}

fn bundle(folder: &str) -> String {
    format!("{folder}/{BUNDLE}")
}

fn program(dir: &Dir, folder: &str) -> PathBuf {
    crate::common::package(&dir.path(&bundle(folder))).join("main.mlirb")
}

/// Place of a blob in the program.
fn offset(dir: &Dir, key: &str) -> usize {
    let found = dir.json(&["inspect", &bundle("a"), "--json"]);
    let blobs = found["package"]["blobs"].as_array().unwrap();
    let blob = blobs.iter().find(|blob| blob["key"] == key).unwrap();
    blob["offset"].as_u64().unwrap() as usize
}

fn flip(path: &Path, at: usize, bits: u8) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= bits;
    fs::write(path, bytes).unwrap();
}

#[test]
fn provider_and_tbl_differ_by_the_lookup_of_the_row_and_nothing_else() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--variant", "both", "--no-tables"]);
    let (left, right) = (bundle("out"), format!("out/{BUNDLE}_tbl"));
    let (status, file) = file(&dir, &[&left, &right], "package/main.mlirb");
    assert_eq!(status, 1);
    let graph = &file["graphs"][0];
    // The provider's graph has 1780 ops, that of tbl 1789; see the test of parity with the published packages.
    assert_eq!(graph["same"], 1779);
    let ops = graph["ops"].as_array().unwrap();
    let name = |line: &str| line.split_once(" = ").unwrap().1.split('(').next().unwrap().to_owned();
    let added: Vec<String> = ops
        .iter()
        .filter(|op| op["change"] == "added")
        .map(|op| name(op["right"].as_str().unwrap()))
        .collect();
    let lookup = [
        "reshape",
        "broadcast_in_dims",
        "gather_along_axis",
        "cast",
        "gather_along_axis",
        "broadcasting_mul",
        "broadcasting_mul",
        "cast",
        "reshape",
    ];
    assert_eq!(added, lookup);
    let others: Vec<&Value> = ops.iter().filter(|op| op["change"] != "added").collect();
    assert_eq!(others.len(), 1, "{others:#?}");
    assert_eq!(others[0]["change"], "changed");
    assert_eq!(
        others[0]["details"],
        json!([{"what": "operand 1", "left": "%2 \"ple_tokens\"", "right": "%25"}])
    );
    let ports: Vec<(&str, String)> = graph["ports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|port| {
            let text = port["left"].as_str().or(port["right"].as_str()).unwrap();
            (port["change"].as_str().unwrap(), text.split('"').nth(1).unwrap().to_owned())
        })
        .collect();
    let expected = [("removed", "ple_tokens"), ("added", "ple_table"), ("added", "ple_scale")];
    assert_eq!(ports, expected.map(|(change, name)| (change, name.to_owned())));
    let weights = &file["weights"];
    assert_eq!(weights["compared"], weights["equal"]);
    assert!(weights["compared"].as_u64().unwrap() >= 101);
}

#[test]
fn one_changed_nibble_is_named_with_row_and_block() {
    let dir = two();
    let key = "layers.5.mlp.down_proj.weight";
    let (row, column, columns) = (100, 67, 256);
    let at = offset(&dir, &format!("{key}/codes")) + (row * columns + column) / 2;
    flip(&program(&dir, "b"), at, 0x10);
    let (status, found) = file(&dir, &[&bundle("a"), &bundle("b")], "package/main.mlirb");
    assert_eq!(status, 1);
    assert_eq!(found["graphs"][0]["ops"], json!([]));
    let weights = &found["weights"];
    assert_eq!(weights["compared"].as_u64().unwrap() - 1, weights["equal"].as_u64().unwrap());
    let weight = &weights["different"][0];
    assert_eq!((&weight["name"], &weight["verdict"]), (&key.into(), &"different".into()));
    let values = &weight["values"];
    assert_eq!(values["differing"], 1);
    let first = &values["first"];
    assert_eq!((&first["row"], &first["block"], &first["column"]), (&100.into(), &2.into(), &67.into()));
    let codes: Vec<i64> =
        first["codes"].as_array().unwrap().iter().map(|code| code.as_i64().unwrap()).collect();
    assert_eq!(codes[0] ^ codes[1], 1);
    let text = crate::common::text(&dir.command(&["diff", "a", "b"]).output().unwrap().stdout);
    assert!(text.contains("first in row 100, block 2, column 67: "), "{text}");
    // The digests in both bundles are still those of the program that was converted: with --quick, which trusts them, there is no difference.
    assert!(dir.ok(&["diff", "--quick", "a", "b"]).contains("by their digests"));
}

#[test]
fn scales_are_distinguished_from_codes() {
    let dir = two();
    flip(&program(&dir, "b"), offset(&dir, "layers.0.self_attn.q_proj.weight/scales") + 6, 1);
    let (_, found) = file(&dir, &[&bundle("a"), &bundle("b")], "package/main.mlirb");
    let weight = &found["weights"]["different"][0];
    assert_eq!(weight["verdict"], "other_scales");
    // The fourth scale: [128, 128] has four blocks per row.
    let first = &weight["values"]["first"];
    assert_eq!((&first["row"], &first["block"]), (&0.into(), &3.into()));
    assert!(weight["values"]["differing"].as_u64().unwrap() <= 32);
}

/// Norms of the tiny checkpoint are stored in the program itself, without a name.
#[test]
fn a_weight_that_is_stored_in_the_program_is_compared_too() {
    let dir = two();
    let path = fixtures::data::tiny_checkpoint();
    let source = LocalSource::open(&path).unwrap();
    let is_norm = |tensor: &&TensorEntry| tensor.name.ends_with("layers.3.input_layernorm.weight");
    let tensor = source.tensors().iter().find(is_norm).unwrap();
    let mut bytes = vec![0; tensor.byte_len() as usize];
    source.read_at(tensor, 0, &mut bytes).unwrap();
    let halves: Vec<u8> = bytes
        .chunks_exact(2)
        .flat_map(|pair| {
            half::f16::from_f32(half::bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).to_le_bytes()
        })
        .collect();
    let program = program(&dir, "b");
    let whole = fs::read(&program).unwrap();
    let at = whole.windows(halves.len()).position(|window| window == halves).unwrap();
    flip(&program, at + 2 * 77, 4);
    let (status, found) = file(&dir, &[&bundle("a"), &bundle("b")], "package/main.mlirb");
    assert_eq!(status, 1);
    let weights = &found["weights"]["different"];
    assert_eq!(weights.as_array().unwrap().len(), 1, "{weights:#}");
    assert!(weights[0]["name"].as_str().unwrap().starts_with("operand 1 of %"), "{weights:#}");
    assert_eq!(weights[0]["values"]["first"]["column"], 77);
}

#[test]
fn tables_tokenizer_and_metadata_are_compared() {
    let dir = two();
    let tables = dir.path("b").join(TABLES);
    flip(&tables.join("embed_per_layer.i8"), 384 * 17 + 5, 0x80);
    let vocabulary = dir.path(&bundle("b")).join("tokenizer/tokenizer.json");
    let text = fs::read_to_string(&vocabulary).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    tokenizer["version"] = "2.0".into();
    fs::write(&vocabulary, tokenizer.to_string()).unwrap();
    fs::write(dir.path("b/notes"), "more").unwrap();
    let arguments = ["a", "b"];
    let (status, table) = file(&dir, &arguments, &format!("{TABLES}/embed_per_layer.i8"));
    assert_eq!((status, &table["verdict"]), (1, &"table".into()));
    assert_eq!((&table["differing"], &table["row"], &table["column"]), (&1.into(), &17.into(), &5.into()));
    let (_, found) = file(&dir, &arguments, &format!("{BUNDLE}/tokenizer/tokenizer.json"));
    assert_eq!(found["fields"], json!([{"path": "/version", "left": "1.0", "right": "2.0"}]));
    let (_, found) = file(&dir, &arguments, "notes");
    assert_eq!(found["verdict"], "only_right");
}

#[test]
fn equal_content_in_other_bytes_is_not_a_difference() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--no-tables", "--rule", "absmax", "--head", "int4"]);
    let name = "gemma4_e4b_qat_decode_int4absmax";
    let ours = format!("out/{name}/{name}.aimodel");
    let reference = ReferencePackage::ProviderInt4.path();
    let reference = reference.to_str().unwrap();
    let (_, program) = file(&dir, &[&ours, reference], "main.mlirb");
    assert_eq!(program["verdict"], "equivalent");
    // Another format of the same checkpoint: every matrix differs, the graph does not.
    let other = ReferencePackage::ProviderInt8.path();
    let (status, program) = file(&dir, &[&ours, other.to_str().unwrap()], "main.mlirb");
    assert_eq!(status, 1);
    let different = program["weights"]["different"].as_array().unwrap();
    assert_eq!(different.len(), 100);
    for weight in different {
        assert_eq!((&weight["verdict"], &weight["right"]), (&"other_format".into(), &"si8/32".into()));
        let error = weight["values"]["relative_error"].as_f64().unwrap();
        assert!((0.03..0.1).contains(&error), "{weight}");
    }
}

#[test]
fn the_exit_status_distinguishes_equal_different_and_failed() {
    let dir = two();
    let status = |arguments: &[&str]| dir.command(arguments).output().unwrap().status.code().unwrap();
    assert_eq!(status(&["diff", "a", "b"]), 0);
    assert_eq!(status(&["diff", &bundle("a"), &format!("a/{TABLES}")]), 1);
    assert_eq!(status(&["diff", "a", "absent"]), 2);
    fs::write(program(&dir, "b"), "no program").unwrap();
    assert_eq!(status(&["diff", "a", "b"]), 2);
}

/// The time it takes to find one nibble among two gigabytes. Needs 5 GB of disk:
/// `cargo test --release --test it -- one_nibble --ignored --nocapture`.
#[test]
#[ignore = "writes 4 GB"]
fn one_nibble_of_two_gigabytes() {
    let dir = Dir::new();
    let recipe = fixtures::SyntheticCheckpoint {
        towers: false,
        sparse: true,
        ..fixtures::SyntheticCheckpoint::new(fixtures::Shape::e4b(42))
    };
    recipe.write(&dir.path("checkpoint")).unwrap();
    dir.ok(&[
        "convert",
        "checkpoint",
        "-o",
        "a",
        "--no-tables",
        "--no-chat-template",
        "--name",
        "gemma4_e4b_qat",
    ]);
    copy_large(&dir.path("a"), &dir.path("b"));
    let key = "layers.41.mlp.down_proj.weight/codes";
    let (row, column, columns) = (2000, 10_000, 10_240);
    let at = (offset(&dir, key) + (row * columns + column) / 2) as u64;
    let program = program(&dir, "b");
    write_at(&program, at, &[0x01]);
    let start = std::time::Instant::now();
    let (status, found) = file(&dir, &[&bundle("a"), &bundle("b")], "package/main.mlirb");
    let bytes = program.metadata().unwrap().len();
    println!("{:.2} GB: {:.2} s", bytes as f64 / 1e9, start.elapsed().as_secs_f64());
    assert_eq!(status, 1);
    let first = &found["weights"]["different"][0]["values"]["first"];
    assert_eq!((&first["row"], &first["column"]), (&row.into(), &column.into()));
    let start = std::time::Instant::now();
    dir.ok(&["diff", "--quick", "a", "b"]);
    println!("--quick: {:.3} s", start.elapsed().as_secs_f64());
}

fn copy_large(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        fs::create_dir_all(to).unwrap();
        if path.is_dir() {
            copy_large(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt;
    fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}
