//! Configurations, headers and sources of checkpoints, valid and invalid.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod config_facts;
mod config_lies;
mod config_refusals;
mod source_checkpoint;
mod source_header;
mod source_local;
mod source_mutations;
mod source_support;
