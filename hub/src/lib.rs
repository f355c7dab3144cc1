//! Client of the Hugging Face Hub.
//!
//! - [`Settings`] are what the environment says: endpoint, token, cache, offline. They are those of Python's `huggingface_hub`.
//! - [`Client`] sends requests: every failure becomes an [`Error`] that says what to do; temporary failures are retried.
//! - [`Snapshot`] is a repository at one commit; [`RemoteFile`] returns the bytes of one of its files by range.
//! - [`upload`] sends files to a repository in one commit.
//! - [`cache`] is the folder that all Hub clients of a machine share, and [`download`] fills it.
//!
//! Nothing here knows what a checkpoint is. A token is sent to the endpoint only, whatever redirects say, and no text of this
//! crate ever contains one: what a server sends is checked where it arrives, and the token is removed from it.
//!
//! Every wait ends within moments after [`Settings::cancelled`] says so.

mod answer;
pub mod cache;
mod client;
mod digest;
pub mod download;
mod error;
mod file;
mod limits;
mod pace;
mod retry;
mod settings;
mod snapshot;
mod token;
pub mod upload;
mod wait;

pub use client::Client;
pub use digest::RemoteDigest;
pub use error::Error;
pub use file::RemoteFile;
pub use limits::Limits;
pub use retry::Policy;
pub use settings::{DEFAULT_ENDPOINT, Settings};
pub use snapshot::{RepositoryId, Snapshot};
pub use token::Token;
