//! Untrusted names and texts, through every command that shows them: no byte of them controls a terminal, becomes markup, or
//! names a file elsewhere.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{Dir, package, text, tiny};
use fixtures::{Dtype, damage};
use serde_json::Value;

/// Colors, clears and titles a terminal, hides and reorders text; as long as the name that it replaces.
const HOSTILE: &str = "\x1b[31m\x1b[2J\x1b]0;t\x07\r\u{9b}1m\u{202e}\u{200b}\nerror: x";
const BUNDLE: &str = "out/gemma4_e4b_qat_decode_int4lin";

/// Runs a command as on a terminal that shows colors; returns what it printed, which must be free of everything else.
fn seen(dir: &Dir, arguments: &[&str]) -> (Output, String) {
    let output = dir.command(arguments).env("CLICOLOR_FORCE", "1").output().unwrap();
    let mut shown = String::from_utf8([output.stdout.clone(), output.stderr.clone()].concat()).unwrap();
    for style in ["\x1b[0m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[33m"] {
        shown = shown.replace(style, "");
    }
    let bad = |c: &char| ::text::terminal::is_hidden(*c) && !matches!(c, '\n' | '\t');
    assert_eq!(shown.chars().find(bad), None, "{arguments:?} printed {shown:?}");
    assert!(!shown.lines().any(|line| line == "error: x"), "{arguments:?} printed {shown:?}");
    (output, shown)
}

/// Styles of names must be gone too: they are not ours.
fn seen_without_color(dir: &Dir, arguments: &[&str]) -> String {
    let output = dir.command(arguments).env_remove("CLICOLOR_FORCE").output().unwrap();
    let shown = text(&[output.stdout, output.stderr].concat());
    assert!(!shown.contains('\x1b'), "{arguments:?} printed {shown:?}");
    shown
}

fn model(dir: &Dir) {
    fs::create_dir(dir.path("model")).unwrap();
    for entry in fs::read_dir(tiny()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.path("model").join(path.file_name().unwrap())).unwrap();
    }
}

fn converted() -> Dir {
    let dir = Dir::new();
    dir.ok(&["convert", &tiny(), "-o", "out", "--no-report"]);
    dir
}

fn edit_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, serde_json::to_vec(&value).unwrap()).unwrap();
}

