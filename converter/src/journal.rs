//! What a run has finished, so that another one can continue where it was interrupted.
//!
//! A journal is a file in a folder beside the outputs. Each line is one JSON value after the digest of all lines up to it: first
//! what the run does, then, for each tensor that is completely in the outputs' files, their sizes and digests up to there, and finally
//! that all outputs are complete. Nothing is trusted: the run that resumes hashes those bytes again, and a journal with a
//! line that was changed, lost or added is refused. Only a last line without its end is ignored: the run was cut off
//! while it was written.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use output::{Disk, WrittenFile};
use quantizer::Statistics;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::statistics::TensorStatistics;
use checkpoint::source::{Checksums, Source, SourceError, TensorChecksums};

/// The journal's file.
const FILE: &str = "journal";

/// The same without a line.
const NEW: &str = "journal.new";

/// Largest journal that is read, in bytes. That of a run over 42 layers has less than 2 MB.
const MAX_BYTES: u64 = 64 << 20;

/// What a run does. One that resumes must do the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JournalHeader {
    /// Name and version of the tool.
    pub tool: String,
    /// Repository.
    pub repository: String,
    /// Its commit.
    pub revision: String,
    /// Fingerprint of the checkpoint's configuration and headers.
    pub fingerprint: String,
    /// Options that the outputs depend on, as a user types them.
    pub options: BTreeMap<String, String>,
    /// Names of the outputs' hidden folders.
    pub folders: Vec<String>,
}

/// Why a run does not resume.
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
    /// A checkpoint without a commit may change unnoticed between two runs.
    #[error("only a conversion of a repository's commit can be resumed: leave --resume out")]
    NoCommit,
    /// The journal, or something that it lists, is not as the run left it.
    #[error("{path} is damaged or missing: leave --resume out to start over", path = path.display())]
    Damaged {
        /// The journal, or the file or folder.
        path: PathBuf,
    },
    /// The revision has another commit now.
    #[error(
        "the interrupted run was of commit {then}, and {now} is asked for: give --revision {then} to continue it, or leave \
         --resume out to start over"
    )]
    Revision {
        /// Its commit.
        then: String,
        /// This run's.
        now: String,
    },
    /// The runs do different things.
    #[error(
        "the interrupted run had {what} {then}, this one has {now}: give the same to continue, or leave --resume out to start over"
    )]
    Different {
        /// What differs.
        what: String,
        /// Its value in the interrupted run.
        then: String,
        /// Its value now.
        now: String,
    },
}

/// A complete blob that waits in a temporary file.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(crate) struct SpoolRecord {
    /// Number of the blob.
    pub(crate) blob: usize,
    pub(crate) file: WrittenFile,
    pub(crate) statistics: Option<Statistics>,
}

/// A line: what was finished since the line before, and the positions in the files.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Entry {
    /// A tensor of the graphs is in all files that are made from it.
    Tensor {
        /// Its name.
        name: String,
        /// Number of the blob that comes next.
        next_blob: usize,
        /// The positions in the packages.
        packages: Vec<WrittenFile>,
        /// What quantization did to the matrices that were finished.
        statistics: Vec<TensorStatistics>,
        /// Table files that are complete.
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
    /// The packages are complete.
    Packages {
        /// Their programs.
        packages: Vec<WrittenFile>,
        /// What quantization did to the matrices that were finished.
        statistics: Vec<TensorStatistics>,
    },
    /// A table whose tensor is in no graph is complete.
    Table {
        /// The tensor.
        name: String,
        /// Its bytes.
        bytes: u64,
        /// Its files.
        files: BTreeMap<String, WrittenFile>,
    },
    /// Checksums of tensors that were read whole.
    Checksums(TensorChecksums),
    /// All outputs are complete and synced; what is left is to give them their names.
    Finished {
        /// The file that describes each output, in the order of the header's folders.
        outputs: Vec<WrittenFile>,
    },
}

/// Everything that was finished before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// The blob that comes next, if any tensor was finished.
    pub(crate) next_blob: Option<usize>,
    /// The positions in the packages, or their programs.
    pub(crate) packages: Vec<WrittenFile>,
    /// Whether the packages are complete.
    pub(crate) has_packages: bool,
    pub(crate) statistics: Vec<TensorStatistics>,
    pub(crate) tables: BTreeMap<String, WrittenFile>,
    pub(crate) spools: Vec<SpoolRecord>,
    /// The stock graph's per-layer table.
    pub(crate) stock: Option<WrittenFile>,
    /// Bytes of the checkpoint from which only tables were made.
    pub(crate) table_bytes: u64,
    /// Of the tensors that were read whole.
    pub(crate) checksums: TensorChecksums,
    /// The file that describes each output, if all are complete.
    finished: Option<Vec<WrittenFile>>,
}

