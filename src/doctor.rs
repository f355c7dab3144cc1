//! `coreai-bundle doctor`: what this machine can do.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use aotc::ToolchainOptions;
use clap::Args;
use workflow::doctor::{DoctorOptions, examine_all};

use crate::{interrupt, terminal};

/// Column in which a check says what it found.
const DETAIL: usize = 26;

/// Tell what this machine can do, and what to do about the rest
#[derive(Debug, Args)]
#[command(after_help = "What is missing does not change the exit status: not every machine needs everything.

Examples:
  coreai-bundle doctor
  coreai-bundle doctor -o /Volumes/models --json")]
pub(crate) struct Arguments {
    /// Folder that outputs would go to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// The xcrun to ask
    #[arg(long, value_name = "PATH")]
    xcrun: Option<PathBuf>,
    /// The Xcode to ask (DEVELOPER_DIR)
    #[arg(long, value_name = "DIR")]
    developer_dir: Option<PathBuf>,
    /// The Python to ask for coreai-core [default: python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    interrupt::listen()?;
    let options = DoctorOptions {
        toolchain: ToolchainOptions {
            xcrun: arguments.xcrun.clone(),
            developer_dir: arguments.developer_dir.clone(),
        },
        output: arguments.output.clone(),
        python: arguments.python.clone(),
    };
    let checks = examine_all(&options, interrupt::asked)?;
    let mut out = terminal::out();
    if arguments.json {
        terminal::print_json(&checks)?;
    } else {
        let width = terminal::width();
        for check in &checks {
            check.to_string().lines().try_for_each(|line| print_line(&mut out, line, width))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line that goes on below its text, where it is longer than the terminal is wide.
fn print_line(out: &mut impl Write, line: &str, width: usize) -> io::Result<()> {
    let text = line.trim_start();
    let start = line.len() - text.len();
    let indent = if start == 0 { DETAIL } else { start + 3 };
    writeln!(out, "{:start$}{}", "", terminal::wrap(text, start, indent, width))
}
