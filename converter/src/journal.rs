//! What a run has finished, so that another one can go on where it was cut off.
//!
//! A journal is a file of JSON lines in a folder beside the outputs: first what the run was to do, then a line for each tensor that is
//! wholly in the outputs' files, with their sizes and digests up to there. Nothing is taken on trust: the run that goes on hashes
//! those bytes again. A line that was cut off in the middle counts for nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use aimodel::stream::WrittenFile;
use serde::{Deserialize, Serialize};

use crate::figures::TensorFigures;
use crate::quant::Statistics;
use crate::source::{Source, SourceError};

/// The journal's file.
const FILE: &str = "journal.jsonl";

/// What a run was to do. One that goes on must be to do the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Header {
    /// Name and version of the tool.
    pub tool: String,
    /// Repository.
    pub repository: String,
    /// Its commit.
    pub revision: String,
    /// Fingerprint of the checkpoint's configuration and headers.
    pub fingerprint: String,
    /// Options, as a user gives them, that the outputs depend on.
    pub options: BTreeMap<String, String>,
    /// Names of the outputs' hidden folders.
    pub folders: Vec<String>,
}

/// Why a run does not go on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The journal.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A checkpoint without a commit may change between two runs, and nothing would tell.
    #[error("only a conversion of a repository's commit can be resumed: leave --resume out")]
    NoCommit,
    /// The first line is missing or damaged.
    #[error("{path} is damaged: leave --resume out to begin anew", path = path.display())]
    Damaged {
        /// The journal.
        path: PathBuf,
    },
    /// The repository has moved on.
    #[error(
        "the run that was cut off was of commit {then}, and {now} is asked for: give --revision {then} to go on with it, or leave \
         --resume out to begin anew"
    )]
    Revision {
        /// Its commit.
        then: String,
        /// This run's.
        now: String,
    },
    /// The runs are to do different things.
    #[error(
        "the run that was cut off had {what} {then}, this one has {now}: give the same to go on, or leave --resume out to begin anew"
    )]
    Different {
        /// In which point.
        what: String,
        /// Its value in the run that was cut off.
        then: String,
        /// Its value now.
        now: String,
    },
}

/// A blob that waits, whole, in a temporary file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct SpoolRecord {
    /// Number of the blob.
    pub(crate) blob: usize,
    pub(crate) file: WrittenFile,
    pub(crate) statistics: Option<Statistics>,
}

/// A line: what was finished since the line before, and how far the files have come.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A tensor of the graphs is in all files that are made of it.
    Tensor {
        /// Its name.
        name: String,
        /// Number of the blob that comes next.
        next_blob: usize,
        /// How far the packages have come.
        packages: Vec<WrittenFile>,
        /// Figures of matrices that were finished.
        figures: Vec<TensorFigures>,
        /// Table files that are whole.
        tables: BTreeMap<String, WrittenFile>,
        /// Blobs that wait.
        spools: Vec<SpoolRecord>,
    },
    /// The per-layer table of the stock graph waits in a temporary file.
    Stock {
        /// The tensor.
        name: String,
        /// The temporary file.
        file: WrittenFile,
    },
    /// The packages are whole.
    Packages {
        /// Their programs.
        packages: Vec<WrittenFile>,
        /// Figures of matrices that were finished.
        figures: Vec<TensorFigures>,
    },
    /// A table that no graph shares its tensor with is whole.
    Table {
        /// The tensor.
        name: String,
        /// Its bytes.
        bytes: u64,
        /// Its files.
        files: BTreeMap<String, WrittenFile>,
    },
}

