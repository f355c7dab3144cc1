//! The package directory: `main.mlirb`, `main.hash`, `metadata.json`.
//!
//! A package is written into a directory that is still being made (see [`output::StagedDirectory`]), so that it appears whole or not at
//! all. Blobs are streamed in file order; the digest is computed on the way (see [`StreamedFile`]).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use output::{Disk, StreamedFile, WrittenFile};
use paths::FileRange;
use serde::{Deserialize, Serialize};
use text::small;

use crate::bytecode::layout::{Layout, Placement};
use crate::bytecode::reader::{Bytecode, ReadError};

/// The program.
pub const PROGRAM: &str = "main.mlirb";
/// SHA-256 of the program, 32 raw bytes.
pub const HASH: &str = "main.hash";
/// Who made the package, and when.
pub const METADATA: &str = "metadata.json";
/// The only version of packages that loaders take.
const ASSET_VERSION: &str = "2.0";

/// Contents of a package's `metadata.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PackageMetadata {
    /// Version of the package format.
    pub asset_version: String,
    /// UTC time as `YYYYMMDDTHHMMSSZ`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub creation_date: Option<String>,
    /// Program and version that wrote the package.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub producer: Option<String>,
    /// Anything else that was there.
    #[serde(flatten)]
    pub other: serde_json::Map<String, serde_json::Value>,
}

impl PackageMetadata {
    /// Metadata of a new package.
    pub fn new(producer: &str, creation_date: &str) -> Self {
        PackageMetadata {
            asset_version: ASSET_VERSION.to_owned(),
            creation_date: Some(creation_date.to_owned()),
            producer: Some(producer.to_owned()),
            other: serde_json::Map::new(),
        }
    }
}

/// Why a package cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The program cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadError,
    },
    /// `metadata.json` is not what loaders accept.
    #[error("{path}: {source}", path = path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A package that was left incomplete is not in the expected state.
    #[error("{path} is not as the interrupted run left it: leave --resume out to start over", path = path.display())]
    NotResumable {
        /// The program.
        path: PathBuf,
    },
    /// More or fewer bytes were given for a blob than the layout holds.
    #[error("blob {index} of the package takes {expected} bytes, but {given} were given")]
    BlobLength {
        /// Position among the blobs.
        index: usize,
        /// Bytes that the layout holds.
        expected: u64,
        /// Bytes given so far.
        given: u64,
    },
}

/// Streams a package: the bytes of its blobs, in the order of the layout, and nothing else.
pub struct PackageWriter<'l> {
    disk: Disk,
    directory: PathBuf,
    layout: &'l Layout,
    program: StreamedFile,
    /// The blob that bytes go to, and how many of its bytes are written.
    current: usize,
    filled: u64,
}

impl<'l> PackageWriter<'l> {
    /// Makes the directory, which must not exist, and writes everything before the blobs.
    pub fn create(directory: &Path, layout: &'l Layout) -> Result<Self, PackageError> {
        Self::create_on(&Disk::default(), directory, layout)
    }

