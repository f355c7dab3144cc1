//! `coreai-bundle init`: a recipe to start from.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::build::starter;
use coreai_bundle::outputs::{model_name, write_text};
use coreai_bundle::parts::converter::Model;
use coreai_bundle::parts::packer::replace::{FileKind, Outputs};
use coreai_bundle::parts::text::shell::quoted;
use coreai_bundle::source::SourceSpec;

use serde_json::json;

use crate::origin::AccessArguments;
use crate::{origin, terminal};

/// Write a recipe for `build`, with comments, that fits a checkpoint
#[derive(Debug, Args)]
#[command(after_help = "Example:
  coreai-bundle init google/gemma-4-E4B-it-qat-q4_0-unquantized")]
pub(crate) struct Arguments {
    /// Folder of the checkpoint, or its repository on the Hub, as owner/name
    source: String,
    #[command(flatten)]
    access: AccessArguments,
    /// File to write; - prints it [default: NAME.toml]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Replace a recipe that init wrote
    #[arg(long)]
    force: bool,
}

/// The checkpoint as a recipe names it: folders are found from the recipe's folder.
fn seen_from(recipe: &Path, source: &SourceSpec) -> anyhow::Result<SourceSpec> {
    let is_here = recipe.parent().is_none_or(|folder| folder.as_os_str().is_empty());
    Ok(match source {
        SourceSpec::Local(folder) if !is_here => SourceSpec::Local(std::path::absolute(folder)?),
        source => source.clone(),
    })
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let source = arguments.access.source(&arguments.source)?;
    let opened = origin::open(&source, arguments.access.access())?;
    let model = Model::open(&*opened.source)?;
    let name = model_name(None, &opened.name, &model.config)?;
    let default = || PathBuf::from(format!("{name}.toml"));
    let path = arguments.output.clone().unwrap_or_else(default);
    let text = starter(&seen_from(&path, &source)?, opened.source.identity(), &model);
    if path == Path::new("-") {
        write!(terminal::out(), "{text}")?;
        return Ok(ExitCode::SUCCESS);
    }
    let output = Outputs::new(source.path(), arguments.force).file(FileKind::Recipe);
    write_text(&path, output, &text)?;
    if terminal::is_json() {
        terminal::print_json(&json!({"event": "done", "recipe": path}))?;
    } else {
        let shown = path.display();
        writeln!(terminal::out(), "{shown}")?;
        if !terminal::is_quiet() {
            writeln!(terminal::out(), "next: coreai-bundle build {}", quoted(&path))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
