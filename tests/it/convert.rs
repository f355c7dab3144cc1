//! `convert` as a user runs it: what it writes, that it always writes the same, and how it refuses.

use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::{Dir, both, text, tiny, tree};
use aimodel::package::Package;
use fixtures::{Dtype, Lattice, Shape, SyntheticCheckpoint, WeightKind, damage};
use half::{bf16, f16};
use serde_json::Value;

const BUNDLE: &str = "gemma4_e4b_qat_decode_int4lin";

/// A small synthetic checkpoint called `model` in the folder.
fn synthetic(dir: &Dir, change: impl FnOnce(&mut SyntheticCheckpoint)) {
    // As many tokens as the tokenizer that is copied into it.
    let mut recipe = SyntheticCheckpoint::new(Shape { vocabulary: 512, ..Shape::small() });
    change(&mut recipe);
    recipe.write(&dir.path("model")).unwrap();
}

#[test]
fn the_tiny_checkpoint_keeps_every_weight() {
    let dir = Dir::new();
    let result = dir.json(&["convert", &tiny(), "-o", "out", "--variant", "both", "--json"]);
    let totals = &result["weights"][0];
    assert_eq!(totals["format"], "int4");
    assert_eq!(totals["blocks"], 61_952);
    assert_eq!(totals["blocks_on_lattice"], totals["blocks"]);
    assert_eq!(totals["blocks_exact"], totals["blocks"]);
    assert_eq!(totals["weights_exact"], totals["weights"]);
    assert_eq!(result["head"]["format"], "int4");
    assert_eq!(
        dir.names("out"),
        ["gemma4_e4b_qat_decode_int4lin", "gemma4_e4b_qat_decode_int4lin_tbl", "gemma4_e4b_qat_gather_raw"]
    );
}

/// A packed matrix.
struct Matrix {
    /// Name of its tensor in the tiny checkpoint.
    tensor: String,
    codes: Vec<i8>,
    scales: Vec<f16>,
}

/// The int4 matrices of the bundle in a folder.
fn packed(out: &Path) -> Vec<Matrix> {
    let package = Package::open(&crate::common::package(&out.join(BUNDLE))).unwrap();
    let program = std::fs::read(package.program()).unwrap();
    let module = &package.bytecode.module;
    let blob = |key: &str| {
        let range = package.bytecode.blobs[module.find_resource(key).unwrap().index()];
        &program[range.offset as usize..(range.offset + range.length) as usize]
    };
    let matrix = |name: &str| {
        let pairs = blob(&format!("{name}/codes")).iter();
        let scales = blob(&format!("{name}/scales")).chunks_exact(2);
        let stored = if name == "lm_head.weight" { "embed_tokens.weight" } else { name };
        Matrix {
            tensor: format!("model.language_model.{stored}"),
            codes: pairs.flat_map(|pair| [(pair << 4) as i8 >> 4, *pair as i8 >> 4]).collect(),
            scales: scales.map(|scale| f16::from_le_bytes([scale[0], scale[1]])).collect(),
        }
    };
    let names = module.resources().filter_map(|resource| resource.key.strip_suffix("/codes"));
    names.map(matrix).collect()
}

/// What is claimed about the weights is true for the file on disk: codes times scales, rounded to bf16, are the checkpoint's bytes.
#[test]
fn the_written_file_reproduces_the_checkpoint_byte_for_byte() {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--no-tables"]);
    let matrices = packed(&dir.path("out"));
    assert_eq!(matrices.len(), 100);
    for Matrix { tensor, codes, scales } in matrices {
        let source = fixtures::read(&fixtures::data::tiny_checkpoint(), &tensor).unwrap();
        for (at, weight) in source.chunks_exact(2).enumerate() {
            let made = bf16::from_f32(f32::from(codes[at]) * scales[at / 32].to_f32());
            let weight = bf16::from_le_bytes([weight[0], weight[1]]);
            assert!(made == weight, "{tensor} element {at}: {made} is not {weight}");
        }
    }
}

/// The tiny checkpoint again, as training leaves it: the same codes, but with arbitrary f32 scales. Returns the codes.
fn remake_with_f32_scales(dir: &Dir, name: &str) -> Vec<Matrix> {
    dir.ok(&["convert", &tiny(), "-o", "bf16-scales", "--no-tables"]);
    let matrices = packed(&dir.path("bf16-scales"));
    std::fs::create_dir(dir.path(name)).unwrap();
    for entry in std::fs::read_dir(tiny()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path(name).join(entry.file_name())).unwrap();
    }
    let mut state = 1_u32;
    for Matrix { tensor, codes, scales } in &matrices {
        let mut bytes = Vec::with_capacity(2 * codes.len());
        for (codes, scale) in codes.chunks_exact(32).zip(scales) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let scale = scale.to_f32() * (1.0 + (state >> 8) as f32 / (1 << 24) as f32);
            let weights = codes.iter().map(|code| bf16::from_f32(f32::from(*code) * scale));
            bytes.extend(weights.flat_map(bf16::to_le_bytes));
        }
        let place = fixtures::locate(&dir.path(name), tensor).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&place.file).unwrap();
        file.write_all_at(&bytes, place.offset).unwrap();
    }
    matrices
}

