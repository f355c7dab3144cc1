//! What a release costs to publish: the same weights are sent once, whichever bundle holds them.

use std::fs;
use std::path::Path;

use crate::common::{Dir, tree};
use crate::publish::{Scene, noise};
use fixtures::{Shape, SyntheticCheckpoint};

/// A decoder whose matrices are much larger than a chunk: a package of 24 MB.
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

#[test]
fn the_same_weights_are_sent_once() {
    let scene = Scene::new();
    let dir: &Dir = &scene.dir;
    SyntheticCheckpoint::new(shape()).write(&dir.path("model")).unwrap();
    dir.ok(&["convert", "model", "-o", "out", "--variant", "both", "--name", "m", "--no-report"]);
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
}

fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole as f64
}

/// The file of that name below a folder.
fn find(folder: &Path, name: &str) -> std::path::PathBuf {
    let found = tree(folder).into_iter().find(|(path, _)| path.ends_with(name));
    folder.join(found.unwrap().0)
}
