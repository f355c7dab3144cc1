//! A run's hidden folders: new ones, or those of an interrupted run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::bail;
use checkpoint::source::{Source, SourceError};
use converter::ConvertError;
use converter::journal::{Journal, JournalError, JournalHeader};
use output::{StagedDirectory, WrittenFile};
use packer::TOOL;
use packer::manifest::{self, Manifest};
use packer::replace::Output;
use progress::Progress;

use crate::outputs::{RunOptions, creation_date};

/// Name of a folder to make, and what it may replace.
pub(crate) type Target = (String, Output);

/// How a run succeeded.
#[derive(Debug)]
pub enum RunOutcome<T> {
    /// The outputs were made.
    Made(T),
    /// An earlier run had finished them, and they only had to be published: their manifests.
    Published(Vec<Manifest>),
}

/// Unfinished outputs, a folder for what is removed at the end of the run, and the journal in it.
pub(crate) struct Stage<'p> {
    progress: &'p dyn Progress,
    work: StagedDirectory,
    /// In the order of their names.
    pub(crate) folders: Vec<StagedDirectory>,
    /// What is finished.
    pub(crate) journal: Journal,
    /// Bytes that were there already.
    held: u64,
    /// Whether to leave everything for a later run, however this one ends.
    is_kept: bool,
}

impl<'p> Stage<'p> {
    /// Makes the hidden folders of these outputs, or adopts existing ones.
    ///
    /// # Errors
    /// If an output exists and must not be replaced, the system refuses, or the interrupted run was a different one.
    pub(crate) fn open(
        run: &RunOptions,
        work: &str,
        names: &[Target],
        source: &dyn Source,
        progress: &'p dyn Progress,
    ) -> anyhow::Result<Self> {
        let mut options = run.typed.clone();
        options.insert("SOURCE_DATE_EPOCH".to_owned(), creation_date()?);
        let header = JournalHeader::new(TOOL.to_owned(), source, options)?;
        let work = run.output.join(format!("{work}.work"));
        if !run.resume {
            return Self::begin(run, &work, names, header, progress);
        }
        let Some(header) = header else { bail!(JournalError::NoCommit) };
        if let Some(mut left) = StagedDirectory::adopt(&work, run.outputs([]).temporary(), None)? {
            match Journal::header(left.path()) {
                Ok(Some(then)) => return Self::resume(run, left, names, &header, &then.folders, progress),
                Ok(None) => {}
                Err(error) => {
                    left.leave();
                    return Err(error.into());
                }
            }
        }
        progress.note("there is nothing to resume: starting over");
        Self::begin(run, &work, names, Some(header), progress)
    }

    fn new(work: StagedDirectory, is_kept: bool, progress: &'p dyn Progress) -> Self {
        Stage { progress, work, folders: Vec::new(), journal: Journal::off(), held: 0, is_kept }
    }

    fn begin(
        run: &RunOptions,
        work: &Path,
        names: &[Target],
        header: Option<JournalHeader>,
        progress: &'p dyn Progress,
    ) -> anyhow::Result<Self> {
        // Before anything of an earlier run is removed.
        for (name, output) in names {
            StagedDirectory::check(&run.output.join(name), output.clone())?;
        }
        let work = StagedDirectory::new(work, run.outputs([]).temporary())?;
        let mut stage = Stage::new(work, run.resume, progress);
        for (name, output) in names {
            stage.folders.push(StagedDirectory::new(&run.output.join(name), output.clone())?);
        }
        if let Some(mut header) = header {
            header.folders = stage.folders.iter().map(|folder| hidden_name(folder.path())).collect();
            stage.journal = Journal::begin(stage.work.path(), &header)?;
        }
        Ok(stage)
    }

    fn resume(
        run: &RunOptions,
        work: StagedDirectory,
        names: &[Target],
        header: &JournalHeader,
        hidden: &[String],
        progress: &'p dyn Progress,
    ) -> anyhow::Result<Self> {
        let mut stage = Stage::new(work, true, progress);
        match stage.take_over(run, names, header, hidden) {
            Ok(()) => Ok(stage),
            // What exists stays, for a run with the right options.
            Err(error) => Err(stage.end(error)),
        }
    }

    fn take_over(
        &mut self,
        run: &RunOptions,
        names: &[Target],
        header: &JournalHeader,
        hidden: &[String],
    ) -> anyhow::Result<()> {
        self.journal = Journal::resume(self.work.path(), header)?;
        if hidden.len() != names.len() {
            bail!(JournalError::Damaged { path: self.work.path().to_owned() });
        }
        let finished: Vec<Option<WrittenFile>> = match self.journal.finished() {
            Some(outputs) => outputs.iter().copied().map(Some).collect(),
            None => vec![None; names.len()],
        };
        for ((target, hidden), finished) in names.iter().zip(hidden).zip(finished) {
            self.take_over_output(run, target, hidden, finished)?;
        }
        self.held += bytes_in(self.work.path())?;
        Ok(())
    }

