//! `coreai-bundle release`: bundles and tables as one tree, with a card and a license.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::parts::text::counted;
use coreai_bundle::release::{LicenseText, ReleaseRequest};
use coreai_bundle::source::SourceSpec;
use serde_json::{Value, json};

use crate::progress::Bar;
use crate::{digits, origin, template, terminal};

/// Make a release tree of bundles and tables, with a model card and a license
///
/// The card is made from what the manifests record: it names what was measured, and what was not. Every byte is hashed again and compared
/// with the manifests, then the tree is checked as `check` does; a tree with defects is not made.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle release out -o release
  coreai-bundle release out/gemma4_e4b_qat_decode_int4lin out/gemma4_e4b_qat_decode_int4lin_aotc_h18p out/gemma4_e4b_qat_gather_raw -o release")]
pub(crate) struct Arguments {
    /// Bundles and table folders, or folders and archives that hold them
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The checkpoint, whose card and license apply [default: the repository in the manifests]
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Repository that the card names as the base model [default: the one in the manifests]
    #[arg(long, value_name = "OWNER/NAME")]
    base_model: Option<String>,
    /// Text of the license, instead of the checkpoint's
    #[arg(long, value_name = "FILE", requires = "license_id")]
    license: Option<PathBuf>,
    /// Identifier of the license in cards, instead of the one in the checkpoint's card
    #[arg(long, value_name = "ID")]
    license_id: Option<String>,
    /// Replace a release that exists; what this tool did not write stays
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let request = ReleaseRequest {
        folders: arguments.folders.clone(),
        output: arguments.output.clone(),
        source: arguments.source.as_deref().map(|typed| SourceSpec::parse(typed, None)).transpose()?,
        base_model: arguments.base_model.clone(),
        license: arguments.license.clone().map(LicenseText::File),
        license_id: arguments.license_id.clone(),
        force: arguments.force,
        recipe: Value::Null,
    };
    let made = request.make(&template::render, origin::opener(&Bar::of_bytes()))?;
    if terminal::is_json() {
        terminal::print_json(&json!({"event": "done", "release": made}))?;
    } else {
        if !made.ungated.is_empty() {
            let names = made.ungated.join(", ");
            terminal::tell(format_args!(
                "warning: not compared with the checkpoint (convert --gate, gate): {names}"
            ));
        }
        let (path, files, size) =
            (made.path.display(), counted(made.files, "file"), digits::bytes(made.bytes));
        writeln!(terminal::out(), "{path}  {files}, {size}, license {}", made.license)?;
    }
    Ok(ExitCode::SUCCESS)
}
