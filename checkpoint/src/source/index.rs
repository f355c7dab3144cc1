//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{SourceError, is_plain_file_name};

/// Name of the index of a sharded checkpoint.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Largest index that is read, in bytes.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

/// A checked index.
#[derive(Debug, Clone)]
pub struct ShardIndex {
    /// Shard of each tensor.
    weight_map: BTreeMap<String, String>,
    /// SHA-256 of the file.
    digest: [u8; 32],
}

#[derive(Deserialize)]
struct IndexFile {
    weight_map: BTreeMap<String, String>,
}

impl ShardIndex {
    /// Reads the index.
    ///
    /// # Errors
    /// [`SourceError::Index`] if it is not an object with a `weight_map` of strings or lists nothing,
    /// [`SourceError::FileName`] if a shard lies outside the checkpoint's folder.
    pub fn parse(json: &[u8]) -> Result<Self, SourceError> {
        let bad = |reason: String| SourceError::Index { file: INDEX_FILE.to_owned(), reason };
        let IndexFile { weight_map } =
            serde_json::from_slice(json).map_err(|error| bad(format!("not an index of shards: {error}")))?;
        if weight_map.is_empty() {
            return Err(bad("weight_map lists no tensor".to_owned()));
        }
        if let Some(name) = weight_map.values().find(|name| !is_plain_file_name(name)) {
            return Err(SourceError::FileName { name: name.clone() });
        }
        Ok(Self { weight_map, digest: Sha256::digest(json).into() })
    }

    /// Names of the shards, sorted, each once.
    pub fn shards(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }

    /// Shard that holds the tensor.
    pub fn shard_of(&self, tensor: &str) -> Option<&str> {
        self.weight_map.get(tensor).map(String::as_str)
    }

    /// Every tensor with its shard, sorted by tensor.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.weight_map.iter().map(|(tensor, shard)| (tensor.as_str(), shard.as_str()))
    }

    /// SHA-256 of the index file.
    pub fn digest(&self) -> [u8; 32] {
        self.digest
    }
}
