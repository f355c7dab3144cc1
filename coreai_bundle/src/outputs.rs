//! Checks and facts that all commands with outputs share.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use checkpoint::config::DecoderConfig;
use converter::name::ModelName;
use output::{Guard, StagedFile, available_bytes};
use packer::manifest::Manifest;
use packer::replace::{Output, Outputs};
use report::digits;

use crate::source::SourceSpec;

/// Bytes kept free in addition to what is planned: metadata, tokenizer, manifest.
const SLACK: u64 = 64 << 20;

/// How a conversion is run, and where its outputs go.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// The checkpoint: outputs must not lie in it.
    pub source: SourceSpec,
    /// Folder to put the outputs into.
    pub output: PathBuf,
    /// Base name of the outputs.
    pub name: ModelName,
    /// Whether to continue an interrupted run.
    pub resume: bool,
    /// Whether to replace outputs that exist.
    pub force: bool,
    /// Threads to use.
    pub threads: usize,
    /// The options that outputs depend on, as the user typed them: an interrupted run is continued with the same ones.
    pub typed: BTreeMap<String, String>,
}

/// The folder that outputs are put into if none is given: beside whatever else is in the current folder.
pub fn default_folder(name: &ModelName) -> PathBuf {
    PathBuf::from(format!("{name}-coreai"))
}

impl RunOptions {
    /// Outputs of this run, which reads the checkpoint and these.
    pub fn outputs<'p>(&'p self, others: impl IntoIterator<Item = &'p Path>) -> Outputs {
        Outputs::new(self.source.path().into_iter().chain(others), self.force)
    }

    /// Refuses to write into the folder of the checkpoint.
    ///
    /// # Errors
    /// If that is where the outputs would be.
    pub fn check_place(&self) -> anyhow::Result<()> {
        let target = std::path::absolute(self.output.join("output"))?;
        // The folder itself may hold outputs, which have manifests of their own.
        if let Some(tree) = target.ancestors().skip(1).find(|folder| Manifest::read(folder).is_ok()) {
            bail!(
                "{}: {} is an output of this tool, and its manifest lists what it holds; give another folder with -o",
                self.output.display(),
                tree.display()
            );
        }
        match self.outputs([]).temporary().may_write(&target) {
            Ok(()) => Ok(()),
            Err(_) => bail!(
                "{}: outputs are not written into the checkpoint's folder {}; give another folder with -o",
                self.output.display(),
                self.source
            ),
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

/// Name of the model of a checkpoint that is called `source`: as given, else made from that.
///
/// # Errors
/// If the given one is not a file name.
pub fn model_name(given: Option<&str>, source: &str, config: &DecoderConfig) -> anyhow::Result<ModelName> {
    match given {
        Some(name) => ModelName::given(name).with_context(|| format!("--name {name:?} is not a file name")),
        None => Ok(ModelName::new(source, config)),
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
