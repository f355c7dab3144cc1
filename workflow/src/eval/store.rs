//! Where the checkpoint's logits are, and whether they stay.

use std::fs;
use std::path::{Path, PathBuf};

use ::oracle::eval::logits::{LogitsFile, LogitsWriter, Subject};
use ::oracle::eval::reference::{ComputeError, compute};
use ::oracle::reference::{Reference, ReferenceError};
use anyhow::{Context, bail};
use checkpoint::source::Source;
use output::{StagedFile, available_bytes};
use packer::replace::{FileKind, Output, Outputs};
use progress::Progress;
use report::digits;

use super::EvalRequest;

/// The checkpoint's logits.
pub(super) struct Store {
    /// The file, if it has a name.
    path: Option<PathBuf>,
    /// A file without one, which is deleted with this.
    temporary: Option<StagedFile>,
    /// Whether the file is deleted when the run has succeeded.
    is_scratch: bool,
    guard: Output,
}

impl Store {
    /// Decides where they are. Nothing is written yet.
    pub(super) fn open(
        request: &EvalRequest,
        source: Option<&dyn Source>,
        progress: &dyn Progress,
    ) -> anyhow::Result<Self> {
        let beside = |resume: &PathBuf| {
            let mut name = resume.clone().into_os_string();
            name.push(".logits");
            PathBuf::from(name)
        };
        let kept = request.logits.clone().or_else(|| request.save_logits.clone());
        let is_scratch = kept.is_none() && request.resume.is_some();
        let path = kept.or_else(|| request.resume.as_ref().map(beside));
        if source.is_none() && request.logits.is_none() {
            bail!("give the checkpoint with --checkpoint, or its logits with --logits");
        }
        if let Some(path) = path.as_ref().filter(|path| path.exists() && request.logits.is_none()) {
            progress.note(&format!(
                "{}: the checkpoint's logits of an earlier run are used",
                text::terminal::line(&path.display().to_string())
            ));
        }
        let guard = Outputs::new(request.inputs(), false).file(FileKind::Logits);
        Ok(Store { path, temporary: None, is_scratch, guard })
    }

    /// The checkpoint's logits: those that are there, if they are of the same subject, or else new ones.
    pub(super) fn logits(
        &mut self,
        request: &EvalRequest,
        source: Option<&dyn Source>,
        progress: &dyn Progress,
    ) -> anyhow::Result<LogitsFile> {
        let Some(source) = source else { return self.given(request) };
        let reference = Reference::open(source)?;
        let subject = request.subject(source, &reference)?;
        if let Some(path) = self.path.clone().filter(|path| path.exists() || request.logits.is_some()) {
            let file = LogitsFile::open(&path)?;
            file.require(&subject)?;
            return Ok(file);
        }
        self.make(&reference, &subject, progress)
    }

    /// Logits of a checkpoint that is not here. What they are about is what was asked for, as far as it was.
    fn given(&self, request: &EvalRequest) -> anyhow::Result<LogitsFile> {
        let path = self.path.as_deref().unwrap_or(Path::new(""));
        let file = LogitsFile::open(path)?;
        let has_text = request.text.is_some() || request.limit.is_some();
        if has_text || request.window.is_some() || request.stride.is_some() {
            let bundle = request.bundles.first().context("give a bundle to compare with --logits")?;
            let windows = request.windows(&bundle.text()?, file.subject().windows.shape())?;
            file.require(&Subject { windows, ..file.subject().clone() })?;
        }
        Ok(file)
    }

    fn make(
        &mut self,
        reference: &Reference<'_>,
        subject: &Subject,
        progress: &dyn Progress,
    ) -> anyhow::Result<LogitsFile> {
        let nowhere = || std::env::temp_dir().join("coreai-bundle-eval.logits");
        let path = self.path.clone().unwrap_or_else(nowhere);
        let adopted = if self.path.is_some() { StagedFile::adopt(&path, self.guard.clone())? } else { None };
        let staged = match adopted {
            Some(staged) => staged,
            None => StagedFile::new(&path, self.guard.clone())?,
        };
        self.check_space(&path, subject)?;
        let mut writer = LogitsWriter::open(staged, subject, |staged, end| staged.file().set_len(end))
            .with_context(|| format!("cannot write {}", path.display()))?;
        progress.begin("fp32 reference");
        let computed = compute(reference, &subject.windows, progress, &mut writer);
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

    fn check_space(&self, path: &Path, subject: &Subject) -> anyhow::Result<()> {
        let (needed, available) = (subject.bytes(), available_bytes(path)?);
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
