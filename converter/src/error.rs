//! Why a conversion ends early.

use std::io;
use std::path::PathBuf;

use aimodel::package::PackageError;

use crate::journal::JournalError;
use crate::plan::PlanError;
use crate::quant::QuantizeError;
use checkpoint::CheckpointError;
use checkpoint::config::ConfigError;
use checkpoint::source::SourceError;

/// Why a conversion ends early. Whatever it wrote so far is worthless.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// `config.json` is not that of a model this tool converts.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The checkpoint's tensors are not those of its configuration.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Nothing can be planned.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The package cannot be written.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The journal cannot be written, or the run cannot resume.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A file cannot be written.
    #[error("cannot write {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An element of a tensor cannot be converted.
    #[error("{tensor}: {source}")]
    Element {
        /// The tensor.
        tensor: String,
        /// Which element, and why.
        source: QuantizeError,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}
