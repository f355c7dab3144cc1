//! `coreai-bundle inspect`: what is in a checkpoint, a package, a bundle or a table folder.

mod checkpoint;
mod folder;
mod outputs;
mod package;
mod tree;
mod weights;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::inspect::{Inspected, Shown, inspect, write_page};
use coreai_bundle::parts::text::terminal::word;
use serde_json::json;

use crate::origin::{self, AccessArguments};
use crate::progress::Bar;
use crate::terminal::{self, STRONG, paint};

/// Show what is in a checkpoint, an .aimodel, a bundle, a table folder, or a folder or archive of these
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle inspect gemma-4-E4B-it-qat
  coreai-bundle inspect google/gemma-4-E4B-it-qat-q4_0-unquantized
  coreai-bundle inspect out
  coreai-bundle inspect release.zip/gpu-pipelined/gemma4_e4b_qat_decode_int4lin
  coreai-bundle inspect out/gemma4_e4b_qat_decode_int4lin --blobs
  coreai-bundle inspect out/gemma4_e4b_qat_decode_int4lin --graph --layer 5
  coreai-bundle inspect out/gemma4_e4b_qat_decode_int4lin --weights --json
  coreai-bundle inspect theirs.aimodel --html -o theirs.html
  coreai-bundle inspect theirs.aimodel --graph --layer 5 --names out/gemma4_e4b_qat_decode_int4lin")]
pub(crate) struct Arguments {
    /// Folder or archive to look at, or a checkpoint's repository on the Hub, as owner/name or by its address
    path: String,
    #[command(flatten)]
    access: AccessArguments,
    #[command(flatten)]
    shown: ShownArguments,
}

/// Parts of a package, or of a bundle's package, that are shown on demand.
#[derive(Debug, Args)]
struct ShownArguments {
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
    /// Take the names of weights from this package or bundle where the graphs match; Apple's packages have none
    #[arg(long, value_name = "PATH")]
    names: Option<PathBuf>,
    /// Write a page with charts of a package or a bundle, from its files alone
    #[arg(long, conflicts_with_all = ["blobs", "graph", "weights"])]
    html: bool,
    /// File for the page [default: the name of PATH with .report.html, in this folder]
    #[arg(short, long, value_name = "FILE", requires = "html")]
    output: Option<PathBuf>,
}

impl ShownArguments {
    fn shown(&self) -> Shown {
        Shown {
            blobs: self.blobs,
            graph: self.graph,
            layer: self.layer,
            regions: self.regions,
            weights: self.weights,
            names: self.names.clone(),
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (path, shown) = (Path::new(&arguments.path), &arguments.shown);
    if shown.html {
        let page = write_page(path, shown.names.as_deref(), shown.output.as_deref())?;
        if terminal::is_json() {
            terminal::print_json(&json!({"event": "done", "html": page}))?;
        } else {
            writeln!(terminal::out(), "{}", page.display())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let bar = Bar::of_bytes();
    let what = arguments.access.source(&arguments.path)?;
    let found = inspect(&what, arguments.access.access(), &shown.shown(), origin::opener(&bar))?;
    if terminal::is_json() {
        // As a value, which prints 32-bit numbers with all digits of their 64-bit ones.
        terminal::print_json(&serde_json::to_value(&found)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = Lines::default();
    match &found {
        Inspected::Checkpoint(facts) => checkpoint::add(path, facts, &mut lines),
        Inspected::Package(facts) => package::add(facts, shown.blobs, &mut lines),
        Inspected::Bundle(facts) => folder::add_bundle(facts, shown.blobs, &mut lines),
        Inspected::Tables(facts) => folder::add_tables(path, facts, &mut lines),
        Inspected::Outputs(facts) => outputs::add(facts, &mut lines),
    }
    terminal::out().write_all(lines.0.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Lines of text, gathered.
#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, line: impl AsRef<str>) {
        self.0.push_str(line.as_ref());
        self.0.push('\n');
    }

    /// The heading.
    fn title(&mut self, title: impl std::fmt::Display) {
        self.add(paint(STRONG, word(&title.to_string())));
    }

    /// A name and its value, in two columns.
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        let name = word(name).to_string();
        let start = 3 + name.chars().count().max(12);
        let value = terminal::wrap(&value.to_string(), start, 15, terminal::width());
        self.add(format!("  {name:<12} {value}"));
    }
}
