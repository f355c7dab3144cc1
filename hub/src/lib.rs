//! Client of the Hugging Face Hub.
//!
//! - [`Settings`] are what the environment says: endpoint, token, cache, offline. They are those of Python's `huggingface_hub`.
//! - [`Client`] asks: every answer that is not one becomes an [`Error`] that says what to do; what may pass is tried again.
//! - [`Snapshot`] is a repository at one commit; [`RemoteFile`] gives the bytes of one of its files by range.
//! - [`upload`] brings files to a repository in one commit.
//! - [`cache`] is the folder that all Hub clients of a machine share, and [`download`] fills it.
//!
//! Nothing here knows what a checkpoint is. A token is sent to the endpoint alone, whoever redirects where, and no text of this
//! crate ever holds one: what a server sends is checked where it arrives, and the token is taken out of it.
//!
//! Every wait ends within a moment when [`Settings::cancelled`] says so.

mod answer;
pub mod cache;
mod client;
mod digest;
pub mod download;
mod error;
mod file;
mod limits;
mod line;
mod retry;
mod settings;
mod snapshot;
mod token;
pub mod upload;
mod wait;

pub use answer::Answer;
pub use client::Client;
pub use digest::RemoteDigest;
pub use error::Error;
pub use file::RemoteFile;
pub use limits::Limits;
pub use retry::Policy;
pub use settings::{DEFAULT_ENDPOINT, Settings};
pub use snapshot::{RepositoryId, Snapshot};
pub use token::Token;
