//! `coreai-bundle doctor`: what this machine can do.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::doctor::{DoctorOptions, examine_all};
use coreai_bundle::parts::aotc::ToolchainOptions;

use crate::{interrupt, terminal};

/// Column in which the result of a check starts.
const DETAIL: usize = 26;

/// Show what this machine can do, and what to do about the rest
#[derive(Debug, Args)]
#[command(after_help = "What is missing does not change the exit status: not every machine needs everything.

Examples:
  coreai-bundle doctor
  coreai-bundle doctor -o /Volumes/models --json")]
pub(crate) struct Arguments {
    /// Folder that outputs would go to
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// The xcrun to use
    #[arg(long, value_name = "PATH")]
    xcrun: Option<PathBuf>,
    /// The Xcode to use (DEVELOPER_DIR)
    #[arg(long, value_name = "DIR")]
    developer_dir: Option<PathBuf>,
    /// The Python to look for coreai-core in [default: python3]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
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
    if terminal::is_json() {
        terminal::print_json(&checks)?;
    } else {
        let width = terminal::width();
        for check in &checks {
            check.to_string().lines().try_for_each(|line| print_line(&mut out, line, width))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A line that continues below its text if it is wider than the terminal.
fn print_line(out: &mut impl Write, line: &str, width: usize) -> io::Result<()> {
    let text = line.trim_start();
    let start = line.len() - text.len();
    let indent = if start == 0 { DETAIL } else { start + 3 };
    writeln!(out, "{:start$}{}", "", terminal::wrap(text, start, indent, width))
}
