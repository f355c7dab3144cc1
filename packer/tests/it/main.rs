//! Bundles, releases and archives: made, checked and refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod archive;
mod bundle;
mod check;
mod tokenizer;
