//! Gemma 4 checkpoints become Apple Core AI bundles: everything that the command `coreai-bundle` can do, as functions.
//!
//! Nothing here prints or parses arguments: requests come in as values, results are returned as typed facts, and progress
//! is reported to a [`progress::Progress`].

pub mod bundle;
pub mod chat;
pub mod convert;
pub mod diff;
pub mod doctor;
pub mod eval;
pub mod explain;
mod functions;
pub mod gate;
pub mod inspect;
pub mod oracle;
pub mod origin;
pub mod outputs;
pub mod publish;
pub mod release;
pub mod reporting;
pub mod runnable;
pub mod stage;
pub mod tables;

/// The crates below, whose types are in the signatures above.
pub mod parts {
    pub use {aotc, converter, hub, oracle, output, packer, progress, report, text};
}
