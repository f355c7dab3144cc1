//! `coreai-bundle pack`: a release tree as one zip file that can be read in place.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::parts::packer::archive;
use coreai_bundle::parts::progress::Progress as _;
use coreai_bundle::parts::text::counted;
use serde_json::json;

use crate::progress::Bar;
use crate::{digits, interrupt, terminal};

/// Pack a folder into a zip file: stored, zip64, data aligned to 4096 bytes
#[derive(Debug, Args)]
#[command(after_help = "Example:
  coreai-bundle pack out -o gemma4_e4b_qat.zip")]
pub(crate) struct Arguments {
    /// Folder to pack
    folder: PathBuf,
    /// Archive to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace an archive that this command wrote
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let bar = Bar::or_events("tensor");
    interrupt::listen()?;
    let report = archive::pack(&arguments.folder, &arguments.output, arguments.force, &bar);
    bar.finish();
    let report = report?;
    let mut out = terminal::out();
    if terminal::is_json() {
        terminal::print_json(&json!({"event": "done", "archive": report}))?;
    } else {
        let (output, bytes) = (arguments.output.display(), digits::bytes(report.archive_bytes));
        writeln!(out, "{output}  {}, {bytes}", counted(report.files, "file"))?;
    }
    Ok(ExitCode::SUCCESS)
}
