//! `coreai-bundle inspect`: what is in a checkpoint, a package, a bundle or a table folder.

mod checkpoint;
mod folder;
mod package;
mod page;
mod tree;
mod weights;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use text::terminal::word;

use crate::origin::{self, Access};
use crate::terminal::{self, STRONG, paint};

/// Show what is in a checkpoint, an .aimodel, a bundle or a table folder
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle inspect gemma-4-E4B-it-qat
  coreai-bundle inspect google/gemma-4-E4B-it-qat-q4_0-unquantized
  coreai-bundle inspect out/gemma4_e4b_qat_decode_int4lin --blobs
  coreai-bundle inspect out/gemma4_e4b_qat_decode_int4lin --graph --layer 5
  coreai-bundle inspect out/gemma4_e4b_qat_decode_int4lin --weights --json
  coreai-bundle inspect theirs.aimodel --html -o theirs.html
  coreai-bundle inspect theirs.aimodel --graph --layer 5 --names out/gemma4_e4b_qat_decode_int4lin")]
pub(crate) struct Arguments {
    /// Folder to look at, or a checkpoint's repository on the Hub, as owner/name
    path: PathBuf,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    shown: Shown,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Parts of a package, or of a bundle's, that are shown on demand.
#[derive(Debug, Args)]
struct Shown {
    /// List every blob of a package
    #[arg(long)]
    blobs: bool,
    /// List the ops of a package, with the names of weights
    #[arg(long)]
    graph: bool,
    /// Only those of one layer
    #[arg(long, value_name = "N", requires = "graph")]
    layer: Option<u64>,
    /// With the decompositions of composite ops
    #[arg(long, requires = "graph")]
    regions: bool,
    /// Read the weights of a package and show their statistics
    #[arg(long)]
    weights: bool,
    /// Take the names of weights from this package or bundle, where the graphs are alike: Apple's own have none
    #[arg(long, value_name = "PATH")]
    names: Option<PathBuf>,
    /// Write a page with charts of a package or a bundle, from what its files alone tell
    #[arg(long, conflicts_with_all = ["blobs", "graph", "weights"])]
    html: bool,
    /// File for the page [default: the name of PATH with .report.html, in this folder]
    #[arg(short, long, value_name = "FILE", requires = "html")]
    output: Option<PathBuf>,
}

impl Shown {
    /// Whether something is asked for that only packages have.
    fn is_of_package(&self) -> bool {
        self.blobs || self.graph || self.weights || self.names.is_some()
    }
}

/// What was found: the same facts as text and as JSON.
struct Report {
    text: String,
    json: Value,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.shown.html {
        let page = page::write(&arguments.path, &arguments.shown)?;
        if arguments.json {
            terminal::print_json(&json!({"event": "done", "html": page}))?;
        } else {
            writeln!(terminal::out(), "{}", page.display())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let report = inspect(arguments)?;
    if arguments.json {
        terminal::print_json(&report.json)?;
    } else {
        terminal::out().write_all(report.text.as_bytes())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(arguments: &Arguments) -> anyhow::Result<Report> {
    let (path, shown) = (arguments.path.as_path(), &arguments.shown);
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
        return package::inspect(path, shown);
    }
    let is_bundle = holds(packer::metadata::FILE_NAME);
    if shown.is_of_package() && !is_bundle {
        bail!("{}: --blobs, --graph, --weights and --names are for packages and bundles", path.display());
    }
    if holds(::checkpoint::config::CONFIG_FILE) {
        checkpoint::inspect(path, &arguments.access)
    } else if holds("meta.json") {
        folder::inspect_tables(path)
    } else if is_bundle {
        folder::inspect_bundle(path, shown)
    } else {
        bail!(
            "{}: this is not a checkpoint (config.json), a package (main.mlirb), a bundle (metadata.json) \
             or a table folder (meta.json)",
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

    /// What it is about.
    fn title(&mut self, title: impl std::fmt::Display) {
        self.add(paint(STRONG, word(&title.to_string())));
    }

    /// A name and what it stands for, in two columns.
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let name = word(name).to_string();
        let start = 3 + name.chars().count().max(12);
        let value = terminal::wrap(&value.to_string(), start, 15, terminal::width());
        self.add(format!("  {name:<12} {value}"));
    }
}
