//! Gemma 4 checkpoints become Apple Core AI bundles: everything that the command `coreai-bundle` can do, as functions.
//!
//! Nothing here prints or parses arguments: requests come in as values, results are returned as typed facts, and progress
//! is reported to a [`progress::Progress`], which can also stop a run.
//!
//! ```no_run
//! use coreai_bundle::{ConvertRequest, convert};
//! use progress::Silent;
//!
//! let request = ConvertRequest::new("google/gemma-4-E4B-it-qat-q4_0-unquantized", "out");
//! for bundle in convert(&request, &Silent)?.bundles {
//!     println!("{}: {} bytes", bundle.path.display(), bundle.bytes);
//! }
//! # anyhow::Ok(())
//! ```
//!
//! | to | use |
//! | --- | --- |
//! | convert a checkpoint | [`convert()`], or [`convert::Job`] for a plan before the work and for all choices |
//! | find what loaders and engines would trip over | [`check()`] |
//! | compare a bundle with its checkpoint | [`gate()`]; [`eval`] on a text |
//! | look into a checkpoint, package, bundle or table folder | [`inspect()`] |
//! | make a whole release from a recipe | [`build::BuildRequest`] |
//! | make and publish a release tree | [`release`], [`publish`] (with the feature `xet`) |
//!
//! The folder `examples` has a program for each of the first four. Outputs appear whole, by rename, or not at all.

pub mod build;
pub mod bundle;
pub mod chat;
pub mod contents;
pub mod convert;
pub mod diff;
pub mod doctor;
pub mod eval;
pub mod explain;
mod functions;
pub mod gate;
pub mod inspect;
pub mod options;
pub mod oracle;
pub mod origin;
pub mod outputs;
pub mod publish;
pub mod release;
pub mod reporting;
pub mod runnable;
pub mod source;
pub mod stage;
pub mod tables;

pub use convert::{ConvertRequest, convert};
pub use gate::gate;
pub use inspect::inspect;
pub use packer::check::check;

/// The crates below, whose types are in the signatures above.
pub mod parts {
    pub use {
        aotc, checkpoint, converter, hub, interpreter, oracle, output, packer, paths, progress, quantizer,
        report, text,
    };
}
