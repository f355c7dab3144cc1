//! Where the checkpoint's logits are, and whether they stay.

use std::fs;
use std::path::{Path, PathBuf};

use ::oracle::eval::logits::{LogitsFile, LogitsWriter, Subject};
use ::oracle::eval::reference::{ComputeError, compute};
use ::oracle::reference::{POSITIONS_AT_ONCE, Reference, ReferenceError};
use anyhow::{Context, bail};
use checkpoint::source::Source;
use output::{StagedFile, available_bytes};
use packer::replace::{FileKind, Output, Outputs};
use progress::Progress;
use report::digits;

use super::EvalRequest;

/// The checkpoint's logits.
pub(super) struct Store {
    subject: Subject,
    /// The file, if it has a name.
    path: Option<PathBuf>,
    /// The logits, if they are there already.
    found: Option<LogitsFile>,
    /// A file without a name, which is deleted with this.
    temporary: Option<StagedFile>,
    /// Whether the file is deleted when the run has succeeded.
    is_scratch: bool,
    guard: Output,
}

impl Store {
    /// Decides where they are, and opens them if they are there. Nothing is written yet.
    pub(super) fn open(request: &EvalRequest, source: Option<&dyn Source>) -> anyhow::Result<Self> {
        let beside = |resume: &PathBuf| {
            let mut name = resume.clone().into_os_string();
            name.push(".logits");
            PathBuf::from(name)
        };
        let kept = request.logits.clone().or_else(|| request.save_logits.clone());
        let is_scratch = kept.is_none() && request.resume.is_some();
        let path = kept.or_else(|| request.resume.as_ref().map(beside));
        let is_there = |path: &&PathBuf| request.logits.is_some() || path.exists();
        let found = path.as_ref().filter(is_there).map(|path| LogitsFile::open(path)).transpose()?;
        let subject = match (source, &found) {
            (Some(source), _) => request.subject(source, &Reference::open(source)?)?,
            (None, Some(found)) => request.subject_of(found)?,
            (None, None) => bail!("give the checkpoint with --checkpoint, or its logits with --logits"),
        };
        if let Some(found) = &found {
            found.require(&subject)?;
        }
        let guard = Outputs::new(request.inputs(), false).file(FileKind::Logits);
        Ok(Store { subject, path, found, temporary: None, is_scratch, guard })
    }

    /// What they are about.
    pub(super) fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The checkpoint's logits: those that are there, or else new ones.
    pub(super) fn logits(
        &mut self,
        source: Option<&dyn Source>,
        progress: &dyn Progress,
    ) -> anyhow::Result<LogitsFile> {
        match (self.found.take(), source) {
            (Some(found), _) => Ok(found),
            (None, Some(source)) => self.make(&Reference::open(source)?, progress),
            (None, None) => bail!("give --checkpoint or --logits"),
        }
    }

    fn make(&mut self, reference: &Reference<'_>, progress: &dyn Progress) -> anyhow::Result<LogitsFile> {
        let subject = &self.subject;
        let nowhere = || std::env::temp_dir().join("coreai-bundle-eval.logits");
        let path = self.path.clone().unwrap_or_else(nowhere);
        let adopted = if self.path.is_some() { StagedFile::adopt(&path, self.guard.clone())? } else { None };
        let staged = match adopted {
            Some(staged) => staged,
            None => StagedFile::new(&path, self.guard.clone())?,
        };
        self.check_space(&path)?;
        let mut writer = LogitsWriter::open(staged, subject, |staged, end| staged.file().set_len(end))
            .with_context(|| format!("cannot write {}", path.display()))?;
        progress.begin("fp32 reference");
        let computed = compute(reference, &subject.windows, POSITIONS_AT_ONCE, progress, &mut writer);
        let mut staged = writer.into_inner();
        if let Err(error) = computed {
            if self.path.is_some() && matches!(error, ComputeError::Reference(ReferenceError::Stopped)) {
                staged.leave();
            }
            return Err(error.into());
        }
        if self.path.is_some() {
            return Ok(LogitsFile::open(&staged.commit()?)?);
        }
        let file = LogitsFile::open(staged.path())?;
        self.temporary = Some(staged);
        Ok(file)
    }

    fn check_space(&self, path: &Path) -> anyhow::Result<()> {
        let (needed, available) = (self.subject.bytes(), available_bytes(path)?);
        if needed <= available {
            return Ok(());
        }
        let fix = if self.path.is_some() {
            "give another file"
        } else {
            "set TMPDIR, or give a file with --save-logits"
        };
        bail!(
            "{}: the checkpoint's logits need {}, {} are free: {fix}, or less text with --limit",
            path.display(),
            digits::bytes(needed),
            digits::bytes(available)
        );
    }

    /// Ends a run that has succeeded.
    pub(super) fn close(self) -> anyhow::Result<()> {
        match self.path {
            Some(path) if self.is_scratch => {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}
