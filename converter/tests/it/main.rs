//! From a checkpoint to the content of bundles.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod cost;
mod dense;
mod exact;
mod resume;
