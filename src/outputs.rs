//! Arguments of every command that converts.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use coreai_bundle::outputs::RunOptions;

use crate::origin::AccessArguments;

/// Arguments of every command that converts.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Folder of the checkpoint, or its repository on the Hub, as owner/name
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) access: AccessArguments,
    /// Folder to put the outputs into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,
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
    pub(crate) fn run_options(&self, typed: BTreeMap<String, String>) -> RunOptions {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        RunOptions {
            source: self.source.clone(),
            output: self.output.clone(),
            name: self.name.clone(),
            resume: self.resume,
            force: self.force,
            threads: self.threads.map_or_else(cores, NonZeroUsize::get),
            typed,
        }
    }
}

/// An option's value, as the user typed it.
pub(crate) fn typed(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
