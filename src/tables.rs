//! `coreai-bundle tables`: the gather tables of a checkpoint.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use coreai_bundle::parts::converter::Model;
use coreai_bundle::stage::RunOutcome;
use coreai_bundle::tables::{write_file, write_folder};
use serde_json::json;

use crate::outputs::{Common, typed};
use crate::progress::Bar;
use crate::{digits, interrupt, origin, published, terminal};

/// Write the gather tables of a checkpoint
#[derive(Debug, Args)]
#[command(after_help = "Example:
  coreai-bundle tables gemma-4-E4B-it-qat -o out")]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Form of the per-layer table
    #[arg(long, value_enum, default_value_t = Form::Raw)]
    ple: Form,
}

/// Form of the per-layer table, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// A folder of raw tables with one scale per row, as the bundles of this tool use them
    Raw,
    /// One safetensors file with one scale, as Apple's own Gemma 3n export writes it
    Safetensors,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    let source = common.access.source(&common.source)?;
    let opened = origin::open(&source, common.access.access())?;
    let model = Model::open(&*opened.source)?;
    let typed = BTreeMap::from([("--ple".to_owned(), typed(&arguments.ple))]);
    let run = common.run_options((&source, &opened), &model.config, typed)?;
    interrupt::listen()?;
    let bar = Bar::or_events("tensor");
    let (result, text) = match arguments.ple {
        Form::Raw => {
            let tables = match write_folder(&run, &model, &bar)? {
                RunOutcome::Made(tables) => tables,
                RunOutcome::Published(manifests) => {
                    return published::print(&run.output, &manifests);
                }
            };
            let (path, bytes) = (tables.path.display(), digits::bytes(tables.bytes));
            let text = format!("{path}  tables, {bytes}\nstamp {}", tables.stamp);
            (json!({"event": "done", "tables": tables}), text)
        }
        Form::Safetensors => {
            let file = write_file(&run, &model, &bar)?;
            let text = format!("{}  per-layer table, {}", file.path.display(), digits::bytes(file.bytes));
            (json!({"event": "done", "file": file}), text)
        }
    };
    if terminal::is_json() {
        terminal::print_json(&result)?;
    } else {
        writeln!(terminal::out(), "{text}")?;
    }
    Ok(ExitCode::SUCCESS)
}
