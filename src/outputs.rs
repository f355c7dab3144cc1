//! Checks and facts that all commands with outputs share.

use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use checkpoint::config::DecoderConfig;
use clap::Args;
use converter::name::ModelName;
use output::{StagedFile, available_bytes};
use packer::replace::{Output, Outputs};

use crate::digits;
use crate::origin::Access;

/// Bytes kept free beside what is planned: metadata, tokenizer, manifest.
const SLACK: u64 = 64 << 20;

/// What every command that converts is given.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Folder of the checkpoint, or its repository on the Hub, as owner/name
    pub(crate) source: String,
    #[command(flatten)]
    pub(crate) access: Access,
    /// Folder to put the outputs into
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,
    /// Base name of the outputs, instead of one made from the checkpoint's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print the result, and events on the way, as JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Continue an interrupted conversion of the same commit with the same options
    #[arg(long)]
    pub(crate) resume: bool,
    /// Replace bundles and tables that exist; what this tool did not write stays
    #[arg(long)]
    pub(crate) force: bool,
    /// Threads to use [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Common {
    /// Threads to use: as typed, else as many as the machine has cores.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        self.threads.map_or_else(cores, NonZeroUsize::get)
    }

    /// Outputs of this run, which reads the checkpoint and these.
    pub(crate) fn outputs<'p>(&'p self, others: impl IntoIterator<Item = &'p Path>) -> Outputs {
        Outputs::new(std::iter::once(Path::new(&self.source)).chain(others), self.force)
    }

    /// Name of the model: as typed, else made of the checkpoint's own.
    pub(crate) fn model_name(&self, origin: &str, config: &DecoderConfig) -> anyhow::Result<ModelName> {
        match &self.name {
            Some(name) => {
                ModelName::given(name).with_context(|| format!("--name {name:?} is not a file name"))
            }
            None => Ok(ModelName::new(origin, config)),
        }
    }
}

/// Refuses a run that the file system under `folder` has no room for.
pub(crate) fn check_space(folder: &Path, needed: u64) -> anyhow::Result<()> {
    let available = available_bytes(folder)?;
    let needed = needed.saturating_add(SLACK);
    if needed > available {
        bail!(
            "{}: {} are needed, {} are free; make room or give another folder with -o",
            folder.display(),
            digits::bytes(needed),
            digits::bytes(available)
        );
    }
    Ok(())
}

/// Writes a text file whole or not at all.
pub(crate) fn write_text(path: &Path, output: Output, text: &str) -> anyhow::Result<()> {
    let mut file = StagedFile::new(path, output)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    file.commit()?;
    Ok(())
}

/// Name and version of this program.
pub(crate) fn tool() -> String {
    format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

/// The time that outputs carry, as `YYYYMMDDTHHMMSSZ`: that of `SOURCE_DATE_EPOCH`, else the epoch, so that equal inputs make
/// equal bytes.
pub(crate) fn creation_date() -> anyhow::Result<String> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds"))?
        }
        Err(_) => 0,
    };
    let time = jiff::Timestamp::from_second(seconds)
        .with_context(|| format!("SOURCE_DATE_EPOCH is {seconds}, out of range"))?;
    Ok(time.strftime("%Y%m%dT%H%M%SZ").to_string())
}
