//! From a checkpoint to the content of bundles.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod config_facts;
mod config_lies;
mod config_refusals;
mod quant_gguf;
mod quant_lattice;
mod quant_limits;
mod quant_reference;
mod quantizers;
mod resume;
mod source_checkpoint;
mod source_header;
mod source_local;
mod source_mutations;
mod source_support;
