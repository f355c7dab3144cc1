//! `explain`: what it says about a checkpoint's block is what is packed, and what the documentation shows.

use std::fs;

use crate::common::{Dir, tiny};
use fixtures::{Lattice, Shape, SyntheticCheckpoint, WeightKind};
use half::bf16;
use quantizer::BLOCK;
use quantizer::lattice::recover;
use serde_json::Value;

const BUNDLE: &str = "gemma4_e4b_qat_decode_int4lin";
/// The block that the documentation shows.
const SHOWN: [&str; 5] = ["layers.5.mlp.down_proj.weight", "--row", "3", "--block", "2"];

fn rule<'v>(explained: &'v Value, name: &str) -> &'v Value {
    explained["rules"].as_array().unwrap().iter().find(|made| made["rule"] == name).unwrap()
}

#[test]
fn every_rule_shows_the_codes_and_scales_that_are_packed() {
    let dir = Dir::new();
    let blocks = [
        ("layers.5.mlp.down_proj.weight", "3", "2"),
        ("layers.0.self_attn.q_proj.weight", "127", "3"),
        ("layers.11.per_layer_projection.weight", "0", "0"),
    ];
    for (name, format) in [("lattice", "int4lin"), ("q4_0", "int4q4_0"), ("absmax", "int4absmax")] {
        let bundle = format!("{name}/gemma4_e4b_qat_decode_{format}");
        dir.ok(&["convert", &tiny(), "-o", name, "--no-tables", "--rule", name, "--head", "int4"]);
        for (tensor, row, block) in blocks {
            let place = [tensor, "--row", row, "--block", block, "--json"];
            let source = dir.json(&[&["explain", &tiny()], &place[..]].concat());
            let packed = dir.json(&[&["explain", &bundle], &place[..]].concat());
            let made = rule(&source, name);
            for key in ["scale_bits", "codes"] {
                assert_eq!(made[key], packed[key], "{name} {tensor} {key}");
            }
            if name == "lattice" {
                assert_eq!(source["lattice"]["codes"], packed["codes"]);
                assert_eq!(made["exact"], 32);
            }
        }
    }
    assert_packed_bytes(&dir);
}

/// Codes and scale of the documentation's block, read from the file without the command.
fn assert_packed_bytes(dir: &Dir) {
    let bundle = format!("lattice/{BUNDLE}");
    let packed = dir.json(&[&["explain", &bundle], &SHOWN[..], &["--json"]].concat());
    let blobs = dir.json(&["inspect", &bundle, "--json"])["package"]["blobs"].clone();
    let offset = |part: &str| {
        let key = format!("{}/{part}", SHOWN[0]);
        let blob = blobs.as_array().unwrap().iter().find(|blob| blob["key"] == *key).unwrap();
        blob["offset"].as_u64().unwrap() as usize
    };
    let program = fs::read(crate::common::package(&dir.path(&bundle)).join("main.mlirb")).unwrap();
    // [128, 256]: row 3, block 2.
    let start = offset("codes") + (3 * 256 + 2 * 32) / 2;
    let codes: Vec<Value> = program[start..start + 16]
        .iter()
        .flat_map(|byte| [(byte << 4) as i8 >> 4, *byte as i8 >> 4])
        .map(Value::from)
        .collect();
    assert_eq!(packed["codes"], Value::from(codes));
    let scale = offset("scales") + 2 * (3 * 8 + 2);
    let bits = u16::from_le_bytes([program[scale], program[scale + 1]]);
    assert_eq!(packed["scale_bits"], bits);
}

/// The feasible interval is correct: its scales reproduce the block, others do not.
#[test]
fn the_interval_holds_the_scales_that_reproduce_the_block() {
    let dir = Dir::new();
    let explained = dir.json(&[&["explain", &tiny()], &SHOWN[..], &["--json"]].concat());
    let (lattice, source) = (&explained["lattice"], explained["source"].as_array().unwrap());
    let (low, high) = (&lattice["interval"]["lowest"], &lattice["interval"]["highest"]);
    let (low, high) = (low.as_f64().unwrap(), high.as_f64().unwrap());
    let sign = lattice["scale"].as_f64().unwrap().signum();
    let reproduces = |scale: f64| {
        source.iter().zip(lattice["codes"].as_array().unwrap()).all(|(weight, code)| {
            let product = code.as_f64().unwrap() * scale * sign;
            half::bf16::from_f64(product).to_f32() == weight.as_f64().unwrap() as f32
        })
    };
    // Rounding to bf16 goes by way of f32 here.
    let beyond = 1e-6 * high;
    assert!(reproduces(low + beyond) && reproduces(high - beyond));
    assert!(!reproduces(low - beyond) && !reproduces(high + beyond));
}

