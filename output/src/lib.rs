//! Files and folders that appear whole or not at all, and their digests.
//!
//! [`StagedDirectory`] and [`StagedFile`] are made beside their target and renamed when they are finished. [`StreamedFile`] is a large
//! file that is hashed while it is written; [`WrittenFile`] is the result, size and [`Digest`]. Nothing here knows what is in files.

mod digest;
mod disk;
mod staging;
mod stream;

pub use digest::{Digest, ParseDigestError};
pub use disk::Disk;
pub use staging::{Guard, KeepExisting, StagedDirectory, StagedFile, StagingError, available_bytes};
pub use stream::{StreamedFile, WrittenFile};
