//! A local file, and its name on the Hub.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::LARGEST_INLINE;
use crate::digest::{Hasher, RemoteDigest};
use crate::error::Error;

/// Bytes from which the Hub guesses what a file is.
const SAMPLE: u64 = 512;

/// A file to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalFile {
    /// Path in the repository, with `/` between components.
    pub path: String,
    /// Path here.
    pub source: PathBuf,
    /// Number of bytes.
    pub size: u64,
    sha256: RemoteDigest,
}

impl LocalFile {
    /// Describes a file. Its SHA-256 is computed unless the caller knows it, as from a manifest that was just checked.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(path: &str, source: &Path, sha256: Option<&str>) -> Result<Self, Error> {
        let size = std::fs::metadata(source).map_err(Error::io("read", source))?.len();
        let sha256 = match sha256.and_then(RemoteDigest::from_etag).filter(RemoteDigest::is_sha256) {
            Some(digest) => digest,
            None => computed(source, size, Hasher::sha256())?,
        };
        Ok(LocalFile { path: path.to_owned(), source: source.to_owned(), size, sha256 })
    }

    /// SHA-256 in 64 digits.
    pub fn sha256(&self) -> &str {
        self.sha256.as_str()
    }

    /// The digest of the same kind as `other`.
    pub(super) fn digest_like(&self, other: &RemoteDigest) -> Result<RemoteDigest, Error> {
        match other.is_sha256() {
            true => Ok(self.sha256.clone()),
            false => computed(&self.source, self.size, other.hasher(self.size)),
        }
    }

    pub(super) fn changed(&self) -> Error {
        Error::LocalChanged { path: self.source.clone() }
    }

    /// Its first bytes in base64.
    pub(super) fn sample(&self) -> Result<String, Error> {
        self.head(SAMPLE).map(|bytes| STANDARD.encode(bytes))
    }

    /// All of a small file in base64.
    pub(super) fn content(&self) -> Result<String, Error> {
        // One byte more, to see whether it grew.
        let bytes = self.head(LARGEST_INLINE + 1)?;
        if bytes.len() as u64 == self.size { Ok(STANDARD.encode(bytes)) } else { Err(self.changed()) }
    }

    fn head(&self, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = open(&self.source)?.take(limit).read_to_end(&mut bytes);
        read.map_err(Error::io("read", &self.source))?;
        Ok(bytes)
    }
}

fn open(source: &Path) -> Result<File, Error> {
    File::open(source).map_err(Error::io("open", source))
}

/// The digest of a file, which must still have this many bytes.
fn computed(source: &Path, size: u64, mut hasher: Hasher) -> Result<RemoteDigest, Error> {
    let length = hasher.update_from(&mut open(source)?).map_err(Error::io("read", source))?;
    if length == size { Ok(hasher.finish()) } else { Err(Error::LocalChanged { path: source.to_owned() }) }
}
