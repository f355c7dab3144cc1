//! The folder that all Hub clients of a machine share, in the layout of Python's `huggingface_hub`.
//!
//! ```text
//! models--owner--name/blobs/<digest>                  the bytes
//! models--owner--name/snapshots/<commit>/<path>       links to them
//! models--owner--name/refs/<branch or tag>            the commit that it last resolved to
//! .locks/models--owner--name/<digest>.lock            held (flock) by whoever fetches a blob
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use text::{names, small};

use crate::error::Error;
use crate::snapshot::RepositoryId;
use crate::wait::{STEP, pause};

/// The file that marks a folder that backups may skip.
const TAG: &str = "CACHEDIR.TAG";
/// The first line is the standard's.
const TAG_TEXT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# A cache of the Hugging Face Hub.\n";

/// A repository's part of the cache.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    name: String,
}

impl Cache {
    /// The part of a repository; nothing is made.
    pub fn new(root: &Path, id: &RepositoryId) -> Self {
        Cache { root: root.to_owned(), name: format!("models--{}", id.as_str().replace('/', "--")) }
    }

    /// The repository's folder.
    pub fn folder(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    /// Folder of a commit, if any of it is there.
    pub fn snapshot(&self, commit: &str) -> Option<PathBuf> {
        let folder = self.snapshot_path(commit);
        folder.is_dir().then_some(folder)
    }

    pub(crate) fn snapshot_path(&self, commit: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit)
    }

    /// The commit that a revision resolved to when the Hub was last asked.
    pub fn commit_of(&self, revision: &str) -> Option<String> {
        if names::is_commit(revision) {
            return Some(revision.to_owned());
        }
        if names::path(revision).is_err() {
            return None;
        }
        let text = small::read_text(&self.folder().join("refs").join(revision), small::TEXT).ok()?;
        Some(text.trim().to_owned()).filter(|commit| names::is_commit(commit))
    }

    /// Records which commit a revision resolves to.
    pub(crate) fn set_commit_of(&self, revision: &str, commit: &str) -> Result<(), Error> {
        if revision == commit || names::path(revision).is_err() {
            return Ok(());
        }
        let path = self.folder().join("refs").join(revision);
        if self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        make_parent(&path)?;
        let temporary = temporary_beside(&path);
        fs::write(&temporary, commit).map_err(Error::io("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(Error::io("write", &path))
    }

    pub(crate) fn blob(&self, digits: &str) -> PathBuf {
        self.folder().join("blobs").join(digits)
    }

    /// Waits until no other process fetches this blob, or `cancelled` says that the user asked to stop. Others wait until the file is
    /// dropped.
    pub(crate) fn lock(&self, digits: &str, cancelled: fn() -> bool) -> Result<File, Error> {
        let path = self.root.join(".locks").join(&self.name).join(format!("{digits}.lock"));
        make_parent(&path)?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => pause(STEP, cancelled)?,
                // Without locks, two processes may fetch the same blob: slow, but not wrong, since a blob appears by one rename.
                Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(file);
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
            }
        }
    }

    /// Marks the cache as one.
    pub(crate) fn tag(&self) -> Result<(), Error> {
        fs::create_dir_all(&self.root).map_err(Error::io("make", &self.root))?;
        let path = self.root.join(TAG);
        match File::create_new(&path) {
            Ok(mut file) => file.write_all(TAG_TEXT.as_bytes()).map_err(Error::io("write", &path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(Error::io("write", &path)(error)),
        }
    }

    /// Links a file of a commit to its blob.
    pub(crate) fn link(&self, commit: &str, path: &str, digits: &str) -> Result<(), Error> {
        let pointer = self.snapshot_path(commit).join(path);
        make_parent(&pointer)?;
        // From the pointer's folder up to the repository's: `snapshots`, the commit, and the folders of the path.
        let up = "../".repeat(2 + path.matches('/').count());
        let temporary = temporary_beside(&pointer);
        let _ = fs::remove_file(&temporary);
        std::os::unix::fs::symlink(format!("{up}blobs/{digits}"), &temporary)
            .map_err(Error::io("write", &temporary))?;
        fs::rename(&temporary, &pointer).map_err(Error::io("write", &pointer))
    }
}

fn make_parent(path: &Path) -> Result<(), Error> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(Error::io("make", parent)),
        None => Ok(()),
    }
}

/// A name for the moment before a rename, used by this process only.
fn temporary_beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    path.with_file_name(name)
}
