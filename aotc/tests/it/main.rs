//! The ahead-of-time stage with a stand-in Xcode.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod check;
mod common;
mod doctor;
mod local;
mod prefill;
mod remote;
mod script;
mod workflow;
