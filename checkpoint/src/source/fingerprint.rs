//! A cheap digest that distinguishes checkpoints without reading their weights.

use std::fmt;

use sha2::{Digest, Sha256};

use super::INDEX_FILE;

/// SHA-256 over what describes a checkpoint: the bytes of `config.json`, of the index if there is one, and of the
/// safetensors header of every file with that file's name.
///
/// It does **not** cover the weights: two trainings of one architecture that were saved in the same way have the same fingerprint.
/// It does cover how the checkpoint is stored, so the sharded and the single form of one model, or its pruned and
/// unpruned form, differ. It is for reports, and is not part of what is built from the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The fingerprint of a checkpoint's parts; files by name.
pub(super) fn fingerprint<'a>(
    config: Option<&[u8]>,
    index: Option<&[u8; 32]>,
    files: impl IntoIterator<Item = (&'a str, &'a [u8; 32])>,
) -> Fingerprint {
    let mut parts = FingerprintParts::new();
    if let Some(config) = config {
        parts.add("config.json", &Sha256::digest(config).into());
    }
    if let Some(digest) = index {
        parts.add(INDEX_FILE, digest);
    }
    for (name, digest) in files {
        parts.add(name, digest);
    }
    parts.finish()
}

/// Collects the parts of a [`Fingerprint`]. Parts are added in a fixed order: `config.json`, index, files by name.
#[derive(Debug, Clone)]
pub struct FingerprintParts(Sha256);

impl FingerprintParts {
    /// No parts yet.
    pub fn new() -> Self {
        Self(Sha256::new_with_prefix(b"coreai-bundle checkpoint headers 1\n"))
    }

    /// Adds a file by its name and the SHA-256 of the part that is covered.
    pub fn add(&mut self, file: &str, digest: &[u8; 32]) {
        // The length in front keeps names and digests from running into each other.
        self.0.update((file.len() as u64).to_le_bytes());
        self.0.update(file.as_bytes());
        self.0.update(digest);
    }

    /// The digest of all parts.
    pub fn finish(self) -> Fingerprint {
        Fingerprint(self.0.finalize().into())
    }
}

impl Default for FingerprintParts {
    fn default() -> Self {
        Self::new()
    }
}
