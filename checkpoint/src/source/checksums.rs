//! Checksums of the tensors that a run reads, made on the way: nothing is read for them.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::{Fingerprint, Identity, Source, SourceError, TensorEntry};

/// CRC-32 of a tensor's bytes in the checkpoint, as eight hexadecimal digits. It tells trainings apart that have the same shapes; it
/// does not protect from somebody who wants two to look alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Checksum(u32);

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for Checksum {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits =
            Some(text).filter(|text| text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let value = digits.and_then(|text| u32::from_str_radix(text, 16).ok());
        value.map(Checksum).ok_or_else(|| "a checksum has eight hexadecimal digits".to_owned())
    }
}

impl TryFrom<String> for Checksum {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Checksum> for String {
    fn from(checksum: Checksum) -> Self {
        checksum.to_string()
    }
}

/// Checksums by the tensors' names.
pub type TensorChecksums = BTreeMap<String, Checksum>;

/// A part of a tensor that was read.
#[derive(Debug)]
struct Piece {
    bytes: u64,
    sum: Hasher,
}

/// What was read of one tensor.
#[derive(Debug, Default)]
struct Pieces {
    /// Length of the tensor.
    bytes: u64,
    /// By their places.
    read: BTreeMap<u64, Piece>,
    /// Bytes of all of them.
    sum: u64,
}

impl Pieces {
    /// The checksum, if the pieces are the whole tensor, without gaps.
    fn whole(&self) -> Option<Checksum> {
        let (mut sum, mut end) = (Hasher::new(), 0);
        for (start, piece) in &self.read {
            if *start != end {
                return None;
            }
            sum.combine(&piece.sum);
            end += piece.bytes;
        }
        (end == self.bytes).then(|| Checksum(sum.finalize()))
    }
}

/// Sums of what is being read, by any thread and in any order.
#[derive(Debug, Default)]
pub struct Checksums {
    unfinished: Mutex<BTreeMap<String, Pieces>>,
    finished: Mutex<TensorChecksums>,
}

impl Checksums {
    /// Those of all tensors that were read whole.
    pub fn finished(&self) -> TensorChecksums {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, tensor: &TensorEntry, start: u64, bytes: &[u8]) {
        let mut sum = Hasher::new();
        sum.update(bytes);
        let mut unfinished = self.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let pieces = unfinished.entry(tensor.name.clone()).or_default();
        pieces.bytes = tensor.byte_len();
        let piece = Piece { bytes: bytes.len() as u64, sum };
        pieces.sum += piece.bytes;
        if let Some(earlier) = pieces.read.insert(start, piece) {
            pieces.sum -= earlier.bytes;
        }
        // Combining many pieces takes longer than reading one.
        let is_last = pieces.sum >= pieces.bytes;
        if let Some(checksum) = is_last.then(|| pieces.whole()).flatten() {
            unfinished.remove(&tensor.name);
            self.finished
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(tensor.name.clone(), checksum);
        }
    }
}

/// A source whose reads are summed.
#[derive(Debug)]
pub struct SummedSource<'s> {
    source: &'s dyn Source,
    /// What was read so far.
    pub checksums: Arc<Checksums>,
}

impl<'s> SummedSource<'s> {
    /// Reads from `source`.
    pub fn new(source: &'s dyn Source) -> Self {
        SummedSource { source, checksums: Arc::default() }
    }
}

impl Source for SummedSource<'_> {
    fn identity(&self) -> &Identity {
        self.source.identity()
    }

    fn tensors(&self) -> &[TensorEntry] {
        self.source.tensors()
    }

    fn read_at(&self, tensor: &TensorEntry, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        self.source.read_at(tensor, offset, out)?;
        self.checksums.add(tensor, offset, out);
        Ok(())
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.source.read_file(name)
    }

    fn file_names(&self) -> &[String] {
        self.source.file_names()
    }

    fn will_read(&self, tensor: &TensorEntry) {
        self.source.will_read(tensor);
    }

    fn will_read_in_order(&self, tensors: &[&TensorEntry]) {
        self.source.will_read_in_order(tensors);
    }

    fn readers(&self) -> usize {
        self.source.readers()
    }

    fn done_reading(&self, tensor: &TensorEntry, bytes: Range<u64>) {
        self.source.done_reading(tensor, bytes);
    }

    fn verify_unchanged(&self) -> Result<(), SourceError> {
        self.source.verify_unchanged()
    }

    fn fingerprint(&self) -> Result<Fingerprint, SourceError> {
        self.source.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_in_any_order_make_the_sum_of_the_whole() {
        let content: Vec<u8> = (0..10_000_u32).map(|at| ((at * 31) >> 3) as u8).collect();
        let tensor = TensorEntry {
            name: "t".to_owned(),
            dtype: safetensors::Dtype::BF16,
            shape: vec![5000],
            file: Arc::from("f"),
            range: 64..10_064,
        };
        let expected = Checksum(crc32fast::hash(&content));
        for size in [10_000, 4096, 3, 1] {
            let sums = Checksums::default();
            let mut starts: Vec<usize> = (0..content.len()).step_by(size).collect();
            let half = starts.len() / 2;
            starts.rotate_left(half);
            for start in starts {
                assert_eq!(sums.finished().len(), 0);
                sums.add(&tensor, start as u64, &content[start..content.len().min(start + size)]);
            }
            assert_eq!(sums.finished()["t"], expected, "{size}");
        }
        assert_eq!(expected.to_string().parse::<Checksum>().unwrap(), expected);
        assert!("12".parse::<Checksum>().is_err() && "+1234567".parse::<Checksum>().is_err());
    }
}
