//! The two names of an output, and how it gets from one to the other.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::error::io_error;
use super::guard::Guard;
use super::{StagingError, sync_path};

/// Hidden names tried before giving up; more than one is needed only when outputs of one target race.
const ATTEMPTS: u32 = 1000;

/// What an output is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

impl Kind {
    fn noun(self) -> &'static str {
        match self {
            Self::Directory => "a folder",
            Self::File => "a file",
        }
    }

    fn fits(self, found: fs::FileType) -> bool {
        match self {
            Self::Directory => found.is_dir(),
            Self::File => found.is_file(),
        }
    }
}

/// What is there, in words.
fn noun_of(found: fs::FileType) -> &'static str {
    if found.is_symlink() {
        "a symbolic link"
    } else if found.is_dir() {
        "a folder"
    } else if found.is_file() {
        "a file"
    } else if found.is_fifo() {
        "a named pipe"
    } else if found.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// The two names of one output, and what must be undone when it is abandoned.
#[derive(Debug)]
pub(super) struct Place {
    /// The output's path as the caller wrote it, for what is printed.
    target: PathBuf,
    absolute: PathBuf,
    parent: PathBuf,
    name: OsString,
    staging: PathBuf,
    guard: Box<dyn Guard>,
    kind: Kind,
    /// Parent folders made for this output, innermost last.
    made_parents: Vec<PathBuf>,
    state: PlaceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaceState {
    /// Dropping the place removes what was made.
    Hidden,
    /// The hidden output stays for a later run.
    Left,
    /// The output has its name; the hidden name may be that of the output it replaced.
    Published,
}

/// Renames outputs to their targets in this order: all of them, or none.
pub(super) fn publish<'p>(places: impl Iterator<Item = &'p mut Place>) -> Result<(), StagingError> {
    let mut published: Vec<(&mut Place, Option<PathBuf>)> = Vec::new();
    let mut failure = None;
    for place in places {
        match place.take_name() {
            Ok(aside) => published.push((place, aside)),
            Err(error) => failure = Some(error),
        }
        if failure.is_some() {
            break;
        }
    }
    // What was replaced is removed only when the new names are on disk.
    let sync = || published.iter().try_for_each(|(place, _)| place.sync_parent());
    if let Some(mut failure) = failure.or_else(|| sync().err()) {
        for (place, aside) in published.into_iter().rev() {
            if let Err(error) = place.give_back(aside) {
                failure = error;
            }
        }
        return Err(failure);
    }
    published.iter().filter_map(|(_, aside)| aside.as_deref()).for_each(remove);
    Ok(())
}

impl Place {
    fn new(target: &Path, guard: Box<dyn Guard>, kind: Kind) -> Result<Self, StagingError> {
        let no_name = || StagingError::NoName { path: target.to_path_buf() };
        let name = target.file_name().ok_or_else(no_name)?.to_os_string();
        let written = target.as_os_str().as_bytes();
        // Elsewhere a dash is the standard output; here it would become a file of that name.
        if written == b"-" {
            return Err(StagingError::Dash);
        }
        if kind == Kind::File && (written.ends_with(b"/") || written.ends_with(b"/.")) {
            return Err(no_name());
        }
        let absolute = std::path::absolute(target).map_err(io_error("resolve", target))?;
        let parent = absolute.parent().ok_or_else(no_name)?.to_path_buf();
        Ok(Self {
            target: target.to_path_buf(),
            absolute: parent.join(&name),
            parent,
            name,
            staging: PathBuf::new(),
            guard,
            kind,
            made_parents: Vec::new(),
            state: PlaceState::Hidden,
        })
    }

    pub(super) fn prepare(target: &Path, guard: Box<dyn Guard>, kind: Kind) -> Result<Self, StagingError> {
        let mut place = Self::new(target, guard, kind)?;
        place.check_target()?;
        place.make_parents()?;
        Ok(place)
    }

    /// Whether the output could be published here now.
    pub(super) fn check(target: &Path, guard: Box<dyn Guard>, kind: Kind) -> Result<(), StagingError> {
        Self::new(target, guard, kind)?.check_target().map(drop)
    }

    pub(super) fn target(&self) -> &Path {
        &self.target
    }

    pub(super) fn absolute(&self) -> &Path {
        &self.absolute
    }

    pub(super) fn staging(&self) -> &Path {
        &self.staging
    }

    pub(super) fn sync_parent(&self) -> Result<(), StagingError> {
        sync_path(&self.parent)
    }

    pub(super) fn leave(&mut self) {
        if self.state == PlaceState::Hidden {
            self.state = PlaceState::Left;
        }
    }

    /// Whether something is at the target that the output may replace; asked before the work and again before the rename.
    fn check_target(&self) -> Result<bool, StagingError> {
        self.guard.may_write(&self.absolute).map_err(|reason| self.refused(reason))?;
        let found = match fs::symlink_metadata(&self.absolute) {
            Ok(found) => found,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(io_error("look at", &self.absolute)(e)),
        };
        self.check_found(&self.absolute, &found)?;
        // Last, so that --force is not suggested where it would be refused too.
        if self.guard.is_forced() {
            Ok(true)
        } else {
            Err(StagingError::Exists { path: self.absolute.clone() })
        }
    }

