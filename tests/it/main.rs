//! The command as a user runs it.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod adverse;
mod aotc;
mod archives;
mod build;
mod chat;
mod common;
mod convert;
mod dedup;
mod dense;
mod diff;
mod digests;
mod dist;
mod eval;
mod explain;
mod foreign;
mod hub;
mod inspect;
mod oracle;
mod output;
mod parity;
mod publish;
mod readme;
mod release;
mod replace;
mod report;
mod resume;
/// The bundle and the stand-in toolchain of the stage's own tests.
#[allow(dead_code, reason = "these tests use a part")]
#[path = "../../aotc/tests/it/common/mod.rs"]
mod scene;
mod signals;
mod sources;
mod status;
mod stopped;
mod templates;
mod untrusted;
