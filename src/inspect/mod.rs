//! `coreai-bundle inspect`: what is in a checkpoint, a package, a bundle or a table folder.

mod checkpoint;
mod folder;
mod package;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::Value;

use crate::origin::{self, Access};

/// Show what is in a checkpoint, an .aimodel, a bundle or a table folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle inspect gemma-4-E4B-it-qat
  coreai-bundle inspect google/gemma-4-E4B-it-qat-q4_0-unquantized
  coreai-bundle inspect out/gemma4_e4b_qat_decode_int4lin --blobs")]
pub(crate) struct Arguments {
    /// Folder to look at, or a checkpoint's repository on the Hub, as owner/name
    path: PathBuf,
    #[command(flatten)]
    access: Access,
    /// List every blob of a package
    #[arg(long)]
    blobs: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found: the same facts as text and as JSON.
struct Report {
    text: String,
    json: Value,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let report = inspect(arguments)?;
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", report.json)?;
    } else {
        out.write_all(report.text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(arguments: &Arguments) -> anyhow::Result<Report> {
    let (path, blobs) = (arguments.path.as_path(), arguments.blobs);
    let holds = |name: &str| path.join(name).exists();
    if !path.exists() && path.to_str().is_some_and(origin::is_repository) {
        return checkpoint::inspect(path, &arguments.access);
    }
    if !path.is_dir() {
        bail!(
            "{}: there is no such folder; give a checkpoint, a package, a bundle or a table folder",
            path.display()
        );
    }
    if holds(aimodel::package::PROGRAM) {
        package::inspect(path, blobs)
    } else if holds(converter::config::CONFIG_FILE) {
        checkpoint::inspect(path, &arguments.access)
    } else if holds("meta.json") {
        folder::inspect_tables(path)
    } else if holds(packer::metadata::FILE_NAME) {
        folder::inspect_bundle(path, blobs)
    } else {
        bail!(
            "{}: this is no checkpoint (config.json), no package (main.mlirb), no bundle (metadata.json) \
             and no table folder (meta.json)",
            path.display()
        );
    }
}

/// Lines of text, gathered.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// A name and what it stands for, in two columns.
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        self.add(format!("  {name:<12} {value}"));
    }
}
