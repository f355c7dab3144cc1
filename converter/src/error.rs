//! Errors of planning and of conversions.

use std::io;
use std::path::PathBuf;

use aimodel::package::PackageError;
use quantizer::QuantizeError;

use crate::journal::JournalError;
use crate::pattern::TensorPattern;
use checkpoint::CheckpointError;
use checkpoint::config::ConfigError;
use checkpoint::source::SourceError;

/// Why a conversion cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A tensor does not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The graph cannot be built.
    #[error("the graph cannot be built: {0}; please report this with the checkpoint's config.json")]
    Graph(#[from] aimodel::build::BuildError),
    /// The graph breaks a rule of the format, so it is not written.
    #[error("the graph is not valid: {0}; please report this with the checkpoint's config.json")]
    Invalid(#[from] aimodel::verify::VerifyError),
    /// Something was asked for that only models with per-layer embeddings have.
    #[error("this model has no per-layer embeddings, so there are no tables to make: its graph needs none")]
    NoPerLayer,
    /// A format for tensors that the model does not have.
    #[error(
        "{pattern} matches no projection of this model: `coreai-bundle convert CHECKPOINT --dry-run` lists them"
    )]
    NoTensor {
        /// The pattern.
        pattern: TensorPattern,
    },
    /// A variant that only models with per-layer embeddings have.
    #[error(
        "this model has no per-layer embeddings, so there is no {variant} graph that takes them from tables: leave --variant out \
         for its only graph, which Apple's unpatched engine runs"
    )]
    NoVariant {
        /// Name of the variant.
        variant: &'static str,
    },
    /// Caches that only models without per-layer embeddings have.
    #[error(
        "--cache split is for models without per-layer embeddings (12B, 31B): engines that fill in tables take one pair of caches, \
         and no split graph of the E-series exists to compare with"
    )]
    NoSplitCaches,
    /// An embedding that is looked up in the head's codes, where those do not hold it.
    #[error(
        "--embedding {form} looks tokens up in the codes of the head, but {reason}: give --embedding f16, or --head int4"
    )]
    NoSharedHead {
        /// Name of the form.
        form: &'static str,
        /// Why not.
        reason: &'static str,
    },
    /// A per-layer table whose layers do not divide into blocks.
    #[error(
        "--per-layer int4: the {width} columns of a layer do not divide into blocks of 32: give --per-layer int8"
    )]
    NotInBlocks {
        /// Columns of a layer.
        width: usize,
    },
    /// A blob is a part of the per-layer table, and the table was not made.
    #[error(
        "blob {key} is a part of the per-layer table, which was not made; please report this with the checkpoint's config.json"
    )]
    NoTable {
        /// Key of the blob.
        key: String,
    },
    /// The sizes add up to more than a file can hold.
    #[error("the graph's blobs add up to more than 2^63 bytes; the sizes in config.json are wrong")]
    TooLarge,
}

/// Why a conversion ends early. Its outputs so far are unusable.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// `config.json` does not describe a model that this tool converts.
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
