//! Faults of the files themselves, and of what the manifest says about them.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use crate::check::fixture::{PROVIDER, Release, assert_found};

/// Plants a fault in a bundle that is not sealed again.
macro_rules! file_faults {
    ($($name:ident: $plant:expr => [$($id:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let release = Release::new();
            let bundle = release.bundle(PROVIDER);
            let plant: fn(&crate::check::fixture::Folder) = $plant;
            plant(&bundle);
            assert_found(&bundle.check(), &[$($id),*]);
        })*
    };
}

file_faults! {
    asset_file_that_is_a_link: |b| {
        let program = b.in_asset("main.mlirb");
        b.rename(&program, "../blob");
        symlink(b.path("../blob"), b.path(&program)).unwrap();
    } => ["files.symlink", "manifest.file-missing"];
    asset_that_is_a_link: |b| {
        b.rename(&b.asset(), "../asset");
        symlink("../asset", b.path(&b.asset())).unwrap();
    } => ["files.symlink", "manifest.file-missing", "manifest.file-missing", "manifest.file-missing"];
    dangling_link: |b| symlink("nowhere", b.path("tokenizer/extra")).unwrap() => ["files.symlink"];
    socket: |b| drop(UnixListener::bind(b.path("s")).unwrap()) => ["files.irregular"];
    empty_file: |b| b.write("tokenizer/added_tokens.json", "") => ["files.empty", "manifest.unlisted"];
    leftover_of_a_file_manager: |b| b.write("tokenizer/.DS_Store", "x") => ["files.leftover"];
    leftover_that_the_manifest_lists: |b| {
        b.write(".DS_Store", "x");
        b.seal();
    } => ["files.leftover"];
    leftover_of_a_killed_run: |b| {
        std::fs::create_dir(b.path(".x.aimodel.partial-7-0")).unwrap();
        b.write(".x.aimodel.partial-7-0/main.mlirb", "half");
        b.write(".x.aimodel.partial-7-0/main.hash", "half");
    } => ["files.leftover"];
    stray_file: |b| b.write("notes.txt", "x") => ["manifest.unlisted"];
    stray_file_without_a_manifest: |b| {
        b.write("notes.txt", "x");
        b.remove("manifest.json");
    } => ["manifest.missing", "files.unexpected"];
    no_manifest: |b| b.remove("manifest.json") => ["manifest.missing"];
    gate_that_failed: |b| b.json("manifest.json", |m| {
        m["gate"] = serde_json::json!({"passed": false, "agreed": 176, "qualified": 187});
    }) => ["manifest.gate"];
    gate_that_passed: |b| b.json("manifest.json", |m| m["gate"] = serde_json::json!({"passed": true})) => [];
    manifest_that_is_no_json: |b| b.write("manifest.json", "sha256sums") => ["manifest.unreadable"];
    manifest_that_leaves_the_folder: |b| b.json("manifest.json", |m| {
        m["files"][0]["path"] = "../../LICENSE".into();
    }) => ["manifest.unreadable"];
    listed_file_that_is_missing: |b| b.remove("tokenizer/generation_config.json") =>
        ["manifest.file-missing", "tokenizer.incomplete"];
    truncated_file: |b| {
        let text = b.read("tokenizer/tokenizer.json");
        b.write("tokenizer/tokenizer.json", &text[..text.len() - 1]);
    } => ["manifest.size", "tokenizer.not-json"];
    flipped_bit: |b| {
        let path = b.in_asset("main.mlirb");
        let mut program = b.read(&path);
        program[600_000] ^= 1;
        b.write(&path, program);
    } => ["manifest.digest", "package.hash"];
    file_edited_afterwards: |b| b.replace("tokenizer/tokenizer_config.json", "4096", "8192") =>
        ["manifest.digest"];
}

#[cfg(target_os = "linux")]
#[test]
fn name_that_is_not_text() {
    use std::os::unix::ffi::OsStrExt;
    let release = Release::new();
    let bundle = release.bundle(PROVIDER);
    std::fs::write(bundle.0.join(std::ffi::OsStr::from_bytes(b"\xff")), "x").unwrap();
    assert_found(&bundle.check(), &["files.irregular"]);
}
