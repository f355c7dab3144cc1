//! The README's first command: it runs as shown, and prints what is shown.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Dir, text};
use serde_json::Value;

const PREFIX: &str = "$ cargo run --release -- ";

/// A folder in which the first command that cargo runs in the README was run, and what that printed and should have printed.
pub(crate) fn first_command_run() -> (Dir, String, String) {
    let dir = Dir::new();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    std::os::unix::fs::symlink(data, dir.path("fixtures")).unwrap();
    let (arguments, expected) = first_command();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = dir.command(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    (dir, text(&output.stderr) + &text(&output.stdout), expected)
}

/// The command, and what it prints.
fn first_command() -> (Vec<String>, String) {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, block) = readme.split_once(PREFIX).unwrap();
    let (command, output) = block.split_once('\n').unwrap();
    let (output, _) = output.split_once("```").unwrap();
    (command.split(' ').map(str::to_owned).collect(), output.to_owned())
}

#[test]
fn the_first_command_prints_what_the_readme_shows() {
    let (_dir, printed, expected) = first_command_run();
    assert_eq!(printed, expected);
}

#[test]
fn cargo_run_runs_the_command_and_no_other() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let programs: Vec<&str> = metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| package["default_run"].as_str())
        .collect();
    assert_eq!(programs, ["coreai-bundle"]);
}
