//! The digests that the Hub names files by.

use std::io::{self, Read};

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// The digest that the Hub states for a file: SHA-256 of a large one in 64 digits, or Git's name of a small one in 40, which is
/// SHA-1 over its kind, its length and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteDigest(String);

impl RemoteDigest {
    /// Reads an `ETag` without its quotes; nothing if it is neither.
    pub fn from_etag(etag: &str) -> Option<Self> {
        let is_digest = matches!(etag.len(), 40 | 64) && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_digest.then(|| RemoteDigest(etag.to_ascii_lowercase()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is that of a large file.
    pub(crate) fn is_sha256(&self) -> bool {
        self.0.len() == 64
    }

    /// Starts to compute a digest of the same kind over `length` bytes.
    pub fn hasher(&self, length: u64) -> Hasher {
        match self.is_sha256() {
            true => Hasher::sha256(),
            false => Hasher::Git(Sha1::new_with_prefix(format!("blob {length}\0"))),
        }
    }
}

/// A digest that is being computed.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// Git's.
    Git(Sha1),
}

impl Hasher {
    pub(crate) fn sha256() -> Self {
        Hasher::Sha256(Sha256::new())
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(sha) => sha.update(bytes),
            Hasher::Git(sha) => sha.update(bytes),
        }
    }

    /// Adds all bytes of a reader; returns their number.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn update_from(&mut self, reader: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 20];
        let mut total = 0;
        loop {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                return Ok(total);
            }
            self.update(&buffer[..count]);
            total += count as u64;
        }
    }

    /// The digest.
    pub fn finish(self) -> RemoteDigest {
        RemoteDigest(match self {
            Hasher::Sha256(sha) => hex::encode(sha.finalize()),
            Hasher::Git(sha) => hex::encode(sha.finalize()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::RemoteDigest;

    #[test]
    fn digests_are_those_of_git_and_of_large_files() {
        // `printf hello | git hash-object --stdin` and `printf hello | sha256sum`.
        for digits in [
            "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0",
            "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        ] {
            let digest = RemoteDigest::from_etag(digits).unwrap();
            let mut hasher = digest.hasher(5);
            assert_eq!(hasher.update_from(&mut b"hello".as_slice()).unwrap(), 5);
            assert_eq!(hasher.finish(), digest);
        }
        assert_eq!(RemoteDigest::from_etag("W/abc"), None);
    }
}
