//! `coreai-bundle diff`: how two packages, bundles or table folders differ.

mod text;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use crate::{failure, terminal};

/// Exit status of an error: 1 says that there are differences.
const TROUBLE: u8 = 2;

/// Compare two packages, two bundles, two table folders, or two folders or archives of these
///
/// Metadata is compared field by field, graphs op by op, weights by their codes, scales and values, everything else byte by byte.
/// Ops are matched by what they do, so one extra op in one graph is one difference.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit status is 0 if nothing differs, 1 if something does, 2 if that cannot be determined.

Examples:
  coreai-bundle diff out/gemma4_e4b_qat_decode_int4lin old/gemma4_e4b_qat_decode_int4lin
  coreai-bundle diff out/gemma4_e4b_qat_decode_int4lin out/gemma4_e4b_qat_decode_int4lin_tbl --json
  coreai-bundle diff --quick out old"
)]
pub(crate) struct Arguments {
    /// Folder, or an archive of `pack`
    left: PathBuf,
    /// Folder or archive to compare it with
    right: PathBuf,
    /// Trust digests (main.hash, manifests) that are equal, instead of reading the files
    #[arg(long)]
    quick: bool,
    /// List every difference, however many there are
    #[arg(long)]
    all: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match compare(arguments) {
        Ok(true) => Ok(ExitCode::SUCCESS),
        Ok(false) => Ok(ExitCode::FAILURE),
        Err(error) => {
            failure::report(&error);
            Ok(ExitCode::from(TROUBLE))
        }
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<bool> {
    let found = coreai_bundle::diff::compare(&arguments.left, &arguments.right, arguments.quick)?;
    if terminal::is_json() {
        terminal::print_json(&found)?;
    } else {
        text::print(&mut terminal::out(), &found, arguments.all)?;
    }
    Ok(found.equal)
}
