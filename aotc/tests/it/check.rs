//! What `check` says about siblings: nothing about good ones, the fault of damaged ones.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::common::{NAME, Scene};
use aotc::Platform;
use fixtures::data::ReferencePackage;
use output::Digest;
use packer::check::{ARCHITECTURES, Options, check};
use packer::metadata::BundleMetadata;
use packer::template::Conversation;

/// Names of the rules that the bundle breaks, with what is wrong; defects only.
fn defects(bundle: &Path) -> Vec<String> {
    let report = check(bundle, &Options::new(&Conversation::render)).unwrap();
    report.defects().map(|finding| format!("{}: {}", finding.id, finding.what)).collect()
}

/// A scene with a sibling that the stand-in made.
fn sibling() -> Scene {
    let scene = Scene::new();
    let outcome = scene.run(scene.request(&["h18p"]));
    assert!(outcome.failure.is_none(), "{outcome:?}");
    scene
}

fn has(defects: &[String], id: &str, what: &str) {
    let found = defects.iter().any(|defect| defect.starts_with(id) && defect.contains(what));
    assert!(found, "no {id} with '{what}' among {defects:?}");
}

#[test]
fn a_good_sibling_is_accepted() {
    let scene = sibling();
    assert_eq!(defects(&scene.sibling("h18p")), [] as [String; 0]);
}

#[test]
fn another_architecture_inside_is_found() {
    let scene = sibling();
    let sibling = scene.sibling("h18p");
    let artifact = sibling.join(format!("{NAME}.h18p.aimodelc"));
    fs::rename(artifact.join("main-h18p.mlirb"), artifact.join("main-h17p.mlirb")).unwrap();
    fs::rename(artifact.join("main-h18p-delegates"), artifact.join("main-h17p-delegates")).unwrap();
    has(&defects(&sibling), "compiled.architecture", "the program inside is for h17p");
}

#[test]
fn a_stale_artifact_is_found() {
    let scene = sibling();
    // The source is converted again: another program under the same name, with a matching digest and manifest.
    let package = scene.bundle.join(format!("{NAME}.aimodel"));
    let other = ReferencePackage::ProviderInt8.path();
    for file in ["main.mlirb", "main.hash"] {
        fs::copy(other.join(file), package.join(file)).unwrap();
    }
    fs::remove_file(scene.bundle.join("manifest.json")).unwrap();
    has(&defects(&scene.sibling("h18p")), "compiled.stale", "now holds");
}

#[test]
fn a_missing_main_asset_is_found() {
    let scene = sibling();
    let sibling = scene.sibling("h18p");
    let mut metadata = BundleMetadata::read(&sibling).unwrap();
    metadata.assets.insert("main".into(), "elsewhere.h18p.aimodelc".into());
    metadata.write(&sibling).unwrap();
    has(&defects(&sibling), "metadata.", "elsewhere.h18p.aimodelc");
}

#[test]
fn a_damaged_program_is_found() {
    let scene = sibling();
    let sibling = scene.sibling("h18p");
    let program = sibling.join(format!("{NAME}.h18p.aimodelc/main-h18p.mlirb"));
    let mut bytes = fs::read(&program).unwrap();
    bytes[77] ^= 4;
    fs::write(&program, &bytes).unwrap();
    assert_ne!(
        Digest::of_bytes(&bytes).as_bytes()[..],
        fs::read(program.with_file_name("main.hash")).unwrap()
    );
    has(&defects(&sibling), "compiled.hash", "main-h18p.mlirb");
}

/// `check` knows the architectures that the stage compiles for, no more and no fewer.
#[test]
fn both_lists_of_architectures_are_equal() {
    let of = |platform: Platform| platform.architectures().iter().copied();
    let ours: BTreeSet<&str> = of(Platform::Ios).chain(of(Platform::Macos)).collect();
    assert_eq!(ours, BTreeSet::from(ARCHITECTURES));
}
