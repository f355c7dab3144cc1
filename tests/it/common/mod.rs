//! What the end-to-end tests share: a temporary folder, and the command run in it.

pub(crate) mod browser;
pub(crate) mod golden;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use fixtures::{Shape, SyntheticCheckpoint};
use hub::Policy;
use packer::archive::is_report;
use serde_json::Value;
use tempfile::TempDir;

/// Retries of tests that use a Hub.
pub(crate) const QUICK: Policy = Policy {
    attempts: 6,
    first_pause: Duration::from_micros(200),
    longest_pause: Duration::from_millis(1),
    longest_request: Duration::from_millis(100),
    second: Duration::from_millis(1),
};

/// A temporary folder to run the command in.
pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Dir(tempfile::tempdir().unwrap())
    }

    /// One in another folder than that for temporary files, which may be in memory.
    #[cfg(target_os = "linux")]
    pub(crate) fn within(folder: &str) -> Self {
        Dir(tempfile::tempdir_in(folder).unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command that has not run yet.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_coreai-bundle"));
        command.args(arguments).current_dir(self.0.path()).env_remove("SOURCE_DATE_EPOCH");
        command
    }

    /// Runs a command that must succeed; returns its standard output.
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs a command that must succeed and print JSON last.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let out = self.ok(arguments);
        serde_json::from_str(out.lines().last().unwrap()).unwrap()
    }

    /// Runs a command that must end with status 1; returns its standard error.
    pub(crate) fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}\n{}", text(&output.stderr));
        text(&output.stderr)
    }

    /// Names in a folder, hidden ones included, sorted, without those of reports; empty if the folder does not exist.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.path(folder)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        // They contain times, which differ from run to run.
        names.retain(|name| !is_report(name));
        names.sort();
        names
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Makes a checkpoint in `model` that takes a while.
pub(crate) fn slow_checkpoint(dir: &Dir) {
    let shape = Shape { vocabulary: 65_536, hidden: 512, ..Shape::small() };
    SyntheticCheckpoint::new(shape).write(&dir.path("model")).unwrap();
}

/// Path of the stored tiny checkpoint, as an argument.
pub(crate) fn tiny() -> String {
    fixtures::data::tiny_checkpoint().to_str().unwrap().to_owned()
}

/// The package in a bundle folder.
pub(crate) fn package(bundle: &Path) -> PathBuf {
    let name = bundle.file_name().unwrap().to_str().unwrap();
    bundle.join(format!("{name}.aimodel"))
}

/// Every file below a folder with its bytes, in order of paths, except for reports.
pub(crate) fn tree(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if !is_report(path.file_name().unwrap().to_str().unwrap()) {
                let bytes = std::fs::read(&path).unwrap();
                files.push((path.strip_prefix(folder).unwrap().to_owned(), bytes));
            }
        }
    }
    files.sort();
    files
}

/// Output of a finished command, for messages.
pub(crate) fn both(output: &Output) -> String {
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}