impl Done {
    /// Adds an entry; false if it cannot follow those before.
    fn add(&mut self, entry: Entry) -> bool {
        if self.finished.is_some() {
            return false;
        }
        match entry {
            Entry::Tensor { next_blob, packages, statistics, tables, spools, .. } => {
                if self.has_packages || self.next_blob.is_some_and(|next| next_blob < next) {
                    return false;
                }
                self.next_blob = Some(next_blob);
                (self.packages, self.spools) = (packages, spools);
                self.statistics.extend(statistics);
                self.tables.extend(tables);
            }
            Entry::Packages { packages, statistics } => {
                (self.packages, self.has_packages) = (packages, true);
                self.statistics.extend(statistics);
                self.spools.clear();
            }
            Entry::Stock { file, .. } => self.stock = Some(file),
            Entry::Table { bytes, files, .. } => {
                self.table_bytes = self.table_bytes.saturating_add(bytes);
                self.tables.extend(files);
            }
            Entry::Checksums(checksums) => self.checksums.extend(checksums),
            Entry::Finished { outputs } => self.finished = Some(outputs),
        }
        true
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// Nothing if this run cannot be resumed.
    file: Option<File>,
    /// Of all lines so far.
    digest: Sha256,
    /// Where this file goes, and those that it lists.
    disk: Disk,
    /// Sums of what the run reads.
    read: Option<Arc<Checksums>>,
    /// Whether it lists anything.
    has_entries: bool,
    pub(crate) done: Done,
}

impl Journal {
    /// Records nothing.
    pub fn off() -> Self {
        Journal {
            path: PathBuf::new(),
            file: None,
            digest: Sha256::new(),
            disk: Disk::default(),
            read: None,
            has_entries: false,
            done: Done::default(),
        }
    }

    /// Starts a journal in an empty folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(folder: &Path, header: &JournalHeader) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        let io = |source| JournalError::Io { path: path.clone(), source };
        // It gets its name with its first line, so that no journal is ever without one.
        let new = folder.join(NEW);
        let file = OpenOptions::new().append(true).create_new(true).open(&new).map_err(io)?;
        let mut journal = Journal { path: path.clone(), file: Some(file), ..Journal::off() };
        journal.write(header)?;
        fs::rename(&new, &path).map_err(io)?;
        Ok(journal)
    }

    /// The header of the journal in this folder; nothing if there is none.
    ///
    /// # Errors
    /// If the journal cannot be read or is damaged.
    pub fn header(folder: &Path) -> Result<Option<JournalHeader>, JournalError> {
        let Some(lines) = Lines::read(&folder.join(FILE))? else { return Ok(None) };
        Ok(Some(lines.header()?))
    }

    /// Continues the journal in this folder.
    ///
    /// # Errors
    /// If it cannot be read or is damaged, or this run does something else.
    pub fn resume(folder: &Path, header: &JournalHeader) -> Result<Self, JournalError> {
        let path = folder.join(FILE);
        let Some(lines) = Lines::read(&path)? else { return Err(JournalError::Damaged { path }) };
        let then = lines.header()?;
        then.check(header)?;
        let mut done = Done::default();
        for line in lines.values.iter().skip(1) {
            let is_next = serde_json::from_str(line).is_ok_and(|entry| done.add(entry));
            if !is_next {
                return Err(JournalError::Damaged { path });
            }
        }
        if done.finished.as_ref().is_some_and(|outputs| outputs.len() != then.folders.len()) {
            return Err(JournalError::Damaged { path });
        }
        let io = |source| JournalError::Io { path: path.clone(), source };
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        file.set_len(lines.bytes).map_err(io)?;
        let has_entries = lines.values.len() > 1;
        Ok(Journal { file: Some(file), digest: lines.digest, done, path, has_entries, ..Journal::off() })
    }

    /// The same journal, on a test's disk: it and everything that it lists is written there.
    #[must_use]
    pub fn on(self, disk: Disk) -> Self {
        Journal { disk, ..self }
    }

    /// Where the journal's file goes, and those that it lists.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The error for a journal with impossible entries.
    pub(crate) fn damaged(&self) -> JournalError {
        JournalError::Damaged { path: self.path.clone() }
    }

    /// Whether anything is recorded.
    pub fn is_on(&self) -> bool {
        self.file.is_some()
    }

