//! A local file, and its name on the Hub.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::LARGEST_INLINE;
use crate::digest::RemoteDigest;
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
    /// SHA-256 in 64 digits.
    sha256: String,
}

impl LocalFile {
    /// Describes a file. Its SHA-256 is computed unless the caller knows it, as from a manifest that was just checked.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn new(path: &str, source: &Path, sha256: Option<&str>) -> Result<Self, Error> {
        let size = std::fs::metadata(source).map_err(Error::io("read", source))?.len();
        let mut file =
            LocalFile { path: path.to_owned(), source: source.to_owned(), size, sha256: String::new() };
        file.sha256 = match sha256.and_then(RemoteDigest::from_etag) {
            Some(RemoteDigest::Sha256(digits)) => digits,
            _ => file.computed(&RemoteDigest::Sha256(String::new()))?.as_str().to_owned(),
        };
        Ok(file)
    }

    /// SHA-256 in 64 digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The digest of the same kind as `other`.
    pub(super) fn digest_like(&self, other: &RemoteDigest) -> Result<RemoteDigest, Error> {
        match other {
            RemoteDigest::Sha256(_) => Ok(RemoteDigest::Sha256(self.sha256.clone())),
            RemoteDigest::Git(_) => self.computed(other),
        }
    }

    fn computed(&self, kind: &RemoteDigest) -> Result<RemoteDigest, Error> {
        let mut hasher = kind.hasher(self.size);
        let length = hasher.update_from(&mut self.open()?).map_err(Error::io("read", &self.source))?;
        if length == self.size { Ok(hasher.finish()) } else { Err(self.changed()) }
    }

    pub(super) fn open(&self) -> Result<File, Error> {
        File::open(&self.source).map_err(Error::io("open", &self.source))
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
        let read = self.open()?.take(limit).read_to_end(&mut bytes);
        read.map_err(Error::io("read", &self.source))?;
        Ok(bytes)
    }
}
