//! Runs that are stopped by a signal: they leave nothing behind that would be in the way of a second run. For killed ones, see `resume.rs`.

use std::fs::File;
use std::process::Command;
use std::time::Duration;

use crate::common::{Dir, slow_checkpoint};

/// Stops a command as soon as it has started to write into `out`, and checks that nothing stays there.
fn stop(dir: &Dir, signal: &str, arguments: &[&str]) {
    let mut child = dir.command(arguments).spawn().unwrap();
    while dir.names("out").is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before it was stopped");
        std::thread::sleep(Duration::from_millis(2));
    }
    Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(!child.wait().unwrap().success(), "the run ended before it was stopped");
    assert_eq!(dir.names("out"), [""; 0], "nothing hidden stays either");
    dir.ok(arguments);
}

#[test]
fn convert() {
    let dir = Dir::new();
    slow_checkpoint(&dir);
    stop(
        &dir,
        "-INT",
        &["convert", "model", "-o", "out", "--name", "m", "--variant", "both", "--threads", "1"],
    );
    assert_eq!(dir.names("out"), ["m_decode_int4lin", "m_decode_int4lin_tbl", "m_gather_raw"]);
}

#[test]
fn tables() {
    let dir = Dir::new();
    slow_checkpoint(&dir);
    stop(&dir, "-TERM", &["tables", "model", "-o", "out", "--name", "m", "--threads", "1"]);
    assert_eq!(dir.names("out"), ["m_gather_raw"]);
}

#[test]
fn pack() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("release")).unwrap();
    File::create(dir.path("release/hole")).unwrap().set_len(1 << 29).unwrap();
    stop(&dir, "-INT", &["pack", "release", "-o", "out/release.zip"]);
    assert_eq!(dir.names("out"), ["release.zip"]);
}
