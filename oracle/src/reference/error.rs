//! Why a checkpoint's reference cannot be computed.

use checkpoint::CheckpointError;
use checkpoint::config::ConfigError;
use checkpoint::source::SourceError;

/// A reference that cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum ReferenceError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Its configuration is not one of this family's.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its tensors are not those that the configuration calls for.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The computation failed.
    #[error("the fp32 reference failed: {0}")]
    Compute(#[from] candle_core::Error),
    /// The caller asked to stop.
    #[error("interrupted")]
    Stopped,
    /// A token outside the vocabulary.
    #[error("token {token} is outside the vocabulary of {vocab}")]
    Token {
        /// The token's id.
        token: u32,
        /// Size of the vocabulary.
        vocab: usize,
    },
}