    /// As [`PackageWriter::create`], on this disk.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn create_on(disk: &Disk, directory: &Path, layout: &'l Layout) -> Result<Self, PackageError> {
        fs::create_dir(directory)
            .map_err(|source| PackageError::Io { path: directory.to_owned(), source })?;
        let path = directory.join(PROGRAM);
        let program =
            StreamedFile::create_on(disk, &path).map_err(|source| PackageError::Io { path, source })?;
        let (disk, directory) = (disk.clone(), directory.to_owned());
        let mut writer = PackageWriter { disk, directory, layout, program, current: 0, filled: 0 };
        writer.put(&layout.prefix)?;
        Ok(writer)
    }

    /// Continues a package that was left incomplete, at the first byte of blob number `blob`, after the bytes that it held then.
    ///
    /// # Errors
    /// [`PackageError::NotResumable`] if it does not begin with those bytes or they do not end there; [`PackageError::Io`] if
    /// the system refuses.
    pub fn resume_on(
        disk: &Disk,
        directory: &Path,
        layout: &'l Layout,
        blob: usize,
        front: &WrittenFile,
    ) -> Result<Self, PackageError> {
        let path = directory.join(PROGRAM);
        let end = match blob.checked_sub(1).map(|last| layout.placements.get(last)) {
            None => Some(layout.prefix.len() as u64),
            Some(last) => last.map(|last| last.offset + last.length),
        };
        if end != Some(front.bytes) {
            return Err(PackageError::NotResumable { path });
        }
        let begins_alike = begins_with(&path, &layout.prefix);
        if !begins_alike.map_err(|source| PackageError::Io { path: path.clone(), source })? {
            return Err(PackageError::NotResumable { path });
        }
        let program = StreamedFile::resume_on(disk, &path, front).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => PackageError::NotResumable { path },
            _ => PackageError::Io { path, source },
        })?;
        let (disk, directory) = (disk.clone(), directory.to_owned());
        Ok(PackageWriter { disk, directory, layout, program, current: blob, filled: 0 })
    }

    /// Marks the place after what was written so far; see [`StreamedFile::mark`].
    ///
    /// # Errors
    /// If earlier bytes cannot be written.
    pub fn mark(&mut self) -> Result<(), PackageError> {
        let path = || self.directory.join(PROGRAM);
        self.program.mark().map_err(|source| PackageError::Io { path: path(), source })
    }

    /// The next mark that the file has reached; see [`StreamedFile::reached`].
    pub fn reached(&self) -> Option<WrittenFile> {
        self.program.reached()
    }

    /// The blob that the next bytes belong to; `None` when all are complete.
    pub fn next_blob(&self) -> Option<&'l Placement> {
        self.layout.placements.get(self.current)
    }

    /// Appends bytes to the current blob, which may continue after them. A blob's bytes may come in any number of pieces, but
    /// a piece belongs to one blob.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), PackageError> {
        let Some(blob) = self.next_blob() else {
            return Err(self.wrong_length(0, bytes.len() as u64));
        };
        let filled = self.filled + bytes.len() as u64;
        if filled > blob.length {
            return Err(self.wrong_length(blob.length, filled));
        }
        if self.filled == 0 {
            self.put(&blob.head)?;
        }
        self.put(bytes)?;
        self.filled = filled;
        if filled == blob.length {
            (self.current, self.filled) = (self.current + 1, 0);
        }
        Ok(())
    }

    fn wrong_length(&self, expected: u64, given: u64) -> PackageError {
        PackageError::BlobLength { index: self.current, expected, given }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), PackageError> {
        let path = || self.directory.join(PROGRAM);
        self.program.write(bytes).map_err(|source| PackageError::Io { path: path(), source })
    }

    /// Writes everything after the blobs, the hash and the metadata. All blobs must be complete. Returns size and digest of the program.
    pub fn finish(mut self, metadata: &PackageMetadata) -> Result<WrittenFile, PackageError> {
        if let Some(blob) = self.next_blob() {
            return Err(self.wrong_length(blob.length, self.filled));
        }
        self.put(&self.layout.suffix)?;
        let path = self.directory.join(PROGRAM);
        let program = self.program.finish().map_err(|source| PackageError::Io { path, source })?;
        write_sidecars(&self.disk, &self.directory, &program, metadata)?;
        Ok(program)
    }
}

/// Writes what lies beside a program: its hash and the metadata.
///
/// # Errors
/// If the system refuses.
pub fn write_sidecars(
    disk: &Disk,
    directory: &Path,
    program: &WrittenFile,
    metadata: &PackageMetadata,
) -> Result<(), PackageError> {
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        let written = disk.write(bytes, |bytes| fs::write(&path, bytes));
        written.map_err(|source| PackageError::Io { path, source })
    };
    write(HASH, program.digest.as_bytes())?;
    let text = serde_json::to_string_pretty(metadata)
        .map_err(|source| PackageError::Metadata { path: directory.join(METADATA), source })?;
    write(METADATA, text.as_bytes())
}

fn begins_with(path: &Path, front: &[u8]) -> io::Result<bool> {
    let mut begin = Vec::with_capacity(front.len());
    File::open(path)?.take(front.len() as u64).read_to_end(&mut begin)?;
    Ok(begin == front)
}

/// A package on disk: its program, read without the blobs, and its metadata. [`crate::view`] reads the blobs.
#[derive(Debug)]
pub struct Package {
    /// The directory.
    pub directory: PathBuf,
    /// The program.
    pub bytecode: Bytecode,
    /// Contents of `metadata.json`; loaders do without the file.
    pub metadata: Option<PackageMetadata>,
    /// The program, for its blobs.
    pub(crate) file: FileRange,
}

impl Package {
    /// Opens a package directory, which may lie in an archive.
    pub fn open(directory: &Path) -> Result<Package, PackageError> {
        let path = directory.join(PROGRAM);
        let program = paths::open(&path).map_err(ReadError::from);
        let program = program.and_then(|file| Ok((Bytecode::read(&file)?, file)));
        let (bytecode, file) = program.map_err(|source| PackageError::Read { path, source })?;
        let path = directory.join(METADATA);
        let metadata = match paths::read(&path, small::JSON) {
            Ok(text) => Some(
                serde_json::from_slice(&text).map_err(|source| PackageError::Metadata { path, source })?,
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(PackageError::Io { path, source }),
        };
        Ok(Package { directory: directory.to_owned(), bytecode, metadata, file })
    }

    /// Path of the program.
    pub fn program(&self) -> PathBuf {
        self.directory.join(PROGRAM)
    }
}
