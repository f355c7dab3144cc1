//! The version that `--version` prints: that of the package, with the commit in release builds from a repository.

use std::process::Command;

fn main() {
    let version = env!("CARGO_PKG_VERSION");
    let is_release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    // Builds for tests would otherwise be repeated after each commit.
    let commit = if is_release { commit() } else { None };
    let version = commit.map_or(version.to_owned(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=VERSION={version}");
    println!("cargo::rerun-if-changed=build.rs");
    if is_release {
        println!("cargo::rerun-if-changed=.git/HEAD");
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
    }
}

/// The first digits of the commit, if there is a repository.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let commit = text.trim();
    (output.status.success() && !commit.is_empty()).then(|| commit.to_owned())
}