#[test]
fn a_lattice_whose_scales_are_f32_numbers_keeps_every_code() {
    let dir = Dir::new();
    let made_with = remake_with_f32_scales(&dir, "model");
    let arguments = ["convert", "model", "-o", "out", "--no-tables", "--name", "gemma4_e4b_qat"];
    let output = dir.command(&arguments).output().unwrap();
    assert!(output.status.success() && !both(&output).contains("warning"), "{}", both(&output));
    let line = text(&output.stdout).lines().find(|line| line.starts_with("int4:")).unwrap().to_owned();
    assert!(line.starts_with("int4: 61 952 blocks, 100.00 % on the lattice ("), "{line}");
    assert!(line.contains(" with an f16 scale), 99."), "{line}");
    assert!(text(&output.stderr).contains("head: int4, 100.00 %"), "{}", both(&output));
    for (found, made) in packed(&dir.path("out")).iter().zip(&made_with) {
        assert!(found.tensor == made.tensor && found.codes == made.codes, "{}", made.tensor);
    }
    let manifest = std::fs::read(dir.path("out").join(BUNDLE).join("manifest.json")).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let conversion = &manifest["conversion"];
    assert_eq!(conversion["head"]["off_lattice"], false);
    let count = |key: &str| conversion["totals"][0][key].as_u64().unwrap() as f64;
    assert_eq!(count("blocks_on_lattice"), count("blocks"));
    // About 97 %, with some variation over 62 thousand random scales: where no f16 number fits, there is no scale.
    assert!(count("blocks_exact") >= 0.968 * count("blocks"), "{line}");
    assert!(count("weights_exact") >= 0.994 * count("weights"), "{line}");
    let sample = |part: &str, key: &str| conversion["head"][part][key].as_u64().unwrap();
    for part in ["head", "body"] {
        assert_eq!(sample(part, "on_lattice"), sample(part, "blocks"));
        assert!(sample(part, "exact") < sample(part, "blocks"), "{part}");
    }
}

#[test]
fn the_same_input_makes_the_same_bytes_on_any_number_of_threads() {
    let dir = Dir::new();
    for (out, threads) in [("a", "1"), ("b", "2"), ("c", "2")] {
        dir.ok(&["convert", &tiny(), "-o", out, "--variant", "both", "--threads", threads]);
    }
    let first = tree(&dir.path("a"));
    assert!(first.len() > 20);
    assert!(first == tree(&dir.path("b")) && first == tree(&dir.path("c")));
}

#[test]
fn pruned_unpruned_and_sharded_checkpoints_make_equal_bundles() {
    let dir = Dir::new();
    let write = |name: &str, dead_kv: bool, shards: usize| {
        let recipe = SyntheticCheckpoint { dead_kv, shards, ..SyntheticCheckpoint::new(Shape::e2b_like()) };
        recipe.write(&dir.path(name)).unwrap();
        dir.ok(&["convert", name, "-o", &format!("{name}.out"), "--name", "model", "--variant", "both"]);
        let mut files = tree(&dir.path(&format!("{name}.out")));
        // The manifest lists the checkpoint's files, which differ.
        files.retain(|(path, _)| !path.ends_with("manifest.json"));
        files
    };
    let pruned = write("pruned", false, 1);
    assert!(pruned == write("unpruned", true, 1));
    assert!(pruned == write("sharded", true, 3));
}

#[test]
fn the_head_gets_a_separate_format() {
    let dir = Dir::new();
    let format = |arguments: &[&str]| {
        let plan = dir.json(&[&["convert", "model", "--dry-run", "--json"], arguments].concat());
        plan["head"]["format"].as_str().unwrap().to_owned()
    };
    synthetic(&dir, |recipe| recipe.embedding = WeightKind::Off);
    assert_eq!(format(&[]), "int8");
    assert_eq!(format(&["--head", "int4"]), "int4");
    assert_eq!(format(&["--head", "f16"]), "f16");
    assert_eq!(format(&["--weights", "int8"]), "int8");
    assert_eq!(format(&["--weights", "f16"]), "f16");

    std::fs::remove_dir_all(dir.path("model")).unwrap();
    synthetic(&dir, |recipe| (recipe.embedding, recipe.body) = (WeightKind::Off, WeightKind::Off));
    assert_eq!(format(&[]), "int4");
    let output = dir.command(&["convert", "model", "-o", "out"]).output().unwrap();
    assert!(text(&output.stderr).contains("not a QAT checkpoint"), "{}", both(&output));
    assert!(text(&output.stderr).contains("warning:"), "{}", both(&output));
}

