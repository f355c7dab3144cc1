//! Comparisons through the public interface.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod examples;
mod packages;
