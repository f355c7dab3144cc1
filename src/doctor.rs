//! `coreai-bundle doctor`: what this machine can do.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use aotc::doctor::{DoctorOptions, examine};
use aotc::{Interrupt, ToolchainOptions};
use clap::Args;

use crate::{interrupt, terminal};

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
    /// The Python to ask for coreai-core [default: that of target/judges, else python3]
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
        environment: &|name| std::env::var_os(name),
    };
    let checks = examine(&options, &Interrupt::watching(interrupt::asked))?;
    let mut out = io::stdout().lock();
    if arguments.json {
        writeln!(out, "{}", serde_json::to_string(&checks)?)?;
    } else {
        let width = terminal::width();
        for line in
            checks.iter().flat_map(|check| check.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
        {
            let indent = 4 + line.len() - line.trim_start().len();
            writeln!(out, "{}", terminal::wrap(&line, 0, indent, width))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
