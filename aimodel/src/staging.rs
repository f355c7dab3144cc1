//! Outputs that appear whole or not at all.
//!
//! [`StagedDirectory`] and [`StagedFile`] are written beside their target under a hidden name
//! (`.<name>.partial-<pid>-<n>`, same file system, so that one rename publishes them), synced, and renamed
//! when [`StagedDirectory::commit`] is called. Dropped without it, they vanish together with the parent
//! folders made for them.
//!
//! A killed process cannot clean up. It leaves its hidden partial output behind, and the next run with the
//! same target removes it. A partial output is held by an advisory lock (`flock`) on itself for as long as its
//! owner lives, and only unlocked ones are removed, so that two runs do not disturb each other.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
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
    /// The target is a file where a folder is to be made, or the other way round.
    #[error("{} is {found}, the output would be {wanted}: move it away or choose another output", path.display())]
    WrongKind {
        /// The target.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What is to be made.
        wanted: &'static str,
    },
    /// The folder to be replaced holds the current directory.
    #[error("{} holds the current directory and is not replaced: run the command from elsewhere", path.display())]
    HoldsCurrentDirectory {
        /// The target.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {action} {}: {source}{}", path.display(), remedy(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// What to do about the system's answer, appended to the message.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": free some space or choose an output on another disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            ": choose an output folder that you may write to"
        }
        _ => "",
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StagingError {
    move |source| StagingError::Io { action, path: path.to_path_buf(), source }
}

/// Hidden names tried before giving up; more than one is needed only when outputs of one target race.
const ATTEMPTS: u32 = 1000;

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
    /// [`StagingError::Exists`] if something is at `target` and `overwrite` is false; the other kinds when
    /// `target` cannot be an output folder or the file system refuses.
    pub fn new(target: &Path, overwrite: bool) -> Result<Self, StagingError> {
        let mut place = Place::prepare(target, overwrite, Kind::Directory)?;
        place.remove_stale();
        let lock = place.stage(|path| {
            fs::create_dir(path)?;
            File::open(path)
        })?;
        Ok(Self { place, _lock: lock })
    }

    /// Takes over the hidden folder that a run with the same target left, by a kill or by [`Self::leave`]: that of this name, else
    /// the newest. Nothing if there is none.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn adopt(target: &Path, overwrite: bool, name: Option<&OsStr>) -> Result<Option<Self>, StagingError> {
        let mut place = Place::prepare(target, overwrite, Kind::Directory)?;
        for path in place.abandoned().into_iter().rev() {
            if name.is_some_and(|name| path.file_name() != Some(name)) {
                continue;
            }
            let Ok(handle) = File::open(&path) else { continue };
            if lock(&handle) && is_at(&handle, &path) {
                place.staging = path;
                place.remove_stale();
                return Ok(Some(Self { place, _lock: handle }));
            }
        }
        Ok(None)
    }

    /// Has the hidden folder stay when this is dropped without [`Self::commit`], for [`Self::adopt`] in a later run.
    pub fn leave(&mut self) {
        self.place.is_left = true;
    }

    /// The hidden folder to write into.
    pub fn path(&self) -> &Path {
        &self.place.staging
    }

    /// Where the folder will be after [`Self::commit`], as it was given.
    pub fn target(&self) -> &Path {
        &self.place.target
    }

    /// Syncs every file and folder, then renames the folder to its target and returns that as an absolute path. A folder
    /// that is to be replaced is removed after the new one has taken its name.
    ///
    /// # Errors
    /// [`StagingError::Exists`] if a target appeared meanwhile and must not be replaced; [`StagingError::Io`]
    /// when syncing or renaming fails. Nothing of the new folder stays behind then.
    pub fn commit(mut self) -> Result<PathBuf, StagingError> {
        self.sync()?;
        self.publish()
    }

    /// Syncs every file and folder, and the name: afterwards the hidden folder outlives a power failure.
    ///
    /// # Errors
    /// [`StagingError::Io`] when syncing fails.
    pub fn sync(&self) -> Result<(), StagingError> {
        sync_tree(&self.place.staging)?;
        sync_path(&self.place.parent)
    }

    /// The second half of [`Self::commit`], for a folder that is synced. After an error the hidden folder is still there, and
    /// [`Self::leave`] keeps it.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn publish(&mut self) -> Result<PathBuf, StagingError> {
        self.place.publish()
    }
}

/// A file under construction beside its target. Write to it through [`Write`] and [`Seek`].
#[derive(Debug)]
pub struct StagedFile {
    place: Place,
    file: File,
}

