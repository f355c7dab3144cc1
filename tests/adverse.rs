//! Surroundings that make trouble: a disk that fills, a checkpoint that is replaced in mid-run, two file systems.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Dir, slow_checkpoint, text, tiny, tree};

/// Runs a command that may not write files of more than some 100 kB: writes fail in mid-run, as on a full disk.
fn fails_in_a_write(dir: &Dir, arguments: &[&str]) -> String {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        r#"trap '' XFSZ; ulimit -f 100; exec "$0" "$@""#,
        env!("CARGO_BIN_EXE_coreai-bundle"),
    ]);
    let output = command.args(arguments).current_dir(dir.path(".")).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn a_write_that_fails_in_mid_run_leaves_nothing() {
    let dir = Dir::new();
    for arguments in [
        &["convert", &tiny(), "-o", "out", "--variant", "both"][..],
        &["convert", &tiny(), "-o", "out", "--variant", "stock"],
        &["tables", &tiny(), "-o", "out"],
    ] {
        let message = fails_in_a_write(&dir, arguments);
        assert!(message.contains("cannot write") && message.contains("File too large"), "{message}");
        assert_eq!(dir.names("."), [""; 0], "{arguments:?}");
    }
}

#[test]
fn a_checkpoint_that_is_replaced_in_mid_run_is_an_error() {
    let dir = Dir::new();
    slow_checkpoint(&dir);
    std::fs::copy(dir.path("model/model.safetensors"), dir.path("other.safetensors")).unwrap();
    let arguments = ["convert", "model", "-o", "out", "--variant", "both", "--threads", "1"];
    let child = dir.command(&arguments).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while dir.names("out").is_empty() && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(2));
    }
    std::fs::rename(dir.path("other.safetensors"), dir.path("model/model.safetensors")).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let message = text(&output.stderr);
    assert!(message.contains("changed while it was being read"), "{message}");
    assert_eq!(dir.names("out"), [""; 0]);
}

/// Memory is another file system than the one of temporary files on most machines, and one without direct writes.
#[cfg(target_os = "linux")]
#[test]
fn inputs_and_outputs_may_lie_on_different_file_systems() {
    let (dir, memory) = (Dir::new(), tempfile::tempdir_in("/dev/shm").unwrap());
    let there = memory.path().to_str().unwrap().to_owned();
    for arguments in [
        &["convert", &tiny(), "-o", "out", "--variant", "both"][..],
        &["convert", &tiny(), "-o", &format!("{there}/out"), "--variant", "both"],
        &["convert", &tiny(), "-o", &format!("{there}/stock"), "--variant", "stock"],
        &["convert", &tiny(), "-o", "stock", "--variant", "stock"],
    ] {
        dir.ok(arguments);
    }
    for name in ["out", "stock"] {
        assert!(tree(&dir.path(name)) == tree(&memory.path().join(name)), "{name}");
    }
    let model = memory.path().join("model");
    for (path, bytes) in tree(&fixtures::data::tiny_checkpoint()) {
        std::fs::create_dir_all(model.join(&path).parent().unwrap()).unwrap();
        std::fs::write(model.join(path), bytes).unwrap();
    }
    let name = ["--name", "gemma4_e4b_qat"];
    dir.ok(&[&["convert", model.to_str().unwrap(), "-o", "third", "--variant", "both"][..], &name].concat());
    assert!(tree(&dir.path("third")) == tree(&dir.path("out")));
}
