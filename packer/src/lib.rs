//! Bundle directories: metadata, tokenizer, manifest, checks, archive.
//!
//! A bundle is what a loader on the device opens: a folder with `metadata.json`, the compiled or portable graph
//! and the tokenizer. This crate puts such folders together from finished parts ([`bundle`]), says what is
//! wrong with any of them ([`check`](mod@check)), makes release trees ([`release`]), packs them into archives ([`archive`]) and decides what
//! outputs may replace ([`replace`]). It knows nothing about checkpoints or quantization.

pub mod archive;
pub mod bundle;
pub mod check;
pub mod contents;
mod files;
mod front_matter;
mod json_text;
pub mod manifest;
pub mod metadata;
mod normalizer;
pub mod release;
pub mod replace;
pub mod template;
pub mod tokenizer;
pub mod verdict;
mod vocabulary;

pub use files::{FileError, measure};

/// Name and version of this program, as what it writes names it.
pub const TOOL: &str = concat!("coreai-bundle ", env!("CARGO_PKG_VERSION"));