#[test]
fn names_in_checkpoints_are_shown_as_text() {
    let dir = Dir::new();
    model(&dir);
    let name = "model.language_model.layers.0.mlp.down_proj.weight";
    damage::rename(&dir.path("model"), name, &format!("model.language_model.layers.0.{HOSTILE}")).unwrap();
    for arguments in [
        &["inspect", "model"][..],
        &["inspect", "model", "--json"],
        &["convert", "model", "-o", "out"],
        &["explain", "model", "layers.0"],
        &["explain", "model", HOSTILE],
    ] {
        let (output, _) = seen(&dir, arguments);
        assert!(!output.status.success() || arguments[0] == "explain", "{arguments:?}");
    }
    damage::edit_config(&dir.path("model"), |config| config["model_type"] = HOSTILE.into()).unwrap();
    seen(&dir, &["inspect", "model"]);
    fs::write(
        dir.path("model/model.safetensors.index.json"),
        format!(r#"{{"weight_map": {{"a": {}}}}}"#, serde_json::to_string(HOSTILE).unwrap()),
    )
    .unwrap();
    fs::remove_file(dir.path("model/model.safetensors")).unwrap();
    let (_, shown) = seen(&dir, &["inspect", "model"]);
    assert!(shown.contains(r"\u{202e}") || shown.contains("\\u{1b}"), "{shown}");
}

#[test]
fn names_in_packages_bundles_and_folders_are_shown_as_text() {
    let dir = converted();
    let program = package(&dir.path(BUNDLE)).join("main.mlirb");
    let mut bytes = fs::read(&program).unwrap();
    fs::create_dir(dir.path("old")).unwrap();
    let kept = dir.path("old").join("x.aimodel");
    fs::create_dir(&kept).unwrap();
    fs::copy(&program, kept.join("main.mlirb")).unwrap();
    for name in ["layers.0.mlp.down_proj.weight/codes", "layers.1.mlp.down_proj.weight/codes"] {
        let mut hostile = HOSTILE.as_bytes().to_vec();
        hostile.resize(name.len(), b'z');
        let at = bytes.windows(name.len()).position(|window| window == name.as_bytes()).unwrap();
        // The second one would be the same name.
        hostile[name.len() - 1] = bytes[at + 7];
        bytes[at..at + name.len()].copy_from_slice(&hostile);
    }
    fs::write(&program, bytes).unwrap();
    let bundle = dir.path(BUNDLE);
    edit_json(&bundle.join("metadata.json"), |metadata| {
        metadata["user_data"][HOSTILE] = HOSTILE.into();
        metadata["compression"]["scheme"] = HOSTILE.into();
        metadata["source"] = serde_json::json!({"hf_model_id": HOSTILE, "hf_revision": HOSTILE});
    });
    edit_json(&bundle.join("manifest.json"), |manifest| manifest["tool"] = HOSTILE.into());
    fs::write(bundle.join(HOSTILE), "a file").unwrap();
    let old = kept.to_str().unwrap();
    let asset = package(&bundle);
    let asset = asset.to_str().unwrap();
    for arguments in [
        &["inspect", BUNDLE, "--blobs", "--graph", "--weights"][..],
        &["inspect", BUNDLE, "--blobs", "--graph", "--weights", "--json"],
        &["inspect", asset, "--blobs"],
        &["check", BUNDLE],
        &["check", BUNDLE, "--json"],
        &["diff", asset, old, "--all"],
        &["diff", asset, old, "--json"],
        &["diff", BUNDLE, "out/gemma4_e4b_qat_gather_raw", "--all"],
        &["explain", BUNDLE, "\x1b"],
        &["pack", BUNDLE, "-o", "x.zip"],
        &["release", BUNDLE, "-o", "release", "--base-model", "a/b"],
        &["aotc", BUNDLE, "--arch", HOSTILE],
        &["aotc", BUNDLE, "--arch", "h18p", "--print"],
    ] {
        seen(&dir, arguments);
        if arguments.last() == Some(&"--json") {
            let output = dir.command(arguments).output().unwrap();
            serde_json::from_slice::<Value>(&output.stdout).unwrap();
        }
    }
    assert!(!dir.path("x.zip").exists(), "the name is in no archive");
    assert!(seen_without_color(&dir, &["check", BUNDLE]).contains(r"\x1b[31m"));
}

#[test]
fn arguments_are_quoted_as_text() {
    let dir = Dir::new();
    for arguments in [
        &["convert", &tiny(), "--name", HOSTILE][..],
        &["convert", HOSTILE],
        &["inspect", HOSTILE],
        &[HOSTILE],
        &["convert", &tiny(), "--variant", HOSTILE],
        &["convert", &tiny(), &format!("--{HOSTILE}")],
        &["check", HOSTILE],
    ] {
        let output = dir.command(arguments).env("CLICOLOR_FORCE", "1").output().unwrap();
        let shown = text(&[output.stdout, output.stderr].concat());
        assert!(!output.status.success());
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{arguments:?} printed {shown:?}");
        assert!(!shown.contains('\u{202e}'), "{arguments:?} printed {shown:?}");
    }
    for name in ["nul", "a.", "a:b", "..\\a", "C:\\a"] {
        assert!(dir.fails(&["convert", &tiny(), "--name", name]).contains("--name"), "{name}");
    }
}

#[test]
fn cards_take_no_markup_and_licenses_no_endless_files() {
    let dir = converted();
    fs::write(dir.path("LICENSE"), "terms").unwrap();
    let made = Command::new("mkfifo").arg(dir.path("pipe")).status().unwrap();
    assert!(made.success());
    fs::write(dir.path("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    let tables = "out/gemma4_e4b_qat_gather_raw";
    let release = |base: &str, license: &str, id: &str| {
        let folders = ["release", BUNDLE, tables, "-o", "release"];
        let terms = ["--base-model", base, "--license", license, "--license-id", id];
        dir.command(&[&folders[..], &terms].concat()).output().unwrap()
    };
    for (base, license, id) in [
        ("a/b\nlicense: mit", "LICENSE", "gemma"),
        ("a/b](http://x) [y", "LICENSE", "gemma"),
        ("a/<b>", "LICENSE", "gemma"),
        ("a/b", "LICENSE", "mit\n---\n# Owned"),
        ("a/b", "LICENSE", "`mit`"),
        ("a/b", "pipe", "gemma"),
        ("a/b", "/dev/zero", "gemma"),
        ("a/b", "large", "gemma"),
    ] {
        let output = release(base, license, id);
        assert_eq!(output.status.code(), Some(1), "{base:?} {license} {id:?}: {}", text(&output.stderr));
        assert!(!dir.path("release").exists());
    }
    let set = |change: &dyn Fn(&mut Value)| {
        for folder in [BUNDLE, tables] {
            edit_json(&dir.path(folder).join("manifest.json"), |manifest| change(manifest));
        }
    };
    set(&|manifest| manifest["source"]["revision"] = "` | <b>\n---".into());
    assert!(text(&release("a/b", "LICENSE", "gemma").stderr).contains("is not a commit"));
    set(&|manifest| {
        manifest["source"]["revision"] = Value::Null;
        manifest["gate"] = serde_json::json!({
            "agreed": 1, "qualified": 1, "passed": true, "reference": "<script>x</script>\n# [y](http://z) | `"
        });
        manifest["conversion"]["totals"] =
            serde_json::json!([{"weights": 1, "weights_exact": 1, "format": "| **x** |"}]);
    });
    let output = release("a/b", "LICENSE", "gemma");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let card = fs::read_to_string(dir.path("release/README.md")).unwrap();
    for expected in [
        r"against \<script\>x\</script\>\\n\# \[y\](http\://z) \| \`: gate passed",
        r"\| \*\*x\*\* \| weights: 1 of 1",
    ] {
        assert!(card.contains(expected), "{card}");
    }
}

#[test]
fn absurd_inputs_make_short_messages() {
    let dir = Dir::new();
    model(&dir);
    let name = "model.language_model.layers.0.mlp.down_proj.weight";
    let long = format!("model.language_model.layers.0.{}", "x".repeat(300_000));
    damage::rename(&dir.path("model"), name, &long).unwrap();
    for arguments in [&["inspect", "model"][..], &["convert", "model", "-o", "out"]] {
        let message = dir.fails(arguments);
        assert!(message.len() < 9000, "{arguments:?}: {} bytes", message.len());
    }
    fs::remove_dir_all(dir.path("model")).unwrap();
    model(&dir);
    let mut shape = vec![1; 10_000];
    shape.extend([256, 1024]);
    // Refused or not, the message is a few lines.
    if damage::retype(&dir.path("model"), name, Dtype::Bf16, &shape).is_ok() {
        let message = dir.fails(&["inspect", "model"]);
        assert!(message.len() < 9000, "{} bytes", message.len());
    }
}
