//! The beginning of a logits file: what it is of.

use std::io::{self, Read};

use output::Digest;
use packer::replace::LOGITS_MAGIC as MAGIC;
use serde::{Deserialize, Serialize};

use super::super::windows::{WindowShape, Windows};
use super::record::{DISTANCE, FIXED};
use crate::file::CheckpointIdentity;

/// Version of the format, which follows the magic as u32.
pub const VERSION: u32 = 1;

/// Most bytes of the JSON.
const MAX_JSON: u32 = 64 << 10;
/// Most tokens of a text: 64 MB of them.
const MAX_TOKENS: u64 = 1 << 24;
/// Largest vocabulary: 64 times Gemma's.
const MAX_VOCABULARY: u64 = 1 << 24;
/// Bytes before the JSON: magic, version, length of the JSON.
const FIXED_HEAD: u64 = 16;

/// What a run of `eval` is about: the checkpoint and the text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject {
    /// The checkpoint.
    pub checkpoint: CheckpointIdentity,
    /// SHA-256 of its tokenizer.json.
    pub tokenizer: Digest,
    /// Size of its vocabulary.
    pub vocab: usize,
    /// The text.
    pub windows: Windows,
}

/// The JSON of the header, after which the tokens follow as u32.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    checkpoint: CheckpointIdentity,
    tokenizer: Digest,
    vocab: u64,
    tokens: u64,
    tokens_sha256: Digest,
    begin: Option<u32>,
    window: u64,
    stride: u64,
}

impl Subject {
    /// Bytes of a record.
    pub(super) fn record_bytes(&self) -> u64 {
        (FIXED + DISTANCE * self.vocab) as u64
    }

    /// Bytes of all records.
    pub fn bytes(&self) -> u64 {
        self.record_bytes().saturating_mul(self.windows.positions() as u64)
    }

    /// The header's bytes.
    ///
    /// # Errors
    /// If the checkpoint's identity is longer than any.
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let WindowShape { window, stride } = self.windows.shape();
        let json = serde_json::to_vec(&Json {
            checkpoint: self.checkpoint.clone(),
            tokenizer: self.tokenizer,
            vocab: self.vocab as u64,
            tokens: self.windows.tokens().len() as u64,
            tokens_sha256: self.windows.digest(),
            begin: self.windows.begin(),
            window: window as u64,
            stride: stride as u64,
        })?;
        let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_JSON);
        let length = length.ok_or(io::ErrorKind::InvalidInput)?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(json);
        bytes.extend(self.windows.tokens().iter().flat_map(|token| token.to_le_bytes()));
        Ok(bytes)
    }

    /// Reads a header from a file of this many bytes; returns where the records begin, too.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn read(file: &mut dyn Read, file_bytes: u64) -> Result<(Subject, u64), String> {
        let mut fixed = [0; FIXED_HEAD as usize];
        read(file, &mut fixed)?;
        let word = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        if &fixed[..MAGIC.len()] != MAGIC {
            return Err("it does not begin as a logits file".to_owned());
        }
        let (version, length) = (word(8), word(12));
        if version != VERSION {
            return Err(format!(
                "it has version {version} of the format, and this tool reads version {VERSION}"
            ));
        }
        if length > MAX_JSON {
            return Err(format!("its header has {length} bytes, more than any"));
        }
        let mut json = vec![0; length as usize];
        read(file, &mut json)?;
        let json: Json =
            serde_json::from_slice(&json).map_err(|error| format!("its header: {error:.200}"))?;
        if json.tokens > MAX_TOKENS || json.tokens * 4 > file_bytes || json.vocab > MAX_VOCABULARY {
            return Err(format!(
                "its header claims {} tokens and a vocabulary of {}, more than the file has room for",
                json.tokens, json.vocab
            ));
        }
        let mut bytes = vec![0; json.tokens as usize * 4];
        read(file, &mut bytes)?;
        if Digest::of_bytes(&bytes) != json.tokens_sha256 {
            return Err("its tokens do not have the digest in its header".to_owned());
        }
        let tokens: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        if let Some(token) = tokens.iter().chain(&json.begin).find(|token| u64::from(**token) >= json.vocab) {
            return Err(format!("token {token} is outside the vocabulary of {}", json.vocab));
        }
        let size =
            |value: u64| usize::try_from(value).map_err(|_| format!("{value} is larger than any window"));
        let shape = WindowShape { window: size(json.window)?, stride: size(json.stride)? };
        let windows = Windows::new(tokens, json.begin, shape).map_err(|error| error.to_string())?;
        let begin = FIXED_HEAD + u64::from(length) + 4 * json.tokens;
        let subject = Subject {
            checkpoint: json.checkpoint,
            tokenizer: json.tokenizer,
            vocab: json.vocab as usize,
            windows,
        };
        Ok((subject, begin))
    }

    /// Says in which way another subject differs, if it does, with what can be done about it.
    pub fn difference(&self, other: &Subject) -> Option<String> {
        if self.checkpoint.fingerprint != other.checkpoint.fingerprint || self.vocab != other.vocab {
            return Some("of another checkpoint: give that checkpoint, or another file".to_owned());
        }
        if self.tokenizer != other.tokenizer {
            return Some("made with another tokenizer.json: give another file".to_owned());
        }
        let WindowShape { window, stride } = self.windows.shape();
        if self.windows.shape() != other.windows.shape() {
            return Some(format!(
                "of windows of {window} tokens: give --window {window} --stride {stride}, or another file"
            ));
        }
        (self.windows != other.windows)
            .then(|| "of another text, or another --limit: give the same ones, or another file".to_owned())
    }
}

fn read(file: &mut dyn Read, bytes: &mut [u8]) -> Result<(), String> {
    file.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ends within its header".to_owned(),
        _ => error.to_string(),
    })
}
