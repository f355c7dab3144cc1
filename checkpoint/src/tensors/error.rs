//! Why a checkpoint does not fit its configuration.

use text::bounds::{extents, list};

use crate::source::Dtype;

/// A checkpoint whose tensors are not those that its configuration calls for.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Tensors are absent.
    #[error("the checkpoint lacks {} that config.json calls for: {}", count(names), list(names))]
    Missing {
        /// All of them, in the model's order.
        names: Vec<String>,
    },

    /// The decoder has tensors that this converter does not know.
    #[error(
        "the checkpoint has {} in the text decoder that this Gemma 4 model does not have: {}; \
         merge adapters and remove quantization first",
        count(names),
        list(names)
    )]
    Unknown {
        /// All of them, sorted.
        names: Vec<String>,
    },

    /// Layers that should have no value projection have one.
    #[error(
        "config.json says attention_k_eq_v, so full layers take their values from k_proj, but the checkpoint has {} that would \
         not be used: {}; give the config.json of this checkpoint",
        count(names),
        list(names)
    )]
    UnusedValues {
        /// All of them, in layer order.
        names: Vec<String>,
    },

    /// A tensor is not BF16.
    #[error("{name} in {file} is {found}, expected BF16: only plain bf16 checkpoints are converted")]
    Dtype {
        /// The tensor.
        name: String,
        /// The file that holds it.
        file: String,
        /// Its type.
        found: Dtype,
    },

    /// A tensor's shape differs from that of the configuration.
    #[error(
        "{name} in {file} has the shape [{}], expected [{}] from config.json",
        extents(found, ", "),
        extents(expected, ", ")
    )]
    Shape {
        /// The tensor.
        name: String,
        /// The file that holds it.
        file: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from the configuration.
        expected: Vec<usize>,
    },

    /// A matrix cannot be cut into blocks.
    #[error(
        "{name} has the shape {shape:?}: its last axis is not a multiple of {}, so it cannot be quantized in blocks; \
         keep it in f16",
        super::BLOCK
    )]
    NotInBlocks {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
    },

    /// A role that this model has no tensor for was asked for.
    #[error("this model has no tensor {name}")]
    NoTensor {
        /// The name without prefix.
        name: String,
    },
}

fn count(names: &[String]) -> String {
    if names.len() == 1 { "a tensor".to_owned() } else { format!("{} tensors", names.len()) }
}