impl StagedFile {
    /// Makes an empty hidden file beside `target`, with the missing parents of `target`, after removing what
    /// killed runs with the same target left behind.
    ///
    /// # Errors
    /// As [`StagedDirectory::new`].
    pub fn new(target: &Path, overwrite: bool) -> Result<Self, StagingError> {
        let mut place = Place::prepare(target, overwrite, Kind::File)?;
        place.remove_stale();
        let file =
            place.stage(|path| OpenOptions::new().read(true).write(true).create_new(true).open(path))?;
        Ok(Self { place, file })
    }

    /// The hidden file.
    pub fn path(&self) -> &Path {
        &self.place.staging
    }

    /// Where the file will be after [`Self::commit`], as it was given.
    pub fn target(&self) -> &Path {
        &self.place.target
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
        self.file.sync_all().map_err(io_error("sync", &self.place.staging))?;
        self.place.publish()
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
}

impl Kind {
    fn of(metadata: &fs::Metadata) -> Self {
        if metadata.is_dir() { Self::Directory } else { Self::File }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Directory => "a folder",
            Self::File => "a file",
        }
    }
}

/// The two names of one output, and what must be undone when it is given up.
#[derive(Debug)]
struct Place {
    /// The output's path as the caller wrote it, for what is printed.
    target: PathBuf,
    absolute: PathBuf,
    parent: PathBuf,
    name: OsString,
    staging: PathBuf,
    overwrite: bool,
    kind: Kind,
    /// Parent folders made for this output, innermost last.
    made_parents: Vec<PathBuf>,
    /// Whether nothing is to be undone: the output is published, or left for a later run.
    is_left: bool,
}

impl Place {
    fn prepare(target: &Path, overwrite: bool, kind: Kind) -> Result<Self, StagingError> {
        let no_name = || StagingError::NoName { path: target.to_path_buf() };
        let name = target.file_name().ok_or_else(no_name)?.to_os_string();
        let absolute = std::path::absolute(target).map_err(io_error("resolve", target))?;
        let parent = absolute.parent().ok_or_else(no_name)?.to_path_buf();
        let mut place = Self {
            target: target.to_path_buf(),
            absolute: parent.join(&name),
            parent,
            name,
            staging: PathBuf::new(),
            overwrite,
            kind,
            made_parents: Vec::new(),
            is_left: false,
        };
        place.check_target()?;
        place.make_parents()?;
        Ok(place)
    }