#[test]
fn a_separate_head_wins_over_the_tie() {
    let dir = Dir::new();
    synthetic(&dir, |recipe| recipe.untied_head = Some(WeightKind::On(Lattice::Bf16Div7Signed7)));
    let plan = dir.json(&["convert", "model", "--dry-run", "--json"]);
    let blobs = plan["graphs"][0]["blobs"].as_array().unwrap();
    let head = blobs.iter().find(|blob| blob["key"] == "lm_head.weight/codes").unwrap();
    assert_eq!(head["tensor"], "lm_head.weight");
}

/// Both real configurations, as checkpoints with real headers and holes for data.
#[test]
fn the_real_sizes_are_planned_at_once() {
    for (config, tables, graph) in [
        (fixtures::data::e4b_config(), 3_601_859_584_u64, 3.6..3.8),
        (fixtures::data::e2b_config(), 2_790_000_000, 1.5..3.0),
    ] {
        let dir = Dir::new();
        let recipe = SyntheticCheckpoint {
            sparse: true,
            shards: 3,
            ..SyntheticCheckpoint::from_config(&config).unwrap()
        };
        recipe.write(&dir.path("model")).unwrap();
        let plan = dir.json(&["convert", "model", "--variant", "both", "--dry-run", "--json"]);
        let bytes = |value: &Value| value.as_u64().unwrap();
        let gib = bytes(&plan["graphs"][0]["bytes"]) as f64 / f64::from(1 << 30);
        assert!(graph.contains(&gib), "{gib} GiB");
        let files = plan["tables"]["files"].as_array().unwrap();
        let planned: u64 = files.iter().map(|file| bytes(&file["bytes"])).sum();
        if config == fixtures::data::e4b_config() {
            assert_eq!(planned, tables);
        } else {
            assert!(planned > tables, "{planned}");
        }
        // Every blob lies after the one before it, and every tensor of the decoder is in the plan.
        let blobs = plan["graphs"][0]["blobs"].as_array().unwrap();
        for pair in blobs.windows(2) {
            assert!(bytes(&pair[0]["offset"]) + bytes(&pair[0]["bytes"]) <= bytes(&pair[1]["offset"]));
        }
        let listing = dir.ok(&["convert", "model", "--dry-run"]);
        assert!(listing.contains("layers.17.mlp.down_proj.weight/codes"));
        assert!(listing.contains("layers.17.layer_scalar"));
        assert_eq!(dir.names("."), ["model"], "a dry run writes nothing");
    }
}

#[test]
fn a_finished_file_equals_its_plan() {
    let dir = Dir::new();
    let plan = dir.json(&["convert", &tiny(), "--dry-run", "--json"]);
    dir.ok(&["convert", &tiny(), "-o", "out"]);
    let program = crate::common::package(&dir.path("out").join(BUNDLE)).join("main.mlirb");
    assert_eq!(plan["graphs"][0]["bytes"], std::fs::metadata(program).unwrap().len());
}

