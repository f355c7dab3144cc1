//! `coreai-bundle diff`: in what two packages, bundles or table folders differ.

mod bytes;
mod folder;
mod graph;
mod json;
mod program;
mod tables;
mod text;
mod weights;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use crate::{failure, terminal};

/// Exit status of an error: 1 says that there are differences.
const TROUBLE: u8 = 2;

/// Compare two packages, two bundles or two table folders
///
/// Metadata is compared field by field, graphs op by op, weights by their codes, scales and values, everything else byte by byte.
/// Ops are matched by what they do, so that one more op in one graph is one difference.
#[derive(Debug, Args)]
#[command(
    after_help = "The exit status is 0 if nothing differs, 1 if something does, 2 if that cannot be told.

Examples:
  coreai-bundle diff out/gemma4_e4b_qat_decode_int4lin old/gemma4_e4b_qat_decode_int4lin
  coreai-bundle diff out/gemma4_e4b_qat_decode_int4lin out/gemma4_e4b_qat_decode_int4lin_tbl --json
  coreai-bundle diff --quick out old"
)]
pub(crate) struct Arguments {
    /// Folder
    left: PathBuf,
    /// Folder to compare it with
    right: PathBuf,
    /// Believe digests (main.hash, manifests) that are equal, instead of reading the files
    #[arg(long)]
    quick: bool,
    /// List every difference, however many there are
    #[arg(long)]
    all: bool,
    /// Print JSON, with every difference
    #[arg(long)]
    json: bool,
}

/// Everything in which two folders differ.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    left: PathBuf,
    right: PathBuf,
    equal: bool,
    files: Vec<FileReport>,
}

/// One file of both folders, or of one.
#[derive(Debug, Serialize)]
struct FileReport {
    /// Path in the folder; the package's folder is called `package`, whatever its name.
    path: String,
    #[serde(flatten)]
    verdict: Verdict,
}

/// What became of a file.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
enum Verdict {
    /// The bytes are equal.
    Equal {
        /// They were not read: their digests are equal.
        by_digest: bool,
    },
    /// Only one folder has it.
    OnlyLeft { bytes: u64 },
    /// Only the other has it.
    OnlyRight { bytes: u64 },
    /// The same content in other bytes.
    Equivalent,
    /// Fields of JSON differ.
    Fields { fields: Vec<json::Field> },
    /// Numbers of a table differ.
    Table(tables::TableDifference),
    /// Graphs or weights differ.
    Program(program::ProgramDifference),
    /// Bytes differ.
    Bytes(bytes::ByteDifference),
}

impl Verdict {
    fn is_equal(&self) -> bool {
        matches!(self, Verdict::Equal { .. } | Verdict::Equivalent)
    }
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
    let files = folder::compare(&arguments.left, &arguments.right, arguments.quick)?;
    let equal = files.iter().all(|file| file.verdict.is_equal());
    let report = Report { left: arguments.left.clone(), right: arguments.right.clone(), equal, files };
    if arguments.json {
        terminal::print_json(&report)?;
    } else {
        text::print(&mut terminal::out(), &report, arguments.all)?;
    }
    Ok(equal)
}
