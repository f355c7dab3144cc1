//! `release`, as a user types it, on the tiny checkpoint.

use std::fs;

use crate::common::{Dir, tiny, tree};
use serde_json::Value;

const BUNDLE: &str = "out/gemma4_e4b_qat_decode_int4lin";
const TBL: &str = "out/gemma4_e4b_qat_decode_int4lin_tbl";
const TABLES: &str = "out/gemma4_e4b_qat_gather_raw";
const BASE: [&str; 2] = ["--base-model", "google/gemma-4-tiny"];

/// Bundles and tables in `out`, and the checkpoint with a card and without a license file in `model`.
fn converted(more: &[&str]) -> Dir {
    let dir = Dir::new();
    dir.ok(&[&["convert", &tiny(), "-o", "out", "--variant", "both"], more].concat());
    fs::create_dir(dir.path("model")).unwrap();
    for entry in fs::read_dir(fixtures::data::tiny_checkpoint()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path("model").join(path.file_name().unwrap())).unwrap();
    }
    fs::write(dir.path("model/README.md"), "---\nlicense: apache-2.0\n---\n# Tiny\n").unwrap();
    dir
}

fn release(dir: &Dir, more: &[&str]) -> String {
    dir.ok(&[&["release", BUNDLE, TBL, TABLES], &BASE[..], more].concat())
}

#[test]
fn a_release_is_checked_and_says_what_was_measured() {
    let dir = converted(&["--gate"]);
    for bundle in [BUNDLE, TBL] {
        let manifest = fs::read(dir.path(bundle).join("manifest.json")).unwrap();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap();
        assert_eq!(
            (&manifest["gate"]["passed"], &manifest["gate"]["qualified"]),
            (&true.into(), &223.into())
        );
    }
    release(&dir, &["--source", "model", "-o", "release"]);
    dir.ok(&["check", "release"]);
    assert_eq!(
        dir.names("release"),
        ["LICENSE", "README.md", "gpu-pipelined", "ios-frontend", "manifest.json"]
    );
    assert_eq!(
        dir.names("release/gpu-pipelined"),
        ["gemma4_e4b_qat_decode_int4lin", "gemma4_e4b_qat_decode_int4lin_tbl"]
    );
    let card = fs::read_to_string(dir.path("release/README.md")).unwrap();
    for expected in [
        "license: apache-2.0\nbase_model: google/gemma-4-tiny\n",
        "| `gpu-pipelined/gemma4_e4b_qat_decode_int4lin` | portable, a row of the tables at each step | int4-block32-lattice | 1.39 MB | 1.85 MB | 4096 | passed: 223 of 223 positions |",
        "- int4 weights: 100.00 % of the blocks lie on a 4-bit lattice and keep its codes; 1982464 of 1982464 weights (100.00 %) are those of the checkpoint, byte for byte in bf16.",
        "gate passed: 223 of 223 positions with a margin of 0.1 or more.",
        "- `gemma4_e4b_qat_decode_int4lin` with its tables: ",
        "92.83 % of all 2253164 trained text weights are those of the checkpoint, byte for byte in bf16: embedding 100.00 %, per-layer table 17.83 %, ",
        "- No bundle is compiled ahead of time; an iPhone needs one.",
        "- Nothing here was run on a device",
    ] {
        assert!(card.contains(expected), "{expected}\n{card}");
    }
    assert!(!card.contains("Not compared with"), "all bundles were gated");
    assert!(fs::read_to_string(dir.path("release/LICENSE")).unwrap().contains("Apache License"));
    let manifest: Value =
        serde_json::from_slice(&fs::read(dir.path("release/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["kind"], "release");
    fs::create_dir(dir.path("again")).unwrap();
    release(&dir, &["--source", "model", "-o", "again/release"]);
    assert!(
        tree(&dir.path("release")) == tree(&dir.path("again/release")),
        "the same parts make the same tree"
    );
}

#[test]
fn a_license_is_never_made_up() {
    let dir = converted(&[]);
    let fails = |more: &[&str]| dir.fails(&[&["release", BUNDLE, TABLES, "-o", "r"], more].concat());
    assert!(fails(&[]).contains("--base-model"));
    assert!(fails(&BASE).contains("--license FILE"));
    fs::write(dir.path("model/README.md"), "---\nlicense: gemma\n---\n").unwrap();
    assert!(fails(&[&BASE[..], &["--source", "model"]].concat()).contains("only its name (gemma)"));
    fs::write(dir.path("model/LICENSE"), "Gemma Terms of Use").unwrap();
    dir.ok(&[&["release", BUNDLE, TABLES, "-o", "r", "--source", "model"], &BASE[..]].concat());
    assert_eq!(fs::read_to_string(dir.path("r/LICENSE")).unwrap(), "Gemma Terms of Use");
    fs::write(dir.path("model/README.md"), "# no front matter").unwrap();
    assert!(fails(&[&BASE[..], &["--source", "model", "--force"]].concat()).contains("names no license"));
}

#[test]
fn what_does_not_belong_together_is_refused_and_leaves_nothing() {
    let dir = converted(&[]);
    let terms = ["--license", "model/README.md", "--license-id", "other"];
    let fails = |folders: &[&str]| {
        let message = dir.fails(&[&["release", "-o", "r"], folders, &BASE[..], &terms].concat());
        assert!(!dir.path("r").exists());
        message
    };
    assert!(fails(&[BUNDLE]).contains("needs gather tables"));
    assert!(fails(&[BUNDLE, BUNDLE, TABLES]).contains("both called"));
    assert!(fails(&[BUNDLE, "model"]).contains("manifest.json"));
    let embedding = dir.path(TABLES).join("embed_tokens.i8");
    let mut bytes = fs::read(&embedding).unwrap();
    bytes[7] ^= 1;
    fs::write(&embedding, bytes).unwrap();
    assert!(fails(&[BUNDLE, TABLES]).contains("changed after it was made"));
    fs::remove_file(embedding).unwrap();
    assert!(fails(&[BUNDLE, TABLES]).contains("embed_tokens.i8"));
}