    /// The file that describes each output, in the order of the header's folders, if all of them are complete.
    pub fn finished(&self) -> Option<&[WrittenFile]> {
        self.done.finished.as_deref()
    }

    /// Records that all outputs are complete, and syncs the journal: from now on a run that resumes only publishes.
    ///
    /// # Errors
    /// If it cannot be written or synced.
    pub fn finish(&mut self, outputs: Vec<WrittenFile>) -> Result<(), JournalError> {
        self.write(&Entry::Finished { outputs })?;
        let Some(file) = &self.file else { return Ok(()) };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let sync_name = || File::open(folder).and_then(|folder| folder.sync_all());
        let synced = self.disk.step().and_then(|()| file.sync_all()).and_then(|()| sync_name());
        synced.map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }

    /// Records what is in the files now.
    pub(crate) fn record(&mut self, entry: &Entry) -> Result<(), JournalError> {
        self.record_checksums()?;
        self.has_entries = true;
        self.write(entry)
    }

    /// Whether something was finished that another run could continue from.
    pub fn has_entries(&self) -> bool {
        self.is_on() && self.has_entries
    }

    /// Takes the checksums of tensors from here.
    pub(crate) fn set_checksums(&mut self, read: Arc<Checksums>) {
        self.read = Some(read);
    }

    /// Checksums of the tensors that were read whole, in this run and before.
    pub(crate) fn checksums(&self) -> TensorChecksums {
        let mut all = self.done.checksums.clone();
        all.extend(self.read.as_ref().map(|read| read.finished()).unwrap_or_default());
        all
    }

    fn record_checksums(&mut self) -> Result<(), JournalError> {
        if !self.is_on() {
            return Ok(());
        }
        let mut new = self.checksums();
        new.retain(|tensor, _| !self.done.checksums.contains_key(tensor));
        if new.is_empty() {
            return Ok(());
        }
        self.done.checksums.extend(new.clone());
        self.write(&Entry::Checksums(new))
    }

    fn write(&mut self, value: &impl Serialize) -> Result<(), JournalError> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let written = serde_json::to_string(value).map_err(io::Error::from).and_then(|value| {
            let line = format!("{} {value}\n", add_line(&mut self.digest, &value));
            self.disk.write(line.as_bytes(), |bytes| file.write_all(bytes))
        });
        written.map_err(|source| JournalError::Io { path: self.path.clone(), source })
    }
}

/// The complete lines of a journal, whose digests are right.
struct Lines {
    path: PathBuf,
    /// The JSON values.
    values: Vec<String>,
    /// Bytes of these lines.
    bytes: u64,
    /// Of all of them.
    digest: Sha256,
}

impl Lines {
    /// Nothing if there is no journal.
    fn read(path: &Path) -> Result<Option<Self>, JournalError> {
        let io = |source| JournalError::Io { path: path.to_owned(), source };
        let damaged = || JournalError::Damaged { path: path.to_owned() };
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
            Ok(metadata) if !metadata.is_file() || metadata.len() > MAX_BYTES => return Err(damaged()),
            Ok(_) => {}
        }
        let text = fs::read(path).map_err(io)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let text = std::str::from_utf8(&text[..whole]).map_err(|_| damaged())?;
        let mut lines =
            Lines { path: path.to_owned(), values: Vec::new(), bytes: whole as u64, digest: Sha256::new() };
        for line in text.split_terminator('\n') {
            let (digest, value) = line.split_once(' ').ok_or_else(damaged)?;
            if add_line(&mut lines.digest, value) != digest {
                return Err(damaged());
            }
            lines.values.push(value.to_owned());
        }
        Ok(Some(lines))
    }

    fn header(&self) -> Result<JournalHeader, JournalError> {
        let header = self.values.first().and_then(|value| serde_json::from_str(value).ok());
        header.ok_or_else(|| JournalError::Damaged { path: self.path.clone() })
    }
}

/// Adds a line's value to the digest of those before, and returns the digest that precedes it.
fn add_line(digest: &mut Sha256, value: &str) -> String {
    digest.update(value);
    digest.update(b"\n");
    output::Digest::from(digest.clone()).to_string()
}

impl JournalHeader {
    /// That of a run over a checkpoint.
    ///
    /// # Errors
    /// If the checkpoint has no commit, or its configuration cannot be read.
    pub fn new(
        tool: String,
        source: &dyn Source,
        options: BTreeMap<String, String>,
    ) -> Result<Option<Self>, SourceError> {
        let identity = source.identity();
        let (Some(repository), Some(revision)) = (&identity.repository, &identity.revision) else {
            return Ok(None);
        };
        Ok(Some(JournalHeader {
            tool,
            repository: repository.clone(),
            revision: revision.clone(),
            fingerprint: source.fingerprint()?.to_string(),
            options,
            folders: Vec::new(),
        }))
    }

