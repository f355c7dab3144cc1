//! Where a checkpoint's bytes come from.
//!
//! A [`Source`] lists the tensors of a safetensors checkpoint and returns their bytes by position, so that a model is never held in
//! memory. [`LocalSource`] reads a folder; with the feature `hub`, `HubSource` reads a repository. The parts that do not depend on
//! where the bytes are kept (header and index parsing, merging of shards, the fingerprint) take plain bytes, so that a remote
//! source can use them too.

mod advice;
mod checksums;
mod error;
mod fingerprint;
mod header;
mod index;
mod local;
mod mistake;
mod reading;
#[cfg(feature = "hub")]
mod remote;
mod shards;
mod stamp;
mod weights;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

pub use checksums::{Checksum, Checksums, SummedSource, TensorChecksums};
pub use error::SourceError;
pub use fingerprint::{Fingerprint, FingerprintParts};
pub use header::{Header, MAX_HEADER_BYTES, header_len, parse_header};
pub use index::{INDEX_FILE, MAX_INDEX_BYTES, ShardIndex};
pub use local::{LocalSource, MAX_SIDE_FILE_BYTES};
pub use mistake::Mistake;
pub use reading::Reading;
#[cfg(feature = "hub")]
pub use remote::{HubCheckpoint, HubSource, open_repository};
/// Element types a safetensors header can name.
pub use safetensors::Dtype;
pub use shards::merge_shards;
pub use weights::bytes_of;

/// Name of a checkpoint that is one file.
pub const SINGLE_FILE: &str = "model.safetensors";

/// One tensor of a checkpoint: what it is and where its bytes lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// Full name, as in the checkpoint.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Dimensions, outermost first; row-major.
    pub shape: Vec<usize>,
    /// Name of the file that holds it.
    pub file: Arc<str>,
    /// Bytes of that file, counted from its start, that are the tensor.
    pub range: Range<u64>,
}

impl TensorEntry {
    /// Size in bytes.
    pub fn byte_len(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Position in the file of `len` bytes at `offset` within the tensor.
    ///
    /// # Errors
    /// [`SourceError::OutOfRange`] if they are not all inside the tensor.
    pub fn position(&self, offset: u64, len: usize) -> Result<u64, SourceError> {
        let end = u64::try_from(len).ok().and_then(|len| offset.checked_add(len));
        match end {
            Some(end) if end <= self.byte_len() => Ok(self.range.start + offset),
            _ => {
                Err(SourceError::OutOfRange { tensor: self.name.clone(), offset, len, size: self.byte_len() })
            }
        }
    }
}

/// Who published the checkpoint, as far as that is known. Never a path on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// Hub repository, `owner/name`.
    pub repository: Option<String>,
    /// Commit of that repository, 40 hexadecimal digits.
    pub revision: Option<String>,
    /// Whether the weights were compared with the digests that the Hub states; nothing for a folder, about which the Hub says nothing.
    pub verified: Option<bool>,
}

/// A checkpoint whose tensors can be read by position.
pub trait Source: Send + Sync + fmt::Debug {
    /// Who published it.
    fn identity(&self) -> &Identity;

    /// Every tensor of every file, sorted by name.
    fn tensors(&self) -> &[TensorEntry];

    /// Fills `out` with the tensor's bytes from `offset` on.
    ///
    /// # Errors
    /// If the range leaves the tensor, the tensor is not of this source, or the bytes cannot be read.
    fn read_at(&self, tensor: &TensorEntry, offset: u64, out: &mut [u8]) -> Result<(), SourceError>;

    /// A small file beside the weights (`config.json`, `tokenizer.json`, ..), whole; `None` if there is none.
    ///
    /// # Errors
    /// If it exists but cannot be read, is larger than the source's limit, or `name` is not a plain file name.
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError>;

    /// Names of all files of the checkpoint, sorted.
    fn file_names(&self) -> &[String];

    /// Says that this tensor is read next. A hint that may be ignored.
    fn will_read(&self, _tensor: &TensorEntry) {}

    /// Says that these tensors are read next, whole and in this order, after those of earlier calls. A hint that may be ignored.
    fn will_read_in_order(&self, _tensors: &[&TensorEntry]) {}

    /// Number of small reads that are worth doing at the same time.
    fn readers(&self) -> usize {
        1
    }

    /// Says that these bytes of a tensor, counted from its start, are not read again. A hint that may be ignored.
    fn done_reading(&self, _tensor: &TensorEntry, _bytes: Range<u64>) {}

    /// Checks that what was read so far is still what the source holds; for the end of a run.
    ///
    /// # Errors
    /// [`SourceError::Changed`] names the file that is no longer the one that was opened.
    fn verify_unchanged(&self) -> Result<(), SourceError>;

    /// Digest of `config.json` and of all headers; see [`Fingerprint`] for what it covers.
    ///
    /// # Errors
    /// If `config.json` cannot be read.
    fn fingerprint(&self) -> Result<Fingerprint, SourceError>;

    /// The tensor of that name.
    fn tensor(&self, name: &str) -> Option<&TensorEntry> {
        let tensors = self.tensors();
        let at = tensors.binary_search_by(|entry| entry.name.as_str().cmp(name)).ok()?;
        tensors.get(at)
    }
}

/// Whether `name` is a plain file name: no folder in it, and nothing that leads out of the checkpoint's folder.
fn is_plain_file_name(name: &str) -> bool {
    text::names::component(name).is_ok()
}
