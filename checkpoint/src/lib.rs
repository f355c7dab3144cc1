//! Reads checkpoints: where the bytes of tensors are ([`source`]), the facts of `config.json` ([`config`]), and what each tensor is
//! in the decoder ([`Role`], [`Checkpoint`]).
//!
//! Nothing here knows what happens to the weights.

pub mod config;
pub mod source;

mod tensors;

pub use tensors::{BLOCK, Checkpoint, CheckpointError, LayerRole, Role};