    /// Adopts one hidden folder. `finished` is the file that describes it, if the interrupted run had finished.
    fn take_over_output(
        &mut self,
        run: &RunOptions,
        (name, output): &Target,
        hidden: &str,
        finished: Option<WrittenFile>,
    ) -> anyhow::Result<()> {
        let target = run.output.join(name);
        if let Some(finished) = &finished
            && is_output(&target, finished)?
        {
            // It has its name already. Under the hidden name there may be what it replaced, which is removed now.
            drop(StagedDirectory::adopt(&target, output.clone().always(), Some(hidden.as_ref())));
            return Ok(());
        }
        let damaged = || JournalError::Damaged { path: target.with_file_name(hidden) };
        let Some(folder) = StagedDirectory::adopt(&target, output.clone(), Some(hidden.as_ref()))? else {
            bail!(damaged());
        };
        self.folders.push(folder);
        let path = self.folders.last().map(StagedDirectory::path).unwrap_or(&target);
        self.held += bytes_in(path)?;
        match finished {
            Some(finished) if !is_output(path, &finished)? => bail!(damaged()),
            _ => Ok(()),
        }
    }

    /// A folder that is removed at the end of the run.
    pub(crate) fn work(&self) -> PathBuf {
        self.work.path().to_owned()
    }

    /// Bytes that were there already.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    /// Whether the interrupted run had finished all outputs: then they only have to be published.
    pub(crate) fn is_finished(&self) -> bool {
        self.journal.finished().is_some()
    }

    /// Publishes what an interrupted run had finished; returns the manifests.
    pub(crate) fn commit_finished(self, run: &RunOptions, names: &[Target]) -> anyhow::Result<Vec<Manifest>> {
        self.commit()?;
        let read = |(name, _): &Target| Ok(Manifest::read(&run.output.join(name))?);
        names.iter().map(read).collect()
    }

    /// Publishes all outputs or none, the last one first: tables come before the bundles that need them.
    ///
    /// # Errors
    /// If the system refuses. With a journal the outputs are then kept for a run with `--resume`; without one they are dropped.
    pub(crate) fn commit(mut self) -> anyhow::Result<()> {
        let published = self.publish();
        if published.is_err() && self.journal.is_on() {
            self.keep();
        }
        published
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        if !self.is_finished() {
            self.finish()?;
        }
        self.journal.disk().step()?;
        self.folders.reverse();
        let published = StagedDirectory::publish_all(&mut self.folders);
        // Dropping them depends on their order.
        self.folders.reverse();
        Ok(published?)
    }

    /// Syncs all outputs, then records that they are complete: from then on every state can be published.
    fn finish(&mut self) -> anyhow::Result<()> {
        for folder in &self.folders {
            self.journal.disk().step()?;
            folder.sync()?;
        }
        if !self.journal.is_on() {
            return Ok(());
        }
        let describe = |folder: &StagedDirectory| WrittenFile::of(&folder.path().join(manifest::FILE_NAME));
        let outputs = self.folders.iter().map(describe).collect::<Result<Vec<_>, _>>()?;
        Ok(self.journal.finish(outputs)?)
    }

    /// Ends a run that failed: leaves what was finished if that was asked for, if the connection broke, or if a run over a repository was
    /// interrupted after some of it was transferred; else nothing.
    pub(crate) fn end(mut self, error: anyhow::Error) -> anyhow::Error {
        let is_worth_keeping = is_interruption(&error) && self.journal.has_entries();
        if self.is_kept || is_line_failure(&error) || is_worth_keeping {
            self.keep();
        }
        error
    }

    /// Leaves everything for a later run.
    fn keep(&mut self) {
        self.folders.iter_mut().for_each(StagedDirectory::leave);
        self.work.leave();
        if self.journal.is_on() {
            self.progress.note("what was finished is kept: run again with --resume to continue");
        }
    }
}

impl Drop for Stage<'_> {
    /// The first one made the folder that contains all, and removes that with itself; so it is dropped last.
    fn drop(&mut self) {
        while self.folders.pop().is_some() {}
    }
}

/// Whether a folder has this manifest, and the files that it lists, and no others.
pub(crate) fn is_output(folder: &Path, described: &WrittenFile) -> anyhow::Result<bool> {
    if !described.is_whole(&folder.join(manifest::FILE_NAME))? {
        return Ok(false);
    }
    Ok(manifest::collect(folder, &[])? == Manifest::read(folder)?.files)
}

/// Whether the Hub or the network failed temporarily.
fn is_line_failure(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ConvertError>() {
        Some(ConvertError::Source(SourceError::Hub(error))) => {
            error.may_pass() && !matches!(**error, hub::Error::Cancelled)
        }
        _ => false,
    }
}

/// Whether the user asked the run to end.
fn is_interruption(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ConvertError>() {
        Some(ConvertError::Interrupted) => true,
        Some(ConvertError::Source(SourceError::Hub(error))) => matches!(**error, hub::Error::Cancelled),
        _ => false,
    }
}

fn hidden_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Bytes of all files in a folder.
fn bytes_in(folder: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        sum += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
