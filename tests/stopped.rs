//! Runs that are stopped, by Ctrl-C and by force: what they leave, and what a second run makes of it.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

mod common;

use std::fs::File;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Dir, slow_checkpoint};

/// Stops a command as soon as it has begun to write into `out`, in three ways, and checks that nothing there looks whole.
fn stop(dir: &Dir, arguments: &[&str]) {
    for signal in ["-INT", "-TERM", "-KILL"] {
        let mut child = dir.command(arguments).spawn().unwrap();
        let started = Instant::now();
        while dir.names("out").is_empty() && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(2));
        }
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let status = child.wait().unwrap();
        assert!(!status.success(), "{signal}: the run ended before it was stopped");
        let names = dir.names("out");
        assert!(names.iter().all(|name| name.starts_with('.')), "{signal}: {names:?}");
        if signal != "-KILL" {
            assert_eq!(names, [""; 0], "{signal}: nothing hidden stays either");
        }
    }
    dir.ok(arguments);
}

#[test]
fn convert() {
    let dir = Dir::new();
    slow_checkpoint(&dir);
    stop(&dir, &["convert", "model", "-o", "out", "--name", "m", "--variant", "both", "--threads", "1"]);
    assert_eq!(dir.names("out"), ["m_decode_int4lin", "m_decode_int4lin_tbl", "m_gather_raw"]);
}

#[test]
fn tables() {
    let dir = Dir::new();
    slow_checkpoint(&dir);
    stop(&dir, &["tables", "model", "-o", "out", "--name", "m", "--threads", "1"]);
    assert_eq!(dir.names("out"), ["m_gather_raw"]);
}

#[test]
fn pack() {
    let dir = Dir::new();
    std::fs::create_dir(dir.path("release")).unwrap();
    File::create(dir.path("release/hole")).unwrap().set_len(1 << 30).unwrap();
    stop(&dir, &["pack", "release", "-o", "out/release.zip"]);
    assert_eq!(dir.names("out"), ["release.zip"]);
}
