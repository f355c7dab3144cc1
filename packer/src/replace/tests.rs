use super::*;
use std::fs;
use std::os::unix::fs::symlink;

use crate::manifest::{Provenance, seal};
use tempfile::TempDir;

fn scratch() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn refusal(input: &Path, target: &Path) -> String {
    let output = Outputs::new([input], true).folder(ManifestKind::Bundle);
    output.may_write(target).err().unwrap_or_default()
}

#[test]
fn an_output_must_not_overlap_inputs_by_any_path() {
    let scratch = scratch();
    let path = |name: &str| scratch.path().join(name);
    fs::create_dir_all(path("a/input/inner")).unwrap();
    fs::write(path("a/input/file"), "").unwrap();
    symlink("a", path("link")).unwrap();
    symlink("input", path("a/same")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    let input = path("a/input");
    for (target, words) in [
        ("a/input", "is an input"),
        ("a/same", "is an input"),
        ("link/same", "is an input"),
        ("a/b/../input", "is an input"),
        ("a/b/c/../../same", "is an input"),
        ("a/input/inner", "is inside the input"),
        ("a/input/new/deep", "is inside the input"),
        ("link/same/new", "is inside the input"),
        ("b/../a/input/new", "is inside the input"),
        ("a", "holds the input"),
        ("link", "holds the input"),
        (".", "holds the input"),
        ("a/input/../../a", "holds the input"),
        ("a/input2", ""),
        ("b/a/input", ""),
        ("a/input/../other", ""),
        ("dangling", ""),
    ] {
        let reason = refusal(&input, &path(target));
        assert!(reason.starts_with(words) && reason.is_empty() == words.is_empty(), "{target}: {reason}");
    }
    assert!(refusal(&path("a/input/file"), &path("a/input")).starts_with("holds"));
    assert!(refusal(&path("link/same/file"), &path("a/input/file")).starts_with("is an input"));
    assert_eq!(refusal(Path::new("owner/name"), &path("a")), "", "a repository is not a folder");
}

#[test]
fn one_file_by_two_names_is_one_input() {
    let scratch = scratch();
    let (input, target) = (scratch.path().join("input"), scratch.path().join("target"));
    fs::write(&input, "x").unwrap();
    fs::hard_link(&input, &target).unwrap();
    assert!(refusal(&input, &target).starts_with("is an input"));
}

/// A sealed folder with two files.
fn sealed(kind: ManifestKind) -> TempDir {
    let folder = scratch();
    fs::create_dir(folder.path().join("inner")).unwrap();
    fs::write(folder.path().join("inner/a"), "a").unwrap();
    fs::write(folder.path().join("b"), "b").unwrap();
    seal(folder.path(), kind, "name", Provenance::default(), &[]).unwrap();
    folder
}

#[test]
fn a_folder_is_ours_only_if_its_manifest_lists_everything() {
    let may_replace = |folder: &TempDir| folder::may_replace(folder.path(), ManifestKind::Bundle);
    assert_eq!(may_replace(&scratch()), Ok(()), "nothing is in it");
    let folder = sealed(ManifestKind::Bundle);
    assert_eq!(may_replace(&folder), Ok(()));
    fs::write(folder.path().join("inner/._a"), "").unwrap();
    fs::create_dir(folder.path().join("empty")).unwrap();
    fs::remove_file(folder.path().join("b")).unwrap();
    assert_eq!(may_replace(&folder), Ok(()), "a file manager looked into it, and a file was lost");

    let reason = may_replace(&sealed(ManifestKind::Tables)).unwrap_err();
    assert!(reason.contains("is a table folder, but the output is a bundle"), "{reason}");
    for foreign in ["c", "inner/c", "inner/manifest.json", ".gitignore"] {
        let folder = sealed(ManifestKind::Bundle);
        fs::write(folder.path().join(foreign), "").unwrap();
        let reason = may_replace(&folder).unwrap_err();
        assert!(reason.contains(&format!("it holds {foreign:?}")), "{reason}");
    }
    // A link instead of a listed file was put there by somebody else.
    let folder = sealed(ManifestKind::Bundle);
    fs::remove_file(folder.path().join("b")).unwrap();
    symlink("inner/a", folder.path().join("b")).unwrap();
    assert!(may_replace(&folder).unwrap_err().contains("it holds \"b\""));
}

#[test]
fn other_manifests_are_not_ours() {
    let sound = sealed(ManifestKind::Bundle);
    let sound = fs::read_to_string(sound.path().join("manifest.json")).unwrap();
    let texts = ["", "{}", "[]", r#"{"name": "page", "manifest_version": 3}"#, &sound[..sound.len() / 2]];
    for text in texts.map(str::to_owned).into_iter().chain([sound.replace("\"bundle\"", "\"other\"")]) {
        let folder = scratch();
        fs::write(folder.path().join("manifest.json"), &text).unwrap();
        let reason = folder::may_replace(folder.path(), ManifestKind::Bundle).unwrap_err();
        assert!(reason.contains("no manifest.json of this tool"), "{text}: {reason}");
    }
    // A pipe is not opened, because it has no writer.
    let folder = scratch();
    let pipe = folder.path().join("manifest.json");
    assert!(std::process::Command::new("mkfifo").arg(pipe).status().unwrap().success());
    assert!(folder::may_replace(folder.path(), ManifestKind::Bundle).is_err());
}

#[test]
fn files_are_ours_by_their_beginning() {
    let scratch = scratch();
    let path = scratch.path().join("file");
    let is_ours = |kind: FileKind, content: &[u8]| {
        fs::write(&path, content).unwrap();
        kind.may_replace(&path).is_ok()
    };
    let kinds: [(FileKind, &[u8]); 8] = [
        (FileKind::Oracle, b"{\n \"reference\": \"transformers 5\",\n \"cases\": []}"),
        (FileKind::Probe, b"{\"prompt_ids\":[2],\"generated_ids\":[3]}"),
        (FileKind::ReportFacts, b"{\"name\":\"m\",\"tool\":\"coreai-bundle 0.1.0\"}"),
        (FileKind::ReportPage, b"<!doctype html><meta name=\"generator\" content=\"coreai-bundle 0.1.0\">"),
        (
            FileKind::Safetensors,
            b"........{\"__metadata__\":{\"ple_zero_point\":\"0\"},\"embed_tokens_per_layer\":{}}",
        ),
        (FileKind::Script, b"#!/bin/bash\n# Written by coreai-bundle 0.1.0."),
        (FileKind::CompileReport, b"{\n  \"report\": 1,\n  \"tool\": \"coreai-bundle 0.1.0\"\n}"),
        (FileKind::CompileLog, b"$ xcrun coreai-build"),
    ];
    for (kind, content) in kinds {
        assert!(is_ours(kind, content) && is_ours(kind, b""), "{kind:?}");
        for (other, foreign) in kinds.iter().filter(|(other, _)| *other != kind) {
            assert!(!is_ours(kind, foreign), "{kind:?} in the place of {other:?}");
        }
        assert!(!is_ours(kind, b"a diary") && !is_ours(kind, &content[..1]), "{kind:?}");
    }
    for cut in [0, 4, 29] {
        assert_eq!(
            is_ours(FileKind::Archive, &[b"PK\x03\x04".as_slice(), &[0; 26]].concat()[..cut]),
            cut == 0
        );
    }
}
