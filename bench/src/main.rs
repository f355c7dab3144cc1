//! Benchmarks: kernels, files and whole conversions, each beside a floor or a peer that was measured in the same run.
//!
//! Started by `cargo xtask bench`, which builds everything in release mode first. Numbers are medians.

#![allow(clippy::print_stdout, reason = "a table is what this program is run for")]

mod child;
mod conversion;
mod engine;
mod figure;
mod files;
mod floor;
mod hub;
mod kernels;
mod llama;
mod machine;
mod prompts;
mod reading;
mod synthetic;
mod weights;
mod xet;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use serde_json::json;

use crate::figure::Figures;
use crate::reading::{READ, Reading};

/// What to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Section {
    /// Quantizers and the table kernel, beside candle's and gguf's Q4_0
    Kernels,
    /// Writer and reader of packages, beside plain copies and SHA-256
    Files,
    /// The command itself, beside reading and writing as many bytes
    Conversion,
    /// The interpreter, token by token and in chunks; takes 3 GB of space
    Prompts,
    /// The interpreter decoding, reading prompts and in lockstep, beside llama.cpp; takes 10 GB of space
    Engine,
    /// The command reading from a Hub, beside the transfer alone, and Xet beside our ranges; takes 9 GB of space
    Hub,
}

/// What to measure, where and how often.
#[derive(Debug, Parser)]
struct Options {
    /// Sections; all of them by default
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Layers of the models to convert, all of E4B's widths: 6 takes 9 GB of space, 42 takes 27 GB
    #[arg(long, value_delimiter = ',', default_value = "6")]
    layers: Vec<usize>,
    /// Convert a model of this `config.json`'s sizes instead, as stock: that of 12B takes 38 GB of space
    #[arg(long, conflicts_with = "layers")]
    config: Option<PathBuf>,
    /// Runs of each measurement
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Folder for models and bundles, removed at the end
    #[arg(long)]
    scratch: PathBuf,
    /// The command to measure
    #[arg(long)]
    program: PathBuf,
    /// Python with gguf and coreai-core, for peers
    #[arg(long)]
    python: Option<PathBuf>,
    /// Folder of llama.cpp's programs, for a peer
    #[arg(long)]
    llama: Option<PathBuf>,
    /// Folder of the scripts that Python runs
    #[arg(long)]
    scripts: PathBuf,
    /// File for the measurements
    #[arg(long)]
    json: PathBuf,
}

impl Options {
    fn wants(&self, section: Section) -> bool {
        self.only.is_empty() || self.only.contains(&section)
    }
}

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(READ) {
        return Reading::parse_from(std::env::args().skip(1)).run();
    }
    let options = Options::parse();
    fs::create_dir_all(&options.scratch)
        .with_context(|| format!("cannot make {}", options.scratch.display()))?;
    let machine = machine::describe();
    println!("{machine}\n");
    let mut figures = Figures::default();
    let measured = measure(&options, &mut figures);
    let cleared = fs::remove_dir_all(&options.scratch);
    measured?;
    cleared.with_context(|| format!("cannot remove {}", options.scratch.display()))?;
    let text = serde_json::to_string_pretty(&json!({ "machine": machine, "figures": figures.all() }))?;
    fs::write(&options.json, text).with_context(|| format!("cannot write {}", options.json.display()))?;
    println!("\n{}", options.json.display());
    Ok(())
}

fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    if options.wants(Section::Kernels) {
        kernels::measure(options, figures)?;
    }
    if options.wants(Section::Files) {
        files::measure(options, figures)?;
    }
    if options.wants(Section::Conversion) {
        conversion::measure(options, figures)?;
    }
    if options.wants(Section::Prompts) {
        prompts::measure(options, figures)?;
    }
    if options.wants(Section::Engine) {
        engine::measure(options, figures)?;
    }
    if options.wants(Section::Hub) {
        xet::measure(options, figures)?;
        hub::measure(options, figures)?;
    }
    Ok(())
}
