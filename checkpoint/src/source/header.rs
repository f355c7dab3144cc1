//! The header of one safetensors file: eight bytes of length, then JSON.

use std::fmt;
use std::sync::Arc;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{self, IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256};

use super::{SourceError, TensorEntry};

/// Longest header that is read, in bytes; the limit of the safetensors library.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the length field in front of the header.
const LENGTH_FIELD: u64 = 8;

/// What a header says.
#[derive(Debug, Clone)]
pub struct Header {
    /// Name of the file it belongs to.
    pub file: Arc<str>,
    /// Tensors in the order of their bytes.
    pub tensors: Vec<TensorEntry>,
    /// SHA-256 of the header's JSON, padding included.
    pub digest: [u8; 32],
}

/// Length in bytes of the header's JSON, from the file's first eight bytes; call it before any allocation.
///
/// # Errors
/// [`SourceError::HeaderLength`] if a file of `file_len` bytes cannot hold it, or it is beyond [`MAX_HEADER_BYTES`].
pub fn header_len(file: &str, length_field: [u8; 8], file_len: u64) -> Result<usize, SourceError> {
    let stated = u64::from_le_bytes(length_field);
    let possible = file_len.saturating_sub(LENGTH_FIELD).min(MAX_HEADER_BYTES);
    match usize::try_from(stated) {
        Ok(len) if stated <= possible => Ok(len),
        _ => Err(SourceError::HeaderLength { file: file.to_owned(), stated, possible }),
    }
}

/// Reads the header's JSON and checks it against the file: every tensor's bytes agree with its shape and type,
/// tensors neither overlap nor leave holes, and they end where the file ends.
///
/// # Errors
/// [`SourceError::Header`] for a header that contradicts itself, [`SourceError::WrongLength`] for a file that is
/// truncated or has bytes after the last tensor.
pub fn parse_header(file: &Arc<str>, json: &[u8], file_len: u64) -> Result<Header, SourceError> {
    let bad = |reason: String| SourceError::Header { file: file.to_string(), reason };
    let mut listed = serde_json::from_slice::<Listing>(json).map_err(|error| bad(error.to_string()))?.0;
    for (name, info) in &listed {
        check_size(info).map_err(|reason| bad(format!("tensor {name}: {reason}")))?;
    }
    listed.sort_by(|(a, left), (b, right)| left.data_offsets.cmp(&right.data_offsets).then_with(|| a.cmp(b)));
    let metadata = Metadata::new(None, listed.clone()).map_err(|error| bad(error.to_string()))?;

    let data_start = LENGTH_FIELD + json.len() as u64;
    let end_of = |offset: usize| u64::try_from(offset).ok().and_then(|offset| data_start.checked_add(offset));
    let too_far = || bad("tensors end beyond any file".to_owned());
    let expected = end_of(metadata.data_len()).ok_or_else(too_far)?;
    if expected != file_len {
        return Err(SourceError::WrongLength { file: file.to_string(), expected, actual: file_len });
    }
    let mut tensors = Vec::with_capacity(listed.len());
    for (name, info) in listed {
        let (start, end) = info.data_offsets;
        let range = end_of(start).ok_or_else(too_far)?..end_of(end).ok_or_else(too_far)?;
        tensors.push(TensorEntry {
            name,
            dtype: info.dtype,
            shape: info.shape,
            file: Arc::clone(file),
            range,
        });
    }
    Ok(Header { file: Arc::clone(file), tensors, digest: Sha256::digest(json).into() })
}

/// The library checks this as well, but does not say which tensor it was.
fn check_size(info: &TensorInfo) -> Result<(), String> {
    let (start, end) = info.data_offsets;
    let held = end.checked_sub(start).ok_or_else(|| format!("ends at {end}, before its start {start}"))?;
    let bits = info.shape.iter().try_fold(info.dtype.bitsize(), |bits, &axis| bits.checked_mul(axis));
    match bits {
        Some(bits) if bits % 8 == 0 && bits / 8 == held => Ok(()),
        Some(bits) => {
            Err(format!("{} of shape {:?} needs {} bits, but has {held} bytes", info.dtype, info.shape, bits))
        }
        None => Err(format!("{} of shape {:?} is larger than any file", info.dtype, info.shape)),
    }
}

/// The header's entries in file order. The library keeps the last of two entries of one name; here the second is
/// an error.
struct Listing(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Listing {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListingVisitor)
    }
}

struct ListingVisitor;

impl<'de> Visitor<'de> for ListingVisitor {
    type Value = Listing;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Listing, A::Error> {
        let mut tensors = Vec::new();
        let mut seen = std::collections::HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !seen.insert(name.clone()) {
                return Err(de::Error::custom(format!("{name} is listed twice")));
            }
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let info = map
                .next_value::<TensorInfo>()
                .map_err(|error| de::Error::custom(format!("tensor {name}: {error}")))?;
            tensors.push((name, info));
        }
        Ok(Listing(tensors))
    }
}
