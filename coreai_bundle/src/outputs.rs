//! Checks and facts that all commands with outputs share.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use checkpoint::config::DecoderConfig;
use converter::name::ModelName;
use output::{StagedFile, available_bytes};
use packer::replace::{Output, Outputs};
use report::digits;

/// Bytes kept free in addition to what is planned: metadata, tokenizer, manifest.
const SLACK: u64 = 64 << 20;

/// How a conversion is run, and where its outputs go.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Folder of the checkpoint, or its repository on the Hub: outputs must not replace it.
    pub source: String,
    /// Folder to put the outputs into.
    pub output: PathBuf,
    /// Base name of the outputs, instead of one made from the checkpoint's.
    pub name: Option<String>,
    /// Whether to continue an interrupted run.
    pub resume: bool,
    /// Whether to replace outputs that exist.
    pub force: bool,
    /// Threads to use.
    pub threads: usize,
    /// The options that outputs depend on, as the user typed them: an interrupted run is continued with the same ones.
    pub typed: BTreeMap<String, String>,
}

impl RunOptions {
    /// Outputs of this run, which reads the checkpoint and these.
    pub fn outputs<'p>(&'p self, others: impl IntoIterator<Item = &'p Path>) -> Outputs {
        Outputs::new(std::iter::once(Path::new(&self.source)).chain(others), self.force)
    }

    /// Name of the model: as given, else made from the checkpoint's.
    ///
    /// # Errors
    /// If the given one is not a file name.
    pub fn model_name(&self, source: &str, config: &DecoderConfig) -> anyhow::Result<ModelName> {
        match &self.name {
            Some(name) => {
                ModelName::given(name).with_context(|| format!("--name {name:?} is not a file name"))
            }
            None => Ok(ModelName::new(source, config)),
        }
    }

    /// Refuses a run if the file system of its outputs has too little space.
    pub(crate) fn check_space(&self, needed: u64) -> anyhow::Result<()> {
        let available = available_bytes(&self.output)?;
        let needed = needed.saturating_add(SLACK);
        if needed > available {
            bail!(
                "{}: {} are needed, {} are free; make room or give another folder with -o",
                self.output.display(),
                digits::bytes(needed),
                digits::bytes(available)
            );
        }
        Ok(())
    }
}

/// Writes a text file completely or not at all.
///
/// # Errors
/// If it must not be replaced, or the system refuses.
pub fn write_text(path: &Path, output: Output, text: &str) -> anyhow::Result<()> {
    let mut file = StagedFile::new(path, output)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    file.commit()?;
    Ok(())
}

/// The time that outputs carry, as `YYYYMMDDTHHMMSSZ`: that of `SOURCE_DATE_EPOCH`, else the epoch, so that equal inputs make
/// equal bytes.
///
/// # Errors
/// If the variable is not a number of seconds that a calendar has.
pub fn creation_date() -> anyhow::Result<String> {
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
