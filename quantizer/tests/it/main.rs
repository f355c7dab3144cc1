//! Quantizers beside other programs' and beside themselves.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod gguf;
mod lattice;
mod limits;
mod quantizers;
mod reference;