#[test]
fn the_documentation_shows_this_block() {
    let dir = Dir::new();
    let explained = dir.json(&[&["explain", &tiny()], &SHOWN[..], &["--json"]].concat());
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/quantization.md")).unwrap();
    for made in explained["rules"].as_array().unwrap() {
        let line = format!(
            "| `{}` | {} | {} | {:.2e} |",
            made["rule"].as_str().unwrap(),
            made["scale"].as_f64().unwrap() as f32,
            made["exact"],
            made["relative_error"].as_f64().unwrap()
        );
        assert!(text.contains(&line), "docs/quantization.md lacks the line\n{line}");
    }
}

#[test]
fn a_block_that_was_not_trained_on_a_lattice_is_reported() {
    let dir = Dir::new();
    let recipe = SyntheticCheckpoint {
        body: WeightKind::Off,
        towers: false,
        ..SyntheticCheckpoint::new(Shape::small())
    };
    recipe.write(&dir.path("off")).unwrap();
    let arguments = ["explain", "off", "layers.1.mlp.down_proj.weight"];
    assert!(dir.ok(&arguments).contains("does not lie on a lattice"));
    let explained = dir.json(&[&arguments[..], &["--json"]].concat());
    assert_eq!(explained["lattice"], Value::Null);
    let error = |name: &str| rule(&explained, name)["relative_error"].as_f64().unwrap();
    assert!(error("int8") < error("lattice") && error("lattice") <= error("absmax"));
    assert!(error("lattice") < 0.12 && error("q4_0") < 0.2);
}

#[test]
fn a_lattice_whose_scale_is_not_an_f16_number_is_reported() {
    let dir = Dir::new();
    let body = WeightKind::On(Lattice::F32Div75);
    SyntheticCheckpoint { body, towers: false, ..SyntheticCheckpoint::new(Shape::small()) }
        .write(&dir.path("f32"))
        .unwrap();
    let name = "layers.1.mlp.down_proj.weight";
    let tensor = format!("model.language_model.{name}");
    let bytes = fixtures::read(&dir.path("f32"), &tensor).unwrap();
    let weights = bytes.chunks_exact(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]));
    let weights: Vec<bf16> = weights.collect();
    let is_inexact = |block: &[bf16; BLOCK]| !recover(block).unwrap().is_exact;
    let at = weights.as_chunks().0.iter().position(is_inexact).unwrap();
    let columns = fixtures::locate(&dir.path("f32"), &tensor).unwrap().shape[1] as usize / BLOCK;
    let (row, block) = ((at / columns).to_string(), (at % columns).to_string());
    let arguments = ["explain", "f32", name, "--row", &row, "--block", &block];
    assert!(dir.ok(&arguments).contains("none of them is an f16 number"));
    let explained = dir.json(&[&arguments[..], &["--json"]].concat());
    let lattice = &explained["lattice"];
    assert_eq!(lattice["exact"], false);
    // The rule keeps its codes and scale, and loses less than rounding to bf16 did.
    let made = rule(&explained, "lattice");
    assert!(made["codes"] == lattice["codes"] && made["scale_bits"] == lattice["scale_bits"]);
    assert!(made["relative_error"].as_f64().unwrap() < 0.004);
    assert!((16..32).contains(&made["exact"].as_u64().unwrap()));
}

#[test]
fn what_cannot_be_explained_is_said() {
    let dir = Dir::new();
    let fails = |arguments: &[&str]| dir.fails(&[&["explain", &tiny()], arguments].concat());
    assert!(fails(&["down_proj.weight"]).contains("more than one tensor"));
    assert!(fails(&["mlp.sideways"]).contains("there is no tensor"));
    assert!(fails(&["layers.5.mlp.down_proj.weight", "--row", "128"]).contains("rows 0 to 127"));
    assert!(fails(&["layers.5.mlp.down_proj.weight", "--block", "8"]).contains("blocks 0 to 7"));
}
