//! Who decides what an output may replace.

use std::fmt;
use std::path::Path;

/// Decides where an output may go and what it may replace there. Every staged output is made with one, and asks it before the work
/// starts and again when it is published.
///
/// Errors are sentences about the target without their subject, and say what to do: `holds model, an input: choose another output`.
pub trait Guard: fmt::Debug + Send + Sync {
    /// Whether the output may be at `target`, an absolute path, whatever is there now.
    ///
    /// # Errors
    /// Why not, and what to do.
    fn may_write(&self, target: &Path) -> Result<(), String>;

    /// Whether what is at `found` may be deleted for the output. It is of the output's kind: a folder, or a regular file.
    ///
    /// # Errors
    /// Why not, and what to do.
    fn may_replace(&self, found: &Path) -> Result<(), String>;

    /// Whether the user asked for replacing what exists.
    fn is_forced(&self) -> bool;
}

/// For outputs that never replace anything.
#[derive(Clone, Copy, Debug)]
pub struct KeepExisting;

impl Guard for KeepExisting {
    fn may_write(&self, _: &Path) -> Result<(), String> {
        Ok(())
    }

    fn may_replace(&self, _: &Path) -> Result<(), String> {
        Err("exists: remove it first or choose another output".to_owned())
    }

    fn is_forced(&self) -> bool {
        false
    }
}
