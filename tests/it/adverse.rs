//! Difficult environments: a disk that fills up, two file systems.

use std::process::Command;

use crate::common::{Dir, text, tiny, tree};

/// Runs a command that may not write files larger than about 100 kB: writes fail in the middle, as on a full disk.
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

/// A disk, and memory, to which nothing is written directly.
#[cfg(target_os = "linux")]
#[test]
fn inputs_and_outputs_may_lie_on_different_file_systems() {
    let (dir, memory) = (Dir::within("/var/tmp"), tempfile::tempdir_in("/dev/shm").unwrap());
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
