//! `cargo xtask bench`: builds everything in release mode and runs the benchmarks of `bench/`.

use crate::judges::{python, scripts};
use crate::llama;
use crate::workspace::{cargo, root, run as run_command, target};
use anyhow::Result;
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

/// What to measure.
#[derive(Args)]
pub(crate) struct Options {
    /// Folder for models and bundles, made and removed [default: in cargo's target folder]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// File for the measurements [default: in cargo's target folder]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// `--only kernels|files|conversion|prompts|engine|hub`, `--layers 6,18,42`, `--runs N`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Options {
    /// Whether a section is measured, as far as that is known before the arguments are parsed: llama.cpp takes minutes to build.
    fn wants(&self, section: &str) -> bool {
        let has =
            |word: &str| self.arguments.iter().any(|argument| argument.to_string_lossy().contains(word));
        has(section) || !has("--only")
    }
}

/// Builds, then measures. Peers in Python take part if their environment can be made.
pub(crate) fn run(options: &Options) -> Result<()> {
    run_command(&mut cargo(["build", "--release", "--package", "coreai-bundle", "--package", "bench"]))?;
    let release = target().join("release");
    let executable = |name: &str| release.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    // Run the built binary: `cargo run` of one package would resolve features again, and build most of it a second time.
    let mut command = Command::new(executable("bench"));
    command.current_dir(root());
    let or = |given: &Option<PathBuf>, name: &str| given.clone().unwrap_or_else(|| target().join(name));
    command
        .arg("--scratch")
        .arg(or(&options.scratch, "bench"))
        .arg("--json")
        .arg(or(&options.json, "bench.json"));
    command.arg("--program").arg(executable("coreai-bundle")).arg("--scripts").arg(scripts());
    match python() {
        Ok(python) => drop(command.arg("--python").arg(python)),
        Err(error) => println!("no peers in Python: {error:#}"),
    }
    if options.wants("engine") {
        match llama::programs() {
            Ok(programs) => drop(command.arg("--llama").arg(programs)),
            Err(error) => println!("no llama.cpp: {error:#}"),
        }
    }
    run_command(command.args(&options.arguments))
}
