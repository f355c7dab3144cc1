//! Outputs that appear whole or not at all.
//!
//! [`StagedDirectory`] and [`StagedFile`] are written beside their target under a hidden name
//! (`.<name>.partial-<pid>-<n>`, same file system, so that one rename publishes them), synced, and renamed
//! when [`StagedDirectory::commit`] is called. Dropped without it, they vanish together with the parent
//! folders made for them.
//!
//! The output's [`Guard`] decides whether what is at a target is replaced. It is asked before the work, before the rename, and
//! about what the rename moved aside, before that is deleted.
//!
//! A killed process cannot clean up. It leaves its hidden partial output behind, and the next run with the
//! same target removes it. A partial output is held by an advisory lock (`flock`) on itself for as long as its
//! owner lives, and only unlocked ones are removed, so that two runs do not disturb each other.

mod error;
mod guard;
mod place;

pub use error::StagingError;
pub use guard::{Guard, KeepExisting};

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use error::io_error;
use place::{Kind, Place};

/// Bytes that an unprivileged writer may still write on the file system that holds `path`. A path that does
/// not exist yet counts as its nearest existing ancestor.
///
/// # Errors
/// When no ancestor can be queried.
pub fn available_bytes(path: &Path) -> Result<u64, StagingError> {
    let absolute = std::path::absolute(path).map_err(io_error("resolve", path))?;
    let existing = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let stat =
        rustix::fs::statvfs(existing).map_err(|e| io_error("query the free space of", existing)(e.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A folder under construction beside its target.
#[derive(Debug)]
pub struct StagedDirectory {
    place: Place,
    /// Keeps the advisory lock until the folder is published or removed.
    _lock: File,
}

impl StagedDirectory {
    /// Makes an empty hidden folder beside `target`, with the missing parents of `target`, after removing what
    /// killed runs with the same target left behind.
    ///
    /// # Errors
    /// [`StagingError::Exists`] if something is at `target` that may be replaced when that is asked for; the other kinds when
    /// `target` cannot be an output folder, the guard refuses, or the file system does.
    pub fn new(target: &Path, guard: impl Guard + 'static) -> Result<Self, StagingError> {
        let mut place = Place::prepare(target, Box::new(guard), Kind::Directory)?;
        place.remove_stale();
        let lock = place.stage(|path| {
            fs::create_dir(path)?;
            File::open(path)
        })?;
        Ok(Self { place, _lock: lock })
    }

    /// Checks what [`Self::new`] would check, and makes nothing.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn check(target: &Path, guard: impl Guard + 'static) -> Result<(), StagingError> {
        Place::check(target, Box::new(guard), Kind::Directory)
    }

    /// Adopts the hidden folder that a killed run with the same target, or [`Self::leave`], left behind: the one with this name, else
    /// the newest. Nothing if there is none.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn adopt(
        target: &Path,
        guard: impl Guard + 'static,
        name: Option<&OsStr>,
    ) -> Result<Option<Self>, StagingError> {
        let mut place = Place::prepare(target, Box::new(guard), Kind::Directory)?;
        let lock = place.adopt(name);
        Ok(lock.map(|lock| Self { place, _lock: lock }))
    }

    /// Keeps the hidden folder when this is dropped without [`Self::commit`], for [`Self::adopt`] in a later run.
    pub fn leave(&mut self) {
        self.place.leave();
    }

    /// The hidden folder to write into.
    pub fn path(&self) -> &Path {
        self.place.staging()
    }

    /// Where the folder will be after [`Self::commit`], as it was given.
    pub fn target(&self) -> &Path {
        self.place.target()
    }

    /// Whether publishing this folder would replace something.
    pub fn replaces(&self) -> bool {
        fs::symlink_metadata(self.place.absolute()).is_ok()
    }

    /// Syncs every file and folder, then renames the folder to its target and returns that as an absolute path. A folder
    /// that is replaced is removed after the new one has taken its name.
    ///
    /// # Errors
    /// As [`Self::publish_all`]. Then nothing of the new folder stays behind.
    pub fn commit(mut self) -> Result<PathBuf, StagingError> {
        self.sync()?;
        self.publish()
    }

    /// Syncs every file and folder, and the name: afterwards the hidden folder outlives a power failure.
    ///
    /// # Errors
    /// [`StagingError::Io`] when syncing fails.
    pub fn sync(&self) -> Result<(), StagingError> {
        sync_tree(self.path())?;
        self.place.sync_parent()
    }

    /// The second half of [`Self::commit`], for a folder that is synced. After an error the hidden folder is still there, and
    /// [`Self::leave`] keeps it.
    ///
    /// # Errors
    /// As [`Self::publish_all`].
    pub fn publish(&mut self) -> Result<PathBuf, StagingError> {
        Self::publish_all(std::slice::from_mut(self))?;
        Ok(self.place.absolute().to_path_buf())
    }

    /// Publishes synced folders that belong together, in this order: all of them, or none. The outputs that they replace are removed
    /// when all new ones have their names.
    ///
    /// # Errors
    /// [`StagingError::Exists`] and [`StagingError::Refused`] if a target appeared or changed in the meantime and must not be replaced;
    /// [`StagingError::Io`] when renaming fails. Every target is then what it was, and the hidden folders are still there. Where the
    /// system refuses even that, [`StagingError::NotRestored`] says where the outputs are.
    pub fn publish_all(folders: &mut [Self]) -> Result<(), StagingError> {
        place::publish(folders.iter_mut().map(|folder| &mut folder.place))
    }
}

/// A file under construction beside its target. Write to it through [`Write`] and [`Seek`]; [`Read`] reads it again.
#[derive(Debug)]
pub struct StagedFile {
    place: Place,
    file: File,
    /// The advisory lock of an adopted file; that of a new one is on `file`.
    _lock: Option<File>,
}

impl StagedFile {
    /// Makes an empty hidden file beside `target`, with the missing parents of `target`, after removing what
    /// killed runs with the same target left behind.
    ///
    /// # Errors
    /// As [`StagedDirectory::new`].
    pub fn new(target: &Path, guard: impl Guard + 'static) -> Result<Self, StagingError> {
        let mut place = Place::prepare(target, Box::new(guard), Kind::File)?;
        place.remove_stale();
        let file =
            place.stage(|path| OpenOptions::new().read(true).write(true).create_new(true).open(path))?;
        Ok(Self { place, file, _lock: None })
    }

    /// Adopts the newest hidden file that [`Self::leave`], or a killed run with the same target, left behind. Nothing if there is none.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn adopt(target: &Path, guard: impl Guard + 'static) -> Result<Option<Self>, StagingError> {
        let mut place = Place::prepare(target, Box::new(guard), Kind::File)?;
        let Some(lock) = place.adopt(None) else { return Ok(None) };
        let opened = OpenOptions::new().read(true).write(true).open(place.staging());
        let file = opened.map_err(io_error("open", place.staging()))?;
        Ok(Some(Self { place, file, _lock: Some(lock) }))
    }

    /// Keeps the hidden file when this is dropped without [`Self::commit`], for [`Self::adopt`] in a later run.
    pub fn leave(&mut self) {
        self.place.leave();
    }

    /// Checks what [`Self::new`] would check, and makes nothing: for outputs that are made at the end of a long run.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn check(target: &Path, guard: impl Guard + 'static) -> Result<(), StagingError> {
        Place::check(target, Box::new(guard), Kind::File)
    }

    /// The hidden file.
    pub fn path(&self) -> &Path {
        self.place.staging()
    }

    /// Where the file will be after [`Self::commit`], as it was given.
    pub fn target(&self) -> &Path {
        self.place.target()
    }

    /// The open file, for what [`Write`] and [`Seek`] do not offer.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the file, renames it to its target and returns that as an absolute path.
    ///
    /// # Errors
    /// As [`StagedDirectory::commit`].
    pub fn commit(mut self) -> Result<PathBuf, StagingError> {
        self.file.sync_all().map_err(io_error("sync", self.place.staging()))?;
        place::publish(std::iter::once(&mut self.place))?;
        Ok(self.place.absolute().to_path_buf())
    }
}

impl Read for StagedFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Write for StagedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for StagedFile {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        self.file.seek(position)
    }
}

fn sync_path(path: &Path) -> Result<(), StagingError> {
    File::open(path).and_then(|handle| handle.sync_all()).map_err(io_error("sync", path))
}

/// Syncs the files below `folder`, then the folders, innermost first.
fn sync_tree(folder: &Path) -> Result<(), StagingError> {
    for entry in fs::read_dir(folder).map_err(io_error("list", folder))? {
        let entry = entry.map_err(io_error("list", folder))?;
        let kind = entry.file_type().map_err(io_error("look at", &entry.path()))?;
        if kind.is_dir() {
            sync_tree(&entry.path())?;
        } else if kind.is_file() {
            sync_path(&entry.path())?;
        }
    }
    sync_path(folder)
}

#[cfg(test)]
mod tests;
