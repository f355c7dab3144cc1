//! Checkpoint to bundle content: source, configuration, plan, quantization, decoder graph, tables.

pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod ordered;
pub mod quant;
pub mod source;
