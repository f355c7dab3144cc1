//! A file, or a range of one: what lies in an archive.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

/// Bytes of an open file.
#[derive(Clone, Debug)]
pub struct FileRange {
    file: Arc<File>,
    start: u64,
    length: u64,
}

impl FileRange {
    /// A whole file.
    pub(crate) fn whole(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), start: 0, length })
    }

    /// A range that was checked to lie in the file.
    pub(crate) fn new(file: &Arc<File>, start: u64, length: u64) -> Self {
        Self { file: Arc::clone(file), start, length }
    }

    /// Number of bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether these are the same bytes of the same file.
    ///
    /// # Errors
    /// If the system does not say which files they are.
    pub fn is_same(&self, other: &Self) -> io::Result<bool> {
        let (ours, theirs) = (self.file.metadata()?, other.file.metadata()?);
        Ok((ours.dev(), ours.ino(), self.start) == (theirs.dev(), theirs.ino(), other.start))
    }

    /// Fills `out` with the bytes from `offset` on, counted from the first.
    ///
    /// # Errors
    /// If they are not all there, or cannot be read.
    pub fn read_exact_at(&self, out: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= self.length);
        if end.is_none() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(out, self.start + offset)
    }

    /// Maps the bytes to be read.
    ///
    /// # Errors
    /// If the system refuses, or memory cannot map as many.
    pub fn map(&self) -> io::Result<Mmap> {
        let length = usize::try_from(self.length).map_err(|_| ErrorKind::FileTooLarge)?;
        // SAFETY: the map is only read; packages, tables and archives are replaced by rename, never rewritten in place.
        unsafe { MmapOptions::new().offset(self.start).len(length).map(&*self.file) }
    }

    /// All bytes, if they are at most `limit`.
    pub(crate) fn read(&self, limit: u64) -> io::Result<Vec<u8>> {
        if self.length > limit {
            let what = format!("it has {} bytes, and at most {limit} are read", self.length);
            return Err(io::Error::new(ErrorKind::FileTooLarge, what));
        }
        let mut bytes = Vec::new();
        self.reader().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads the bytes from the first to the last.
    pub fn reader(&self) -> Reader {
        Reader { range: self.clone(), at: 0 }
    }
}

/// See [`FileRange::reader`].
#[derive(Debug)]
pub struct Reader {
    range: FileRange,
    at: u64,
}

impl Read for Reader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.range.length.saturating_sub(self.at);
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(out.len());
        let count = self.range.file.read_at(&mut out[..size], self.range.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
