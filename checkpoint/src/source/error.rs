//! What can go wrong while reading a checkpoint.

use std::io;
use std::path::PathBuf;

use super::mistake::Mistake;

/// A checkpoint that cannot be read, and why.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The folder holds neither form of a safetensors checkpoint.
    #[error("{} holds neither model.safetensors nor model.safetensors.index.json: is it a checkpoint folder?", .dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },

    /// Something else than a checkpoint, which is recognized.
    #[error(transparent)]
    Mistake(#[from] Mistake),

    /// Both forms exist and disagree.
    #[error(
        "{} holds model.safetensors and also model.safetensors.index.json, which does not list it: \
         remove the one that is not the checkpoint", .dir.display()
    )]
    Ambiguous {
        /// The folder.
        dir: PathBuf,
    },

    /// The operating system reported an error.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A folder, pipe or device where a file is expected.
    #[error("{} is not a regular file", .path.display())]
    NotAFile {
        /// Where.
        path: PathBuf,
    },

    /// A name that would lead out of the checkpoint's folder.
    #[error("{name:?} is not a plain file name: checkpoint files lie in one folder")]
    FileName {
        /// The name.
        name: String,
    },

    /// A side file larger than any real one.
    #[error("{file} has {len} bytes, more than the limit of {limit} for a file that is read whole")]
    TooLarge {
        /// File name.
        file: String,
        /// Its size in bytes.
        len: u64,
        /// The limit in bytes.
        limit: u64,
    },

    /// The first eight bytes announce a header that the file cannot hold.
    #[error(
        "{file}: the header is said to have {stated} bytes, but at most {possible} are possible: \
         this is not a safetensors file, or it is damaged; download it again"
    )]
    HeaderLength {
        /// File name.
        file: String,
        /// Length stated in the file.
        stated: u64,
        /// Largest length acceptable for this file.
        possible: u64,
    },

    /// The header exists but is wrong.
    #[error("{file}: bad safetensors header: {reason}")]
    Header {
        /// File name.
        file: String,
        /// What is wrong, with the tensor's name where there is one.
        reason: String,
    },

    /// The file is shorter or longer than its header says.
    #[error(
        "{file} has {actual} bytes, but its header describes {expected}: \
         the file is {}; download it again", if .actual < .expected { "truncated" } else { "too long" }
    )]
    WrongLength {
        /// File name.
        file: String,
        /// Bytes described: length field, header and tensors.
        expected: u64,
        /// Bytes present.
        actual: u64,
    },

    /// The index is not an index.
    #[error("{file}: {reason}")]
    Index {
        /// File name of the index.
        file: String,
        /// What is wrong.
        reason: String,
    },

    /// The index names a shard that does not exist.
    #[error("{index} names the shard {shard}, which is missing: download it into the same folder")]
    ShardAbsent {
        /// File name of the index.
        index: String,
        /// The missing shard.
        shard: String,
    },

    /// The index puts a tensor into a shard that does not have it.
    #[error("the index puts {tensor} into {shard}, which does not hold it{}", also(*.others))]
    TensorAbsent {
        /// First such tensor.
        tensor: String,
        /// The shard the index names.
        shard: String,
        /// How many more tensors are absent in this way.
        others: usize,
    },

    /// The index and the shard disagree on where a tensor is.
    #[error("the index puts {tensor} into {indexed}, but it lies in {found}")]
    TensorMisplaced {
        /// The tensor.
        tensor: String,
        /// Shard named by the index.
        indexed: String,
        /// Shard that holds it.
        found: String,
    },

    /// Two shards hold a tensor of the same name.
    #[error("{tensor} lies in two shards, {first} and {second}: the folder mixes two checkpoints")]
    TensorTwice {
        /// The tensor.
        tensor: String,
        /// One shard.
        first: String,
        /// The other.
        second: String,
    },

    /// A shard holds a tensor that the index does not know.
    #[error("{shard} holds {tensor}, which the index does not list: the folder mixes two checkpoints")]
    NotInIndex {
        /// The tensor.
        tensor: String,
        /// The shard.
        shard: String,
    },

    /// A read beyond a tensor's end.
    #[error("{tensor} has {size} bytes: {len} bytes at {offset} are not all in it")]
    OutOfRange {
        /// The tensor.
        tensor: String,
        /// Start of the read within the tensor.
        offset: u64,
        /// Bytes wanted.
        len: usize,
        /// The tensor's size in bytes.
        size: u64,
    },

    /// A tensor of another source.
    #[error("{tensor} in {file} is not a tensor of this checkpoint")]
    ForeignTensor {
        /// The tensor.
        tensor: String,
        /// The file it is said to lie in.
        file: String,
    },

    /// The Hub did not return what was asked for.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Hub(#[from] std::sync::Arc<hub::Error>),

    /// The checkpoint was replaced or written to during the run.
    #[error("{} changed while it was being read: leave the checkpoint alone and run again", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

#[cfg(feature = "hub")]
impl From<hub::Error> for SourceError {
    fn from(error: hub::Error) -> Self {
        SourceError::Hub(std::sync::Arc::new(error))
    }
}

fn also(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" (and {others} more such tensors)") }
}
