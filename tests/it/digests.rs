//! Every byte of `convert`, `tables` and `pack`, as digests: what is written may change only together with the
//! golden file, and then on purpose.

use std::fmt::Write;

use crate::common::{Dir, golden, tiny, tree};
use fixtures::{Shape, SyntheticCheckpoint, WeightKind, data};
use sha2::{Digest, Sha256};

/// Runs of the command, by the folder that each writes.
const TINY: [(&str, &[&str]); 12] = [
    ("int4", &["convert", "--variant", "both"]),
    ("int4-stock", &["convert", "--variant", "stock", "--prefill", "none"]),
    ("int4-prefill", &["convert", "--variant", "stock", "--prefill-chunk", "256"]),
    ("int4-dynamic", &["convert", "--variant", "stock", "--main", "dynamic"]),
    ("int4-absmax", &["convert", "--rule", "absmax", "--head", "int8", "--no-tables"]),
    ("int4-q4_0", &["convert", "--rule", "q4_0", "--head", "f16", "--no-tables"]),
    ("int8", &["convert", "--weights", "int8", "--variant", "both", "--no-tables"]),
    (
        "int8-stock",
        &["convert", "--weights", "int8", "--variant", "stock", "--prefill", "none", "--max-context", "512"],
    ),
    (
        "int8-tbl-prefill",
        &["convert", "--weights", "int8", "--variant", "tbl", "--no-tables", "--prefill", "64"],
    ),
    ("f16", &["convert", "--weights", "f16", "--no-tables"]),
    (
        "f16-stock",
        &["convert", "--weights", "f16", "--head", "f16", "--variant", "stock", "--prefill", "none"],
    ),
    ("tables", &["tables", "--ple", "safetensors"]),
];
const SYNTHETIC: [(&str, &[&str]); 3] = [
    ("int4", &["convert", "--variant", "both"]),
    ("int4-stock", &["convert", "--variant", "stock", "--prefill", "none", "--head", "int4"]),
    ("int8-head", &["convert", "--head", "int8"]),
];

const DENSE: [(&str, &[&str]); 5] = [
    ("int4", &["convert"]),
    ("int4-dynamic", &["convert", "--main", "dynamic"]),
    ("int4-split", &["convert", "--cache", "split"]),
    ("int8", &["convert", "--weights", "int8", "--prefill", "none"]),
    ("f16", &["convert", "--weights", "f16", "--prefill", "none"]),
];

/// Options that give a graph the tables of the published bundles, where others are the default.
fn published_tables(arguments: &[&str]) -> &'static [&'static str] {
    match arguments {
        ["convert", ..] if arguments.contains(&"stock") => &["--embedding", "f16", "--per-layer", "int8"],
        ["convert", ..] => &["--embedding", "f16"],
        _ => &[],
    }
}

/// Runs commands on a checkpoint and appends a line for each file that they write.
fn list(dir: &Dir, checkpoint: &str, name: &str, runs: &[(&str, &[&str])], listing: &mut String) {
    for (run, arguments) in runs {
        let out = format!("{name}/{run}");
        dir.ok(&[arguments, published_tables(arguments), &[checkpoint, "-o", &out]].concat());
        for (path, bytes) in tree(&dir.path(&out)) {
            writeln!(listing, "{}  {out}/{}", hex(&bytes), path.display()).unwrap();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[test]
fn every_output_byte_is_what_it_was() {
    let dir = Dir::new();
    let mut listing = String::new();
    list(&dir, &tiny(), "tiny", &TINY, &mut listing);
    dir.ok(&["pack", "tiny/int4", "-o", "tiny.zip"]);
    writeln!(listing, "{}  tiny.zip", hex(&std::fs::read(dir.path("tiny.zip")).unwrap())).unwrap();
    // Untied head, off any lattice, and several files; then the other shape, with double-wide layers.
    let head = SyntheticCheckpoint {
        shards: 3,
        body: WeightKind::Off,
        untied_head: Some(WeightKind::Off),
        dead_kv: true,
        ..SyntheticCheckpoint::new(Shape::small())
    };
    head.write(&dir.path("model")).unwrap();
    list(&dir, "model", "out-off", &SYNTHETIC, &mut listing);
    SyntheticCheckpoint::new(Shape::e2b_like()).write(&dir.path("e2b")).unwrap();
    list(&dir, "e2b", "out-e2b", &SYNTHETIC, &mut listing);
    let dense = data::tiny_dense_checkpoint().display().to_string();
    list(&dir, &dense, "tiny-dense", &DENSE, &mut listing);
    SyntheticCheckpoint::new(Shape::dense_like()).write(&dir.path("checkpoint")).unwrap();
    list(&dir, "checkpoint", "out-dense", &DENSE[..3], &mut listing);
    golden::check("digests", &listing);
}
