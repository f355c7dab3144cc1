//! Releases as one zip file that can be read in place: entries are stored, their data starts at multiples of
//! 4096 bytes, so that a reader may map a graph or a table out of the archive, and the bytes depend on the
//! files alone (sorted names, fixed times and permissions).

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use output::{StagedFile, StagingError, available_bytes};
use progress::Progress;
use serde::Serialize;
use text::names::{self, Collision, NameError};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::FileError;
use crate::files::{self, Kind};
use crate::replace::{FileKind, Outputs};

/// Data of every entry starts at a multiple of this many bytes: a page on Linux, a quarter of one on Apple's.
pub const ALIGNMENT: u16 = paths::ALIGNMENT as u16;

/// Why a release could not be packed.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The archive could not be staged or published.
    #[error(transparent)]
    Staging(#[from] StagingError),
    /// There is nothing to pack.
    #[error("{} holds no files: give a folder of outputs or a release", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// Something that an archive of a release must not hold.
    #[error("{} {what}: archives hold regular files and folders only, so put one there or move it away", path.display())]
    Irregular {
        /// What was found.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A name that would be another file on other systems, or leads out of the folder.
    #[error("{0}: an archive is unpacked on any system")]
    Name(#[from] NameError),
    /// Two names that would be the same file on other systems.
    #[error(transparent)]
    Collision(#[from] Collision),
    /// A file changed its size while it was read.
    #[error("{} changed while it was packed: it had {expected} bytes, but {found} were read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Bytes when the folder was listed.
        expected: u64,
        /// Bytes that were read.
        found: u64,
    },
    /// The disk is too small.
    #[error("{} needs {needed} bytes and its disk has {available} free: choose another disk", path.display())]
    NoSpace {
        /// The archive.
        path: PathBuf,
        /// Approximate size of the archive.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },
    /// The work was cancelled.
    #[error("interrupted; nothing was kept")]
    Interrupted,
    /// Writing the archive failed.
    #[error("cannot write the archive entry {entry}: {source}")]
    Zip {
        /// Name of the entry.
        entry: String,
        /// The archive library's answer.
        source: zip::result::ZipError,
    },
}

/// What was packed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ArchiveReport {
    /// Number of files.
    pub files: usize,
    /// Bytes in those files.
    pub content_bytes: u64,
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Files left out: leftovers of file managers and of killed runs.
    pub skipped: Vec<String>,
}

/// Suffixes of the two files of a report. Reports contain times, which differ from run to run, so archives leave them out.
pub const REPORTS: [&str; 2] = [".report.json", ".report.html"];

/// Packs the folder `release` into `output`, which appears whole or not at all, and reports the content's bytes to
/// `progress`.
///
/// # Errors
/// When the folder holds links or devices, the disk is full, or a file changes in the meantime.
pub fn pack(
    release: &Path,
    output: &Path,
    is_forced: bool,
    progress: &dyn Progress,
) -> Result<ArchiveReport, ArchiveError> {
    let plan = ArchivePlan::new(release)?;
    progress.expect(plan.content_bytes());
    let guard = Outputs::new([release], is_forced).file(FileKind::Archive);
    let mut staged = StagedFile::new(output, guard)?;
    let (needed, available) = (plan.archive_bytes(), available_bytes(staged.path())?);
    if needed > available {
        return Err(ArchiveError::NoSpace { path: output.to_path_buf(), needed, available });
    }
    let mut writer = BufWriter::with_capacity(1 << 20, &mut staged);
    let archive_bytes = plan.write(&mut writer, progress)?;
    drop(writer);
    staged.commit()?;
    Ok(plan.report(archive_bytes))
}

/// Whether a file that begins with these bytes is an archive as [`pack`] makes them: its first entry is stored without a time, and
/// aligned.
pub(crate) fn is_begun_by(head: &[u8]) -> bool {
    let Some((header, _)) = head.split_first_chunk::<30>() else { return false };
    let number = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (stored, time, date) = (number(8) == 0, number(10), number(12));
    let content = header.len() + number(26) + number(28);
    header.starts_with(b"PK\x03\x04")
        && stored
        && (time, date)
            == (usize::from(DateTime::DEFAULT.timepart()), usize::from(DateTime::DEFAULT.datepart()))
        && content.is_multiple_of(usize::from(ALIGNMENT))
}

/// Whether a file of an output folder belongs to the report of a conversion, and not to its outputs.
pub fn is_report(path: &str) -> bool {
    !path.contains('/') && REPORTS.iter().any(|suffix| path.ends_with(suffix))
}

/// The entries of an archive, known before a byte is written.
#[derive(Debug)]
pub struct ArchivePlan {
    root: PathBuf,
    /// Name of the folder that the archive unpacks to, with a final `/`.
    prefix: String,
    /// Paths relative to the root and sizes.
    files: Vec<(String, u64)>,
    skipped: Vec<String>,
}

impl ArchivePlan {
    /// Lists the folder `release`.
    ///
    /// # Errors
    /// When it holds nothing, or something that is neither a file nor a folder.
    pub fn new(release: &Path) -> Result<Self, ArchiveError> {
        let root = release.canonicalize().map_err(FileError::on("resolve", release))?;
        let prefix = root.file_name().map_or(String::new(), |name| format!("{}/", name.to_string_lossy()));
        let mut plan = Self { root, prefix, files: Vec::new(), skipped: Vec::new() };
        for entry in files::walk(&plan.root)? {
            let irregular = |what| ArchiveError::Irregular { path: plan.root.join(&entry.path), what };
            match entry.kind {
                _ if !entry.is_utf8 => return Err(irregular("has a name that is not UTF-8")),
                Kind::Link => return Err(irregular("is a symbolic link")),
                Kind::Special => return Err(irregular("is neither a file nor a folder")),
                Kind::Folder => {}
                Kind::File(_) if files::is_leftover(&entry.path) || is_report(&entry.path) => {
                    plan.skipped.push(entry.path);
                }
                Kind::File(size) => plan.files.push((entry.path, size)),
            }
        }
        let names = || plan.files.iter().map(|(path, _)| path.as_str());
        names::path(&plan.prefix[..plan.prefix.len().saturating_sub(1)])?;
        names().try_for_each(names::path)?;
        names::distinct(names())?;
        if plan.files.is_empty() {
            return Err(ArchiveError::Empty { path: release.to_path_buf() });
        }
        Ok(plan)
    }

    /// Bytes in the files.
    pub fn content_bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, (_, size)| sum.saturating_add(*size))
    }

    /// An upper bound of the archive's size.
    fn archive_bytes(&self) -> u64 {
        let overhead: u64 = self
            .files
            .iter()
            .map(|(path, _)| 2 * u64::from(ALIGNMENT) + 4 * (self.prefix.len() + path.len()) as u64)
            .sum();
        self.content_bytes().saturating_add(overhead + 1024)
    }

    fn report(&self, archive_bytes: u64) -> ArchiveReport {
        ArchiveReport {
            files: self.files.len(),
            content_bytes: self.content_bytes(),
            archive_bytes,
            skipped: self.skipped.clone(),
        }
    }

    /// Writes the archive to `sink` and returns its size.
    ///
    /// # Errors
    /// When a file cannot be read or has another size than planned, or the sink fails.
    pub fn write(&self, sink: impl Write + Seek, progress: &dyn Progress) -> Result<u64, ArchiveError> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .large_file(true)
            .last_modified_time(DateTime::DEFAULT)
            .unix_permissions(0o644)
            .with_alignment(ALIGNMENT);
        // An unfinished writer that is dropped finishes the archive and prints errors.
        let mut archive = ManuallyDrop::new(ZipWriter::new(sink));
        let mut buffer = vec![0; 1 << 20];
        for (path, size) in &self.files {
            let entry = format!("{}{path}", self.prefix);
            let failed = |source| ArchiveError::Zip { entry: entry.clone(), source };
            archive.start_file(&entry, options).map_err(failed)?;
            let source = self.root.join(path);
            let mut file = File::open(&source).map_err(FileError::on("open", &source))?;
            let mut found = 0;
            loop {
                let count = file.read(&mut buffer).map_err(FileError::on("read", &source))?;
                let Some(chunk) = buffer.get(..count).filter(|chunk| !chunk.is_empty()) else { break };
                archive.write_all(chunk).map_err(|e| failed(e.into()))?;
                found += count as u64;
                progress.advance(count as u64);
                if progress.cancelled() {
                    return Err(ArchiveError::Interrupted);
                }
            }
            if found != *size {
                return Err(ArchiveError::Changed { path: source, expected: *size, found });
            }
        }
        let finished = |source| ArchiveError::Zip { entry: "central directory".to_owned(), source };
        let mut sink = ManuallyDrop::into_inner(archive).finish().map_err(finished)?;
        let end = sink.flush().and_then(|()| sink.seek(io::SeekFrom::End(0)));
        end.map_err(|e| finished(e.into()))
    }
}