    /// The target's state, asked before the work starts and again before the rename.
    fn check_target(&self) -> Result<bool, StagingError> {
        let metadata = match fs::symlink_metadata(&self.absolute) {
            Ok(metadata) => metadata,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound) => return Ok(false),
            Err(e) => return Err(io_error("look at", &self.absolute)(e)),
        };
        let path = self.absolute.clone();
        if !self.overwrite {
            return Err(StagingError::Exists { path });
        }
        let found = Kind::of(&metadata);
        if found != self.kind && !metadata.is_symlink() {
            return Err(StagingError::WrongKind { path, found: found.noun(), wanted: self.kind.noun() });
        }
        let resolved = fs::canonicalize(&self.absolute).ok();
        let here = std::env::current_dir().and_then(fs::canonicalize).ok();
        if let (Some(resolved), Some(here)) = (resolved, here)
            && here.starts_with(resolved)
        {
            return Err(StagingError::HoldsCurrentDirectory { path });
        }
        Ok(true)
    }

    fn make_parents(&mut self) -> Result<(), StagingError> {
        let missing: Vec<PathBuf> =
            self.parent.ancestors().take_while(|p| !p.exists()).map(Path::to_path_buf).collect();
        for folder in missing.into_iter().rev() {
            match fs::create_dir(&folder) {
                Ok(()) => self.made_parents.push(folder),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(io_error("create the folder", &folder)(e)),
            }
        }
        Ok(())
    }

    /// The hidden name with `role`, before the part that makes it unique.
    fn hidden_prefix(&self, role: &str) -> OsString {
        let mut prefix = OsString::from(".");
        prefix.push(&self.name);
        prefix.push(format!(".{role}-"));
        prefix
    }

    fn hidden_path(&self, role: &str, attempt: u32) -> PathBuf {
        let mut name = self.hidden_prefix(role);
        name.push(format!("{}-{attempt}", std::process::id()));
        self.parent.join(name)
    }

    /// Makes the hidden output with `create` and locks it.
    fn stage(&mut self, create: impl Fn(&Path) -> io::Result<File>) -> Result<File, StagingError> {
        for attempt in 0..ATTEMPTS {
            let path = self.hidden_path("partial", attempt);
            match create(&path) {
                Ok(handle) if lock(&handle) && is_at(&handle, &path) => {
                    self.staging = path;
                    return Ok(handle);
                }
                // A sweep of another process took it before it was locked.
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound) => {}
                Err(e) => return Err(io_error("create", &path)(e)),
            }
        }
        let path = self.hidden_path("partial", ATTEMPTS);
        Err(io_error("create", &path)(io::ErrorKind::AlreadyExists.into()))
    }

    /// Removes hidden outputs of this target whose owner is gone. Failing to is no reason not to work.
    fn remove_stale(&self) {
        let mut stale = self.abandoned();
        // A replaced output without its successor is the only copy left: a person decides about it.
        if self.absolute.exists() {
            stale.extend(self.hidden("replaced").into_iter().filter(|path| is_abandoned(path)));
        }
        stale.iter().for_each(|path| remove(path));
    }

    /// Partial outputs of this target whose owner is gone, the oldest first.
    fn abandoned(&self) -> Vec<PathBuf> {
        let mut partial = self.hidden("partial");
        partial.retain(|path| is_abandoned(path));
        partial.sort_by_cached_key(|path| {
            (fs::metadata(path).and_then(|found| found.modified()).ok(), path.clone())
        });
        partial
    }

    /// Hidden outputs of this target in a role.
    fn hidden(&self, role: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.parent) else { return Vec::new() };
        let prefix = self.hidden_prefix(role);
        let of_target = entries.flatten().filter(|entry| is_hidden_output(&entry.file_name(), &prefix));
        of_target.map(|entry| entry.path()).collect()
    }

    fn publish(&mut self) -> Result<PathBuf, StagingError> {
        if self.check_target()? {
            self.replace()?;
        } else {
            fs::rename(&self.staging, &self.absolute)
                .map_err(io_error("rename the finished output to", &self.absolute))?;
        }
        self.is_left = true;
        sync_path(&self.parent)?;
        Ok(self.absolute.clone())
    }

    /// Puts the finished output in the place of the old one. Exchanging the two names leaves no moment without
    /// a target; file systems that cannot do that get two renames.
    fn replace(&self) -> Result<(), StagingError> {
        if self.kind == Kind::File {
            return fs::rename(&self.staging, &self.absolute).map_err(io_error("replace", &self.absolute));
        }
        if exchange(&self.staging, &self.absolute).is_ok() {
            remove(&self.staging);
            return Ok(());
        }
        self.replace_by_two_renames()
    }

    fn replace_by_two_renames(&self) -> Result<(), StagingError> {
        let free = (0..ATTEMPTS).map(|n| self.hidden_path("replaced", n)).find(|path| !path.exists());
        let aside = free.unwrap_or_else(|| self.hidden_path("replaced", ATTEMPTS));
        fs::rename(&self.absolute, &aside).map_err(io_error("move aside", &self.absolute))?;
        if let Err(e) = fs::rename(&self.staging, &self.absolute) {
            // Best effort: the first error is the one to report.
            let _ = fs::rename(&aside, &self.absolute);
            return Err(io_error("rename the finished output to", &self.absolute)(e));
        }
        remove(&aside);
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        if !self.staging.as_os_str().is_empty() {
            remove(&self.staging);
        }
        for folder in self.made_parents.iter().rev() {
            // Fails, as it should, for a folder that somebody else has put something into.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Removes a file, link or folder, as far as that is possible: leftovers are hidden and swept by the next run.
fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
}

/// Whether `name` is `prefix` followed by `<digits>-<digits>`, the way [`Place::hidden_path`] ends a name.
fn is_hidden_output(name: &OsStr, prefix: &OsStr) -> bool {
    let Some(rest) = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes()) else { return false };
    let mut parts = rest.split(|&byte| byte == b'-');
    let is_number =
        |part: Option<&[u8]>| part.is_some_and(|p| !p.is_empty() && p.iter().all(u8::is_ascii_digit));
    is_number(parts.next()) && is_number(parts.next()) && parts.next().is_none()
}

/// Whether nobody holds the lock of the output at `path`. On a file system without locks nothing is abandoned.
fn is_abandoned(path: &Path) -> bool {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()) {
        return false;
    }
    File::open(path).is_ok_and(|handle| handle.try_lock().is_ok())
}

/// Locks an output of our own; false if a sweep of another process holds it and is about to remove it. A file
/// system without locks is as good as locked, since no sweep touches it.
fn lock(handle: &File) -> bool {
    !matches!(handle.try_lock(), Err(TryLockError::WouldBlock))
}

/// Whether `path` still names the open `handle`.
fn is_at(handle: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (handle.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    Ok(renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE)?)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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
