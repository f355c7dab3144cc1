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