/// Everything that was finished before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// The blob that comes next, if any tensor was finished.
    pub(crate) next_blob: Option<usize>,
    /// How far the packages have come, or their programs.
    pub(crate) packages: Vec<WrittenFile>,
    /// Whether the packages are whole.
    pub(crate) has_packages: bool,
    pub(crate) figures: Vec<TensorFigures>,
    pub(crate) tables: BTreeMap<String, WrittenFile>,
    pub(crate) spools: Vec<SpoolRecord>,
    /// The stock graph's per-layer table.
    pub(crate) stock: Option<WrittenFile>,
    /// Bytes of the checkpoint that tables alone were made of.
    pub(crate) table_bytes: u64,
}

impl Done {
    fn add(&mut self, entry: Entry) {
        match entry {
            Entry::Tensor { next_blob, packages, figures, tables, spools, .. } => {
                self.next_blob = Some(next_blob);
                (self.packages, self.spools) = (packages, spools);
                self.figures.extend(figures);
                self.tables.extend(tables);
            }
            Entry::Packages { packages, figures } => {
                (self.packages, self.has_packages) = (packages, true);
                self.figures.extend(figures);
                self.spools.clear();
            }
            Entry::Stock { file, .. } => self.stock = Some(file),
            Entry::Table { bytes, files, .. } => {
                self.table_bytes += bytes;
                self.tables.extend(files);
            }
        }
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Nothing if nobody is to go on with this run.
    file: Option<File>,
    pub(crate) done: Done,
}

impl Journal {
    /// Writes nothing down.
    pub fn off() -> Self {
        Journal { path: PathBuf::new(), file: None, done: Done::default() }
    }

    /// Begins a journal in an empty folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(folder: &Path, header: &Header) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        let file = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = file.map_err(|source| JournalError::Io { path: path.clone(), source })?;
        let mut journal = Journal { path, file: Some(file), done: Done::default() };
        journal.write(header)?;
        Ok(journal)
    }

    /// What a run was to do that left a journal in this folder.
    ///
    /// # Errors
    /// If there is none, or its first line is not whole.
    pub fn header(folder: &Path) -> Result<Header, JournalError> {
        let path = folder.join(FILE);
        let text =
            fs::read_to_string(&path).map_err(|source| JournalError::Io { path: path.clone(), source })?;
        let line = text.split_inclusive('\n').next().filter(|line| line.ends_with('\n'));
        line.and_then(|line| serde_json::from_str(line).ok()).ok_or(JournalError::Damaged { path })
    }

    /// Goes on with the journal in this folder.
    ///
    /// # Errors
    /// If it cannot be read, or this run is to do something else.
    pub fn resume(folder: &Path, header: &Header) -> Result<Self, JournalError> {
        Journal::header(folder)?.check(header)?;
        let path = folder.join(FILE);
        let io = |source| JournalError::Io { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(io)?;
        let (mut done, mut whole) = (Done::default(), 0);
        for (at, line) in text.split_inclusive('\n').enumerate() {
            if at > 0 {
                let Some(entry) = line.strip_suffix('\n').and_then(|line| serde_json::from_str(line).ok())
                else {
                    break;
                };
                done.add(entry);
            }
            whole += line.len();
        }
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        file.set_len(whole as u64).map_err(io)?;
        Ok(Journal { path, file: Some(file), done })
    }

    /// Whether anything is written down.
    pub fn is_on(&self) -> bool {
        self.file.is_some()
    }

    /// Writes down what is in the files now.
    pub(crate) fn record(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.write(entry)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<(), JournalError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = serde_json::to_string(line)
            .map_err(io::Error::from)
            .and_then(|line| file.write_all(format!("{line}\n").as_bytes()));
        written.map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }
}

impl Header {
    /// That of a run over a checkpoint.
    ///
    /// # Errors
    /// If the checkpoint is of no commit, or its configuration cannot be read.
    pub fn new(
        tool: String,
        source: &dyn Source,
        options: BTreeMap<String, String>,
    ) -> Result<Option<Self>, SourceError> {
        let identity = source.identity();
        let (Some(repository), Some(revision)) = (&identity.repository, &identity.revision) else {
            return Ok(None);
        };
        Ok(Some(Header {
            tool,
            repository: repository.clone(),
            revision: revision.clone(),
            fingerprint: source.fingerprint()?.to_string(),
            options,
            folders: Vec::new(),
        }))
    }

