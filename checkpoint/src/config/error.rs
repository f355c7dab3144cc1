//! Why a configuration is refused.

use crate::source::SourceError;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The checkpoint has no configuration.
    #[error("the checkpoint has no config.json: it is needed beside the weights")]
    Absent,

    /// The file is larger than any real one.
    #[error("config.json has {len} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Its size in bytes.
        len: usize,
        /// The limit in bytes.
        limit: usize,
    },

    /// The file is not JSON.
    #[error("config.json is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),

    /// Another family of models.
    #[error(
        "the checkpoint is of another model family: config.json says {found}, and only the text decoders of Gemma 4 (E2B, E4B, 12B, \
         31B; model_type {supported}) are converted"
    )]
    Family {
        /// `model_type` and the first of `architectures`.
        found: String,
        /// The types that are accepted.
        supported: String,
    },

    /// Weights that another quantizer made.
    #[error(
        "config.json: {field} says that the weights were quantized with {by}, whose codes are not the ones that were trained: give \
         the checkpoint in plain bf16, as in Google's *-unquantized releases"
    )]
    Quantized {
        /// The field, with the object it lies in.
        field: String,
        /// The quantizer.
        by: String,
    },

    /// One field cannot be accepted.
    #[error("config.json: {field} is {found}, expected {expected}")]
    Field {
        /// The field, with the object it lies in.
        field: String,
        /// What it says, or `missing`.
        found: String,
        /// What would be accepted.
        expected: String,
    },

    /// The file cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
}