/// A fault of a checkpoint: how it is made, and what the message must say.
type Fault = (&'static str, fn(&Dir), &'static [&'static str]);

const DOWN: &str = "model.language_model.layers.1.mlp.down_proj.weight";

const FAULTS: &[Fault] = &[
    (
        "missing shard",
        |dir| std::fs::remove_file(shard(dir, 1)).unwrap(),
        &["model-00002-of-00003.safetensors"],
    ),
    (
        "truncated shard",
        |dir| damage::truncate(&shard(dir, 2), 100).unwrap(),
        &["model-00003-of-00003.safetensors"],
    ),
    (
        "header longer than the file",
        |dir| damage::set_header_length(&shard(dir, 0), 1 << 60).unwrap(),
        &["header"],
    ),
    ("dropped tensor", |dir| damage::drop_tensor(&dir.path("model"), DOWN).unwrap(), &[DOWN]),
    (
        "index names an absent tensor",
        |dir| damage::drop_stored(&dir.path("model"), DOWN).unwrap(),
        &[DOWN, "index"],
    ),
    (
        "wrong shape",
        |dir| damage::retype(&dir.path("model"), DOWN, Dtype::Bf16, &[96, 64]).unwrap(),
        &[DOWN, "[96, 64]", "[64, 96]"],
    ),
    (
        "wrong dtype",
        |dir| damage::retype(&dir.path("model"), DOWN, Dtype::F16, &[64, 96]).unwrap(),
        &[DOWN, "F16", "BF16"],
    ),
    (
        "NaN in a weight",
        |dir| damage::put_bf16(&dir.path("model"), DOWN, 4321, 0x7FC0).unwrap(),
        &[DOWN, "4321"],
    ),
    (
        "MoE",
        |dir| {
            let change = |config: &mut Value| text_part(config)["enable_moe_block"] = true.into();
            damage::edit_config(&dir.path("model"), change).unwrap();
        },
        &["enable_moe_block"],
    ),
    (
        "keys used as values",
        |dir| {
            let change = |config: &mut Value| text_part(config)["attention_k_eq_v"] = true.into();
            damage::edit_config(&dir.path("model"), change).unwrap();
        },
        &["attention_k_eq_v"],
    ),
    (
        "unknown layer type",
        |dir| {
            let change =
                |config: &mut Value| text_part(config)["layer_types"][0] = "chunked_attention".into();
            damage::edit_config(&dir.path("model"), change).unwrap();
        },
        &["layer_types", "chunked_attention"],
    ),
    (
        "no chat template",
        |dir| std::fs::remove_file(dir.path("model").join("chat_template.jinja")).unwrap(),
        &["chat template", "--no-chat-template"],
    ),
];

fn text_part(config: &mut Value) -> &mut Value {
    &mut config["text_config"]
}

fn shard(dir: &Dir, at: usize) -> std::path::PathBuf {
    let shards = dir.names("model").into_iter().filter(|name| name.ends_with("of-00003.safetensors"));
    dir.path("model").join(shards.collect::<Vec<_>>()[at].clone())
}

#[test]
fn every_fault_of_a_checkpoint_is_named_and_leaves_nothing() {
    for (name, spoil, expected) in FAULTS {
        let dir = Dir::new();
        synthetic(&dir, |recipe| recipe.shards = 3);
        spoil(&dir);
        let message = dir.fails(&["convert", "model", "-o", "out", "--variant", "both"]);
        for part in *expected {
            assert!(message.contains(part), "{name}: {part:?} is not in: {message}");
        }
        assert!(message.starts_with("error: ") || message.contains("\nerror: "), "{name}: {message}");
        assert_eq!(dir.names("out"), [""; 0], "{name}");
    }
}

#[test]
fn a_last_axis_off_the_block_is_refused_unless_it_stays_f16() {
    let dir = Dir::new();
    synthetic(&dir, |recipe| {
        let shape = Shape { intermediate: 72, ..recipe.shape.clone() };
        *recipe = SyntheticCheckpoint { body: WeightKind::Off, ..SyntheticCheckpoint::new(shape) };
    });
    let message = dir.fails(&["convert", "model", "-o", "out"]);
    assert!(message.contains("down_proj") && message.contains("72"), "{message}");
    assert_eq!(dir.names("out"), [""; 0]);
    dir.ok(&["convert", "model", "-o", "out", "--weights", "f16"]);
}

#[test]
fn an_output_is_replaced_only_when_asked() {
    let dir = Dir::new();
    synthetic(&dir, |_| {});
    let convert = ["convert", "model", "-o", "out", "--name", "m"];
    dir.ok(&convert);
    let before = tree(&dir.path("out"));
    let message = dir.fails(&convert);
    assert!(message.contains("m_decode_int4lin") && message.contains("--force"), "{message}");
    assert!(before == tree(&dir.path("out")));
    dir.ok(&[&convert[..], &["--force"]].concat());
    assert!(before == tree(&dir.path("out")));
}

#[test]
fn an_output_folder_that_cannot_be_made_is_named() {
    let dir = Dir::new();
    synthetic(&dir, |_| {});
    std::fs::write(dir.path("file"), "").unwrap();
    let message = dir.fails(&["convert", "model", "-o", "file/out"]);
    assert!(message.contains("file"), "{message}");
}

#[test]
fn odd_options_are_refused() {
    let dir = Dir::new();
    synthetic(&dir, |_| {});
    for (arguments, expected) in [
        (&["--max-context", "1000"][..], "256, 512, 1024"),
        (&["--max-context", "1073741824"], "positions"),
        (&["--name", "a/b"], "--name"),
        (&["--tables", "model"], "manifest.json"),
    ] {
        let message = dir.fails(&[&["convert", "model", "-o", "out"], arguments].concat());
        assert!(message.contains(expected), "{arguments:?}: {message}");
    }
}
