//! Arguments of every command that converts.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use coreai_bundle::origin::Opened;
use coreai_bundle::outputs::{RunOptions, default_folder, model_name};
use coreai_bundle::parts::checkpoint::config::DecoderConfig;
use coreai_bundle::source::SourceSpec;

use crate::origin::AccessArguments;

/// Arguments of every command that converts.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// The checkpoint: a folder, or a repository of the Hub, as owner/name or by its address
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
    /// Folder to put the outputs into [default: NAME-coreai, NAME being the base name of the outputs]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Base name of the outputs, instead of one made from the checkpoint's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Continue an interrupted conversion of the same commit with the same options
    #[arg(long)]
    resume: bool,
    /// Replace bundles and tables that exist; what this tool did not write stays
    #[arg(long)]
    force: bool,
    /// Threads to use [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Common {
    /// Including the options that outputs depend on.
    pub(crate) fn run_options(
        &self,
        (source, opened): (&SourceSpec, &Opened),
        config: &DecoderConfig,
        typed: BTreeMap<String, String>,
    ) -> anyhow::Result<RunOptions> {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let name = model_name(self.name.as_deref(), &opened.name, config)?;
        Ok(RunOptions {
            source: source.clone(),
            output: self.output.clone().unwrap_or_else(|| default_folder(&name)),
            name,
            resume: self.resume,
            force: self.force,
            threads: self.threads.map_or_else(cores, NonZeroUsize::get),
            typed,
        })
    }
}

/// An option's value, as the user typed it.
pub(crate) fn typed(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
