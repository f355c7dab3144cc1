//! The checkpoint's logits on a text, in a file. `docs/evaluation.md` describes its format.

mod header;
mod record;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use header::{Subject, VERSION};
pub use record::{Comparison, Record};

/// Why a logits file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogitsError {
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is not a logits file, or it is damaged.
    #[error("{path} is not a logits file that can be used: {reason}; make it again with `coreai-bundle eval --save-logits`", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It is about something else.
    #[error("{path} is {difference}", path = path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// In which way, and what to do.
        difference: String,
    },
}

/// A complete logits file.
#[derive(Debug)]
pub struct LogitsFile {
    path: PathBuf,
    file: File,
    subject: Subject,
    begin: u64,
}

impl LogitsFile {
    /// Opens a file and checks its header against its size. Records are checked when they are read.
    ///
    /// # Errors
    /// [`LogitsError`] says what is wrong with it.
    pub fn open(path: &Path) -> Result<LogitsFile, LogitsError> {
        let io = |source| LogitsError::Io { path: path.to_owned(), source };
        let content = |reason| LogitsError::Content { path: path.to_owned(), reason };
        let mut file = text::small::open_regular(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        let (subject, begin) = Subject::read(&mut io::BufReader::new(&mut file), found).map_err(content)?;
        let expected = begin.saturating_add(subject.bytes());
        if found != expected {
            return Err(content(format!("it has {found} bytes, and {expected} follow from its header")));
        }
        Ok(LogitsFile { path: path.to_owned(), file, subject, begin })
    }

    /// What it is about.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Refuses a file that is about something else.
    ///
    /// # Errors
    /// [`LogitsError::Other`].
    pub fn require(&self, subject: &Subject) -> Result<(), LogitsError> {
        match self.subject.difference(subject) {
            Some(difference) => Err(LogitsError::Other { path: self.path.clone(), difference }),
            None => Ok(()),
        }
    }

    /// The record of a position.
    ///
    /// # Errors
    /// If it cannot be read, or was changed.
    pub fn record(&self, position: usize) -> Result<Record, LogitsError> {
        let bytes = self.read(position, self.subject.record_bytes() as usize)?;
        let record =
            Record::from_bytes(&bytes).filter(|record| (record.winner as usize) < self.subject.vocab);
        record.ok_or_else(|| self.damaged(position))
    }

    /// Margin of the winner and likelihood of the next token at a position, without the rest of its record.
    ///
    /// # Errors
    /// If they cannot be read, or are not numbers of a checkpoint.
    pub fn numbers(&self, position: usize) -> Result<(f32, f64), LogitsError> {
        let bytes = self.read(position, record::FIXED)?;
        record::numbers(&bytes).map(|(_, margin, nll)| (margin, nll)).ok_or_else(|| self.damaged(position))
    }

    fn read(&self, position: usize, length: usize) -> Result<Vec<u8>, LogitsError> {
        let mut bytes = vec![0; length];
        let at = self.begin + self.subject.record_bytes() * position as u64;
        self.file
            .read_exact_at(&mut bytes, at)
            .map_err(|source| LogitsError::Io { path: self.path.clone(), source })?;
        Ok(bytes)
    }

    fn damaged(&self, position: usize) -> LogitsError {
        LogitsError::Content {
            path: self.path.clone(),
            reason: format!("its record of position {position} was changed"),
        }
    }
}

/// A logits file that grows record by record, from the first position on.
#[derive(Debug)]
pub struct LogitsWriter<F> {
    file: F,
    written: usize,
}

impl<F: Read + Write + Seek> LogitsWriter<F> {
    /// Begins a file, or continues one of the same subject: records that are complete stay. Anything else in the file is overwritten.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(
        mut file: F,
        subject: &Subject,
        truncate: impl FnOnce(&F, u64) -> io::Result<()>,
    ) -> io::Result<Self> {
        let header = subject.to_bytes()?;
        let mut found = vec![0; header.len()];
        file.seek(SeekFrom::Start(0))?;
        let same = file.read_exact(&mut found).is_ok() && found == header;
        let mut written = 0;
        if same {
            let mut record = vec![0; subject.record_bytes() as usize];
            while written < subject.windows.positions()
                && file.read_exact(&mut record).is_ok()
                && Record::from_bytes(&record).is_some()
            {
                written += 1;
            }
        } else {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&header)?;
        }
        let end = header.len() as u64 + subject.record_bytes() * written as u64;
        truncate(&file, end)?;
        file.seek(SeekFrom::Start(end))?;
        Ok(LogitsWriter { file, written })
    }

    /// Number of records that are in the file.
    pub fn written(&self) -> usize {
        self.written
    }

    /// Adds the record of the next position.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        self.file.write_all(&record.to_bytes())?;
        self.written += 1;
        Ok(())
    }

    /// The file.
    pub fn into_inner(self) -> F {
        self.file
    }
}
