//! The format through the public interface: what is read, written, refused and compared.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod align;
mod common;
mod format;
mod hostile;
mod layout;
mod listing;
mod properties;
mod reference;
mod round_trip;
mod verify;