    /// Whether what was at the target may be deleted. It is at `path` now.
    fn check_found(&self, path: &Path, found: &fs::Metadata) -> Result<(), StagingError> {
        let target = || self.absolute.clone();
        if !self.kind.fits(found.file_type()) {
            let (found, wanted) = (noun_of(found.file_type()), self.kind.noun());
            return Err(StagingError::WrongKind { path: target(), found, wanted });
        }
        // Overlay file systems give files another device than their folder.
        if found.is_dir() && fs::metadata(&self.parent).is_ok_and(|parent| parent.dev() != found.dev()) {
            return Err(self.refused("is a mount point: choose another output".to_owned()));
        }
        let here = std::env::current_dir().and_then(fs::canonicalize).ok();
        if let (Ok(resolved), Some(here)) = (fs::canonicalize(path), here)
            && here.starts_with(resolved)
        {
            return Err(StagingError::HoldsCurrentDirectory { path: target() });
        }
        self.guard.may_replace(path).map_err(|reason| self.refused(reason))
    }

    fn refused(&self, reason: String) -> StagingError {
        StagingError::Refused { path: self.absolute.clone(), reason }
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
    pub(super) fn stage(&mut self, create: impl Fn(&Path) -> io::Result<File>) -> Result<File, StagingError> {
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

    /// Removes hidden outputs of this target whose owner is gone. Failing to do so is not an error.
    pub(super) fn remove_stale(&self) {
        let mut stale = self.abandoned();
        // A replaced output without its successor is the only copy left: it is up to the user.
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

    /// Adopts the newest hidden output whose owner is gone, or the one with this name, and locks it.
    pub(super) fn adopt(&mut self, name: Option<&OsStr>) -> Option<File> {
        for path in self.abandoned().into_iter().rev() {
            if name.is_some_and(|name| path.file_name() != Some(name)) {
                continue;
            }
            let Ok(handle) = File::open(&path) else { continue };
            if lock(&handle) && is_at(&handle, &path) {
                self.staging = path;
                self.remove_stale();
                return Some(handle);
            }
        }
        None
    }

    /// Moves the finished output to its target, and returns the path of the output that was there before.
    fn take_name(&mut self) -> Result<Option<PathBuf>, StagingError> {
        if !self.check_target()? {
            rename_new(&self.staging, &self.absolute)
                .map_err(io_error("rename the finished output to", &self.absolute))?;
            self.state = PlaceState::Published;
            return Ok(None);
        }
        // Exchanging the two names leaves no moment without a target; file systems that cannot do that get two renames.
        let aside = match exchange(&self.staging, &self.absolute) {
            Ok(()) => self.staging.clone(),
            Err(_) => self.rename_twice()?,
        };
        self.state = PlaceState::Published;
        // Somebody may have put something else there since the check.
        let found = fs::symlink_metadata(&aside).map_err(io_error("look at", &aside));
        match found.and_then(|found| self.check_found(&aside, &found)) {
            Ok(()) => Ok(Some(aside)),
            Err(error) => {
                self.give_back(Some(aside))?;
                Err(error)
            }
        }
    }

    pub(super) fn rename_twice(&self) -> Result<PathBuf, StagingError> {
        let free = (0..ATTEMPTS).map(|n| self.hidden_path("replaced", n)).find(|path| !path.exists());
        let aside = free.unwrap_or_else(|| self.hidden_path("replaced", ATTEMPTS));
        rename_new(&self.absolute, &aside).map_err(io_error("move aside", &self.absolute))?;
        match rename_new(&self.staging, &self.absolute) {
            Ok(()) => Ok(aside),
            Err(error) => match rename_new(&aside, &self.absolute) {
                Ok(()) => Err(io_error("rename the finished output to", &self.absolute)(error)),
                Err(source) => Err(self.not_restored(Some(aside), source)),
            },
        }
    }

    /// Moves the published output back to its hidden name, and restores what it replaced.
    fn give_back(&mut self, aside: Option<PathBuf>) -> Result<(), StagingError> {
        let done = match &aside {
            None => rename_new(&self.absolute, &self.staging),
            Some(aside) if *aside == self.staging => exchange(&self.staging, &self.absolute),
            Some(aside) => {
                rename_new(&self.absolute, &self.staging).and_then(|()| rename_new(aside, &self.absolute))
            }
        };
        match done {
            Ok(()) => self.state = PlaceState::Hidden,
            Err(source) => return Err(self.not_restored(aside, source)),
        }
        Ok(())
    }

    fn not_restored(&self, aside: Option<PathBuf>, source: io::Error) -> StagingError {
        StagingError::NotRestored { path: self.absolute.clone(), aside, source }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.state != PlaceState::Hidden {
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

/// Removes an output of our own, as far as that is possible: leftovers are hidden and swept by the next run.
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

/// Whether the lock of the output at `path` is free. On a file system without locks nothing counts as abandoned.
fn is_abandoned(path: &Path) -> bool {
    // Opening a pipe would wait, and links and devices are not outputs.
    let is_output = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() || found.is_file());
    is_output && File::open(path).is_ok_and(|handle| handle.try_lock().is_ok())
}

/// Locks an output of our own; false if a sweep of another process holds it and is about to remove it. A file
/// system without locks is as good as locked, since no sweep touches it.
fn lock(handle: &File) -> bool {
    !matches!(handle.try_lock(), Err(TryLockError::WouldBlock))
}

/// Whether `path` still names the open `handle`.
fn is_at(handle: &File, path: &Path) -> bool {
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

/// Renames to a name that must be free, as far as the file system can tell in one step.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => rename_checked(from, to),
        renamed => Ok(renamed?),
    }
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    rename_checked(from, to)
}

fn rename_checked(from: &Path, to: &Path) -> io::Result<()> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    fs::rename(from, to)
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn exchange(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