    /// Checks that `now` is to do the same.
    fn check(&self, now: &Header) -> Result<(), JournalError> {
        if self.repository == now.repository && self.revision != now.revision {
            return Err(JournalError::Revision { then: self.revision.clone(), now: now.revision.clone() });
        }
        let fields = [
            ("the repository", &self.repository, &now.repository),
            ("the version", &self.tool, &now.tool),
            ("the fingerprint", &self.fingerprint, &now.fingerprint),
        ];
        let different = |what: &str, then: &str, now: &str| JournalError::Different {
            what: what.to_owned(),
            then: then.to_owned(),
            now: now.to_owned(),
        };
        if let Some((what, then, now)) = fields.into_iter().find(|(_, then, now)| then != now) {
            return Err(different(what, then, now));
        }
        for name in self.options.keys().chain(now.options.keys()) {
            let value = |header: &Header| header.options.get(name).cloned().unwrap_or("none".to_owned());
            let (then, now) = (value(self), value(now));
            if then != now {
                return Err(different(name, &then, &now));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use aimodel::stream::WrittenFile;

    use super::{Entry, FILE, Header, Journal, JournalError};

    fn header() -> Header {
        Header {
            tool: "tool 1".to_owned(),
            repository: "google/tiny".to_owned(),
            revision: "a".repeat(40),
            fingerprint: "f".to_owned(),
            options: BTreeMap::from([("--rule".to_owned(), "lattice".to_owned())]),
            folders: vec![".m.partial-1-0".to_owned()],
        }
    }

    fn table(name: &str) -> Entry {
        let file = WrittenFile { digest: [7; 32], bytes: 3 };
        Entry::Table { name: name.to_owned(), bytes: 6, files: BTreeMap::from([(name.to_owned(), file)]) }
    }

    #[test]
    fn a_line_that_was_cut_off_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::begin(dir.path(), &header()).unwrap();
        journal.record(&table("a")).unwrap();
        journal.record(&table("b")).unwrap();
        drop(journal);
        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for length in 0..=whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let lines = whole[..length].iter().filter(|byte| **byte == b'\n').count();
            match Journal::resume(dir.path(), &header()) {
                Err(JournalError::Damaged { .. }) => assert_eq!(lines, 0),
                resumed => assert_eq!(resumed.unwrap().done.tables.len() + 1, lines),
            }
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        Journal::resume(dir.path(), &header()).unwrap().record(&table("c")).unwrap();
        let done = Journal::resume(dir.path(), &header()).unwrap().done;
        assert_eq!(done.tables.keys().collect::<Vec<_>>(), ["a", "c"]);
    }

    #[test]
    fn a_run_that_is_to_do_something_else_does_not_go_on() {
        let dir = tempfile::tempdir().unwrap();
        drop(Journal::begin(dir.path(), &header()).unwrap());
        let words = |change: &dyn Fn(&mut Header)| {
            let mut other = header();
            change(&mut other);
            Journal::resume(dir.path(), &other).unwrap_err().to_string()
        };
        let moved = words(&|header| header.revision = "b".repeat(40));
        assert!(moved.contains(&format!("give --revision {}", "a".repeat(40))), "{moved}");
        let option = words(&|header| drop(header.options.insert("--rule".to_owned(), "absmax".to_owned())));
        assert!(option.contains("had --rule lattice, this one has absmax"), "{option}");
        let added = words(&|header| drop(header.options.insert("--head".to_owned(), "f16".to_owned())));
        assert!(added.contains("had --head none, this one has f16"), "{added}");
        assert!(words(&|header| header.tool = "tool 2".to_owned()).contains("the version"));
        assert!(words(&|header| header.fingerprint.clear()).contains("the fingerprint"));
    }
}
