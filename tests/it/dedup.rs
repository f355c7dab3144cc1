//! What a release costs to publish: the same weights are sent once, whichever bundle holds them.

use std::fs;
use std::path::Path;

use crate::common::{Dir, tree};
use crate::publish::{Scene, noise};
use fixtures::{Shape, SyntheticCheckpoint};
use serde_json::Value;

/// A decoder whose matrices are much larger than a chunk: packages of some 25 MB.
fn shape() -> Shape {
    Shape {
        vocabulary: 8192,
        hidden: 512,
        intermediate: 2048,
        heads: 4,
        head_dim: 128,
        global_head_dim: 128,
        per_layer: 256,
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

#[test]
fn the_same_weights_are_sent_once() {
    let scene = Scene::new();
    let dir: &Dir = &scene.dir;
    SyntheticCheckpoint::new(shape()).write(&dir.path("model")).unwrap();
    let convert = ["convert", "model", "-o", "out", "--name", "m", "--no-report", "--variant"];
    dir.ok(&[&convert[..], &["both"]].concat());
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

    // What it holds besides the shared weights is its own table.
    dir.ok(&[&convert[..], &["stock"]].concat());
    let stock = place(&scene, "out/m_decode_int4lin_stock", "stock");
    let blobs = |name: &str| {
        dir.json(&["inspect", &format!("tree/{name}"), "--blobs", "--json"])["package"]["blobs"].take()
    };
    let (of_provider, of_stock) = (blobs("provider"), blobs("stock"));
    let is_own =
        |blob: &&Value| of_provider.as_array().unwrap().iter().all(|other| other["key"] != blob["key"]);
    let own = of_stock.as_array().unwrap().iter().filter(is_own).map(|blob| blob["bytes"].as_u64().unwrap());
    let (table, fourth) = (own.sum::<u64>(), transferred(&scene));
    println!("stock: {fourth} of {stock} bytes, {table} of them its own, {:.2} %", percent(fourth, table));
    assert!(fourth * 10 <= table * 11, "{fourth} for {table}");

    // One layer of the checkpoint changes.
    let mut changed = 0;
    for name in ["gate_proj", "up_proj", "down_proj"] {
        let name = format!("model.language_model.layers.1.mlp.{name}.weight");
        fixtures::damage::edit(&dir.path("model"), &name, |tensor| {
            // Codes and a scale for 32 weights of two bytes.
            changed += tensor.data.len() as u64 / 64 * 18;
            tensor.data = tensor.data.chunks(2).rev().flatten().copied().collect();
        })
        .unwrap();
    }
    dir.ok(&[&convert[..], &["provider", "--no-tables", "--force"]].concat());
    fs::remove_dir_all(dir.path("tree/provider")).unwrap();
    place(&scene, "out/m_decode_int4lin", "provider");
    let fifth = transferred(&scene);
    println!("one layer: {fifth} of {provider} bytes, {changed} of them changed");
    // Chunks of 64 kB at the borders of each matrix, and the manifest.
    assert!(fifth < changed + 6 * 2 * 65_536 + 65_536, "{fifth} for {changed}");
}

/// As a release is published: everything at once, so that nothing of it is on the Hub yet.
#[test]
fn the_same_weights_of_one_release_are_sent_once() {
    let scene = Scene::new();
    let dir: &Dir = &scene.dir;
    SyntheticCheckpoint::new(shape()).write(&dir.path("model")).unwrap();
    dir.ok(&["convert", "model", "-o", "out", "--variant", "both", "--name", "m", "--no-report"]);
    let tables = place(&scene, "out/m_gather_raw", "tables");
    let provider = place(&scene, "out/m_decode_int4lin", "provider");
    let tbl = place(&scene, "out/m_decode_int4lin_tbl", "tbl");
    let all = transferred(&scene);
    println!("all at once: {all} of {} bytes", provider + tables + tbl);
    assert!(all <= provider + tables + tbl / 20, "{all} of {} and {tbl}", provider + tables);
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// The file of that name below a folder.
fn find(folder: &Path, name: &str) -> std::path::PathBuf {
    let found = tree(folder).into_iter().find(|(path, _)| path.ends_with(name));
    folder.join(found.unwrap().0)
}
