//! Errors of staging and publishing.

use std::io;
use std::path::{Path, PathBuf};

/// Why an output could not be staged or published.
#[derive(Debug, thiserror::Error)]
pub enum StagingError {
    /// The target is there already and replacing it was not asked for.
    #[error("{} exists: pass --force to replace it, or choose another output", path.display())]
    Exists {
        /// The target.
        path: PathBuf,
    },
    /// The target has no last component that could be renamed (`/`, `..`).
    #[error("{} cannot be an output: name a file or folder to be made", path.display())]
    NoName {
        /// The target.
        path: PathBuf,
    },
    /// The target is `-`, which other commands understand as the standard output.
    #[error(
        "- is not an output, as outputs are not printed: name a file or folder, or write ./- if that is its name"
    )]
    Dash,
    /// Something of another kind is at the target.
    #[error("{} is {found}, but the output is {wanted}: choose another output", path.display())]
    WrongKind {
        /// The target.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What should be made.
        wanted: &'static str,
    },
    /// The [`Guard`](super::Guard) does not allow the output at this place, or does not allow replacing what is there.
    #[error("{} {reason}", path.display())]
    Refused {
        /// The target.
        path: PathBuf,
        /// Why not, and what to do: a sentence about the target without its subject.
        reason: String,
    },
    /// The folder to be replaced holds the current directory.
    #[error("{} holds the current directory and is not replaced: run the command from elsewhere", path.display())]
    HoldsCurrentDirectory {
        /// The target.
        path: PathBuf,
    },
    /// Publishing failed, and so did undoing it.
    #[error("cannot restore {}: {source}{}", path.display(), kept_at(aside))]
    NotRestored {
        /// The target.
        path: PathBuf,
        /// Where the old output is now, if there was one.
        aside: Option<PathBuf>,
        /// The system's error.
        source: io::Error,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// What to do about the system's error, appended to the message.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free some space or choose an output on another disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": choose an output folder that you may write to"
        }
        io::ErrorKind::ResourceBusy => ": choose another output",
        _ => "",
    }
}

fn kept_at(aside: &Option<PathBuf>) -> String {
    let Some(aside) = aside else { return String::new() };
    format!("; the output that would have been replaced is now at {}: move it back", aside.display())
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StagingError {
    move |source| StagingError::Io { action, path: path.to_path_buf(), source }
}