    /// Checks that `now` does the same.
    fn check(&self, now: &JournalHeader) -> Result<(), JournalError> {
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
            let value =
                |header: &JournalHeader| header.options.get(name).cloned().unwrap_or("none".to_owned());
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
    use std::path::Path;

    use output::WrittenFile;

    use super::{Entry, FILE, Journal, JournalError, JournalHeader};

    fn header() -> JournalHeader {
        JournalHeader {
            tool: "tool 1".to_owned(),
            repository: "google/tiny".to_owned(),
            revision: "a".repeat(40),
            fingerprint: "f".to_owned(),
            options: BTreeMap::from([("--rule".to_owned(), "lattice".to_owned())]),
            folders: vec![".m.partial-1-0".to_owned()],
        }
    }

    fn table(name: &str) -> Entry {
        let file = WrittenFile { digest: [7; 32].into(), bytes: 3 };
        Entry::Table { name: name.to_owned(), bytes: 6, files: BTreeMap::from([(name.to_owned(), file)]) }
    }

    /// A journal with two tables, and its bytes.
    fn written(dir: &Path) -> Vec<u8> {
        let mut journal = Journal::begin(dir, &header()).unwrap();
        journal.record(&table("a")).unwrap();
        journal.record(&table("b")).unwrap();
        fs::read(dir.join(FILE)).unwrap()
    }

    #[test]
    fn a_line_that_was_cut_off_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, path) = (written(dir.path()), dir.path().join(FILE));
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
    fn changed_bytes_and_lost_added_or_moved_lines_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, path) = (written(dir.path()), dir.path().join(FILE));
        let is_damaged = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            matches!(Journal::resume(dir.path(), &header()), Err(JournalError::Damaged { .. }))
        };
        let last_end = whole.len() - 1;
        for at in 0..last_end {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(is_damaged(&bytes), "byte {at}");
        }
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        for order in [&[0, 2][..], &[1, 2], &[0, 2, 1], &[0, 1, 1], &[0, 1, 2, 2], &[0, 0, 1, 2]] {
            let bytes = order.iter().map(|at| lines[*at]).collect::<Vec<_>>().concat();
            assert!(is_damaged(&bytes), "{order:?}");
        }
        assert!(is_damaged(b"no header\n") && is_damaged(b"no line") && is_damaged(b"\n\xFF\n"));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(Journal::header(dir.path()), Err(JournalError::Damaged { .. })), "a folder");
    }

    #[test]
    fn entries_that_cannot_follow_each_other_are_refused() {
        let file = WrittenFile { digest: [7; 32].into(), bytes: u64::MAX };
        let tensor = |next_blob: usize| Entry::Tensor {
            name: "t".to_owned(),
            next_blob,
            packages: Vec::new(),
            statistics: Vec::new(),
            tables: BTreeMap::new(),
            spools: Vec::new(),
        };
        let packages = || Entry::Packages { packages: vec![file], statistics: Vec::new() };
        let finished = |outputs: usize| Entry::Finished { outputs: vec![file; outputs] };
        let many =
            |name: &str| Entry::Table { name: name.to_owned(), bytes: u64::MAX, files: BTreeMap::new() };
        for (entries, is_accepted) in [
            (vec![tensor(3), tensor(3), packages(), many("a"), many("b"), finished(1)], true),
            (vec![tensor(usize::MAX), packages()], true),
            (vec![tensor(3), tensor(2)], false),
            (vec![packages(), tensor(2)], false),
            (vec![finished(1), table("a")], false),
            (vec![finished(1), finished(1)], false),
            (vec![finished(0)], false),
            (vec![finished(2)], false),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = Journal::begin(dir.path(), &header()).unwrap();
            entries.iter().for_each(|entry| journal.record(entry).unwrap());
            let resumed = Journal::resume(dir.path(), &header());
            assert_eq!(resumed.is_ok(), is_accepted, "{entries:?}: {resumed:?}");
        }
    }

    #[test]
    fn a_run_that_does_something_else_does_not_resume() {
        let dir = tempfile::tempdir().unwrap();
        drop(Journal::begin(dir.path(), &header()).unwrap());
        let words = |change: &dyn Fn(&mut JournalHeader)| {
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
