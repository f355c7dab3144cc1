//! What can be typed.

use std::process::ExitCode;

use anstream::ColorChoice;
use clap::{Args, Parser, Subcommand, ValueEnum};
use coreai_bundle::parts::quantizer::Int4Rule;

use crate::{
    aotc, build, check, convert, diff, doctor, eval, explain, gate, init, inspect, manual, oracle, pack,
    publish, release, run, tables, terminal,
};

/// Turn Gemma 4 QAT checkpoints into Apple Core AI bundles.
///
/// Data goes to standard output, messages and bars to standard error. The exit status is 0 on success, 1 for what you
/// can fix (arguments, inputs, the network), 2 if the machine fails (a full disk) or there is a bug.
#[derive(Debug, Parser)]
#[command(version = env!("VERSION"), arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) output: OutputArguments,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How results and messages are printed.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputArguments {
    /// Print results, progress and errors as JSON, one value on a line
    #[arg(long, global = true)]
    json: bool,
    /// Print no messages and no bars, only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Also print what is done in between: where files were found, how long stages took
    #[arg(short, long, global = true)]
    verbose: bool,
    /// When to use colors
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    color: Color,
}

/// When to use colors, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl OutputArguments {
    /// Makes the choices hold for everything that is printed from here on.
    pub(crate) fn apply(self) {
        match self.color {
            Color::Auto => {}
            Color::Always => ColorChoice::Always.write_global(),
            Color::Never => ColorChoice::Never.write_global(),
        }
        terminal::configure(terminal::Printing { json: self.json, quiet: self.quiet, verbose: self.verbose });
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Convert(convert::Arguments),
    Init(init::Arguments),
    Build(build::Arguments),
    Tables(tables::Arguments),
    Inspect(inspect::Arguments),
    Diff(diff::Arguments),
    Explain(explain::Arguments),
    Oracle(oracle::Arguments),
    Gate(gate::Arguments),
    Eval(Box<eval::Arguments>),
    Run(run::Arguments),
    Check(check::Arguments),
    Release(release::Arguments),
    Publish(publish::Arguments),
    Pack(pack::Arguments),
    Aotc(Box<aotc::Arguments>),
    Doctor(doctor::Arguments),
    Completions(manual::CompletionArguments),
    Man(manual::ManArguments),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Command::Convert(arguments) => convert::run(&arguments),
            Command::Init(arguments) => init::run(&arguments),
            Command::Build(arguments) => build::run(&arguments),
            Command::Tables(arguments) => tables::run(&arguments),
            Command::Inspect(arguments) => inspect::run(&arguments),
            Command::Diff(arguments) => diff::run(&arguments),
            Command::Explain(arguments) => explain::run(&arguments),
            Command::Oracle(arguments) => oracle::run(&arguments),
            Command::Gate(arguments) => gate::run(&arguments),
            Command::Eval(arguments) => eval::run(&arguments),
            Command::Run(arguments) => run::run(&arguments),
            Command::Check(arguments) => check::run(&arguments),
            Command::Release(arguments) => release::run(&arguments),
            Command::Publish(arguments) => publish::run(&arguments),
            Command::Pack(arguments) => pack::run(&arguments),
            Command::Aotc(arguments) => aotc::run(&arguments),
            Command::Doctor(arguments) => doctor::run(&arguments),
            Command::Completions(arguments) => manual::completions(&arguments),
            Command::Man(arguments) => manual::man(&arguments),
        }
    }
}

/// Rule for 4-bit codes, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Rule {
    /// Recover the lattice that the checkpoint was trained on; best fit elsewhere
    Lattice,
    /// As GGML's Q4_0 reference quantizer
    #[value(name = "q4_0")]
    Q4_0,
    /// As coreai-opt's int4 symmetric
    Absmax,
}

impl From<Rule> for Int4Rule {
    fn from(typed: Rule) -> Self {
        match typed {
            Rule::Lattice => Int4Rule::Lattice,
            Rule::Q4_0 => Int4Rule::Q4_0,
            Rule::Absmax => Int4Rule::Absmax,
        }
    }
}
