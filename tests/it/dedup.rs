//! What a release costs to publish: the same weights are sent once, whichever bundle holds them.

use std::fs;
use std::path::Path;

use crate::common::{Dir, tree};
use crate::publish::{Scene, noise};
use fixtures::{Shape, SyntheticCheckpoint};

/// A decoder whose matrices are much larger than a chunk: 12 MB of int4 weights.
fn shape() -> Shape {
    Shape {
        vocabulary: 8192,
        hidden: 512,
        intermediate: 2048,
        heads: 4,
        head_dim: 128,
        global_head_dim: 128,
        per_layer: 64,
        ..Shape::small()
    }
}

/// Bytes of all files below a folder.
fn bytes(folder: &Path) -> u64 {
    tree(folder).iter().map(|(_, bytes)| bytes.len() as u64).sum()
}

/// Moves what a conversion made into the tree that is published; returns its size.
fn place(scene: &Scene, made: &str, name: &str) -> u64 {
    let target = scene.dir.path("tree").join(name);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    fs::rename(scene.dir.path(made), &target).unwrap();
    bytes(&target)
}

/// Publishes the tree; returns what was transferred for it.
fn transferred(scene: &Scene) -> u64 {
    let before = scene.uploads.storage().taken;
    scene.publish().unwrap();
    scene.uploads.storage().taken - before
}

/// Changes every matrix of one layer: its blocks move by one, so they are still blocks; returns the bytes of the layer.
fn tune_layer(model: &Path, layer: usize) -> u64 {
    let path = model.join("model.safetensors");
    let mut file = fs::read(&path).unwrap();
    let length = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..length]).unwrap();
    let mut changed = 0;
    for (name, tensor) in header.as_object().unwrap() {
        if !name.contains(&format!("layers.{layer}.")) || tensor["shape"].as_array().unwrap().len() < 2 {
            continue;
        }
        let place = |at: usize| length + tensor["data_offsets"][at].as_u64().unwrap() as usize;
        file[place(0)..place(1)].rotate_left(64);
        changed += (place(1) - place(0)) as u64;
    }
    fs::write(path, file).unwrap();
    changed
}

#[test]
fn the_same_weights_are_sent_once() {
    let scene = Scene::new();
    let dir: &Dir = &scene.dir;
    SyntheticCheckpoint::new(shape()).write(&dir.path("model")).unwrap();
    let convert = |variant: &str, out: &str| {
        dir.ok(&["convert", "model", "-o", out, "--variant", variant, "--name", "m", "--no-report"]);
    };
    convert("both", "out");
    let tables = place(&scene, "out/m_gather_raw", "tables");
    let provider = place(&scene, "out/m_decode_int4lin", "provider");
    let first = transferred(&scene);
    println!("provider and tables: {first} of {} bytes", provider + tables);

    let tbl = place(&scene, "out/m_decode_int4lin_tbl", "tbl");
    let second = transferred(&scene);
    println!("tbl: {second} of {tbl} bytes, {:.2} %", percent(second, tbl));
    assert!(second * 20 <= tbl, "{second} of {tbl}");

    // A stand-in for what a compiler makes: a program of its own, and the same weights at another place.
    let program = find(&dir.path("tree/provider"), "main.mlirb");
    let compiled = [noise(100_003, 7), fs::read(program).unwrap()].concat();
    scene.write("compiled/model_0.bin", &compiled);
    let third = transferred(&scene);
    println!(
        "ahead of time: {third} of {} bytes, {:.2} %",
        compiled.len(),
        percent(third, compiled.len() as u64)
    );
    assert!(third < 100_003 + compiled.len() as u64 / 20, "{third} of {}", compiled.len());

    convert("stock", "stock");
    let stock = place(&scene, &format!("stock/{}", dir.names("stock")[0]), "stock");
    let fourth = transferred(&scene);
    println!("stock: {fourth} of {stock} bytes, of which {} are its own tables", stock - provider);
    assert!(fourth * 10 <= (stock - provider) * 11, "{fourth} of {stock}, and {provider} are known");

    let layer = tune_layer(&dir.path("model"), 2);
    convert("provider", "tuned");
    let tuned = place(&scene, "tuned/m_decode_int4lin", "tuned");
    let fifth = transferred(&scene);
    println!("one layer tuned: {fifth} of {tuned} bytes; the layer has {} in int4", layer / 4);
    assert!(fifth < layer / 4 * 2, "{fifth} for a layer of {}", layer / 4);
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// The file of that name below a folder.
fn find(folder: &Path, name: &str) -> std::path::PathBuf {
    let found = tree(folder).into_iter().find(|(path, _)| path.ends_with(name));
    folder.join(found.unwrap().0)
}
