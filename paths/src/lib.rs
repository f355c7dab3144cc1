//! Reading by paths that may lead into an archive of `coreai-bundle pack`: `FILE.zip/gpu-pipelined/NAME/metadata.json`.
//!
//! An archive is a folder whose path ends in the archive's own, and what lies in it is called as after unpacking. Entries are stored and
//! aligned, so that a file in an archive is a range of the archive ([`FileRange`]), which can be read and mapped in place. Nothing is
//! unpacked.
//!
//! Code that reads bundles goes through here instead of [`std::fs`], which knows nothing of archives: it refuses such a path, because
//! the archive is no folder to it.

mod archive;
mod range;

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use archive::Archive;
pub use archive::{ALIGNMENT, MOST_ENTRIES};
pub use range::{FileRange, Reader};
use text::small;

/// What a path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of that many bytes.
    File(u64),
    /// A folder, or an archive.
    Folder,
    /// A symbolic link.
    Link,
    /// A socket, pipe or device.
    Special,
}

impl Kind {
    fn of(metadata: &fs::Metadata) -> Self {
        if metadata.is_symlink() {
            Self::Link
        } else if metadata.is_dir() {
            Self::Folder
        } else if metadata.is_file() {
            Self::File(metadata.len())
        } else {
            Self::Special
        }
    }
}

/// Something in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// What it is; links are not followed.
    pub kind: Kind,
}

/// Where a path leads.
enum Place {
    /// To a place on the disk, or nowhere.
    Disk,
    /// Into an archive, to this path in it, which is empty for the archive itself.
    Archive(Arc<Archive>, String),
}

/// Follows a path. Only files whose name ends in `.zip` are archives.
fn place(path: &Path) -> io::Result<Place> {
    let Some(file) = archive_of(path) else { return Ok(Place::Disk) };
    let mut inner = Vec::new();
    for part in path.strip_prefix(&file).unwrap_or(Path::new("")).components() {
        match part {
            Component::Normal(name) => inner.push(name.to_string_lossy()),
            Component::CurDir => {}
            _ => return Err(not_found()),
        }
    }
    Ok(Place::Archive(Archive::open(&file)?, inner.join("/")))
}

fn not_found() -> io::Error {
    io::Error::new(
        ErrorKind::NotFound,
        "the archive holds no such path: `coreai-bundle inspect` shows what it holds",
    )
}

/// The archive that a path leads into, or is.
pub fn archive_of(path: &Path) -> Option<PathBuf> {
    let is_named =
        |path: &&Path| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("zip"));
    path.ancestors().filter(is_named).find(|path| path.is_file()).map(Path::to_owned)
}

/// Opens a regular file.
///
/// # Errors
/// If there is none, it is something else, or the archive is not one of `pack`.
pub fn open(path: &Path) -> io::Result<FileRange> {
    // An archive is a file, too, whoever made it.
    if archive_of(path).is_some_and(|file| file != path)
        && let Place::Archive(archive, inner) = place(path)?
    {
        let missing = || if archive.holds(&inner) { ErrorKind::IsADirectory.into() } else { not_found() };
        return archive.file(&inner).ok_or_else(missing);
    }
    FileRange::whole(small::open_regular(path)?)
}

/// The bytes of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open`], and if it is larger or cannot be read.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    match archive_of(path) {
        Some(_) => open(path)?.read(limit),
        None => small::read(path, limit),
    }
}

/// As [`read`], for UTF-8.
///
/// # Errors
/// As [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    String::from_utf8(read(path, limit)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "it is not UTF-8 text"))
}

/// What is in a folder or an archive, sorted by name.
///
/// # Errors
/// If it is neither, or cannot be read.
pub fn list(folder: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = match place(folder)? {
        Place::Archive(archive, inner) => archive.list(&inner).ok_or_else(not_found)?,
        Place::Disk => fs::read_dir(folder)?
            .map(|entry| {
                let entry = entry?;
                Ok(Entry { name: entry.file_name(), kind: Kind::of(&entry.metadata()?) })
            })
            .collect::<io::Result<Vec<_>>>()?,
    };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// What a path leads to, links followed. An archive is a folder.
///
/// # Errors
/// If there is nothing, or it cannot be looked at.
pub fn kind(path: &Path) -> io::Result<Kind> {
    match place(path)? {
        Place::Disk => Ok(Kind::of(&fs::metadata(path)?)),
        Place::Archive(archive, inner) => match archive.file(&inner) {
            Some(file) => Ok(Kind::File(file.length())),
            None if archive.holds(&inner) => Ok(Kind::Folder),
            None => Err(not_found()),
        },
    }
}

/// Whether a path leads to a regular file.
pub fn is_file(path: &Path) -> bool {
    matches!(kind(path), Ok(Kind::File(_)))
}

/// Whether a path leads to a folder or an archive.
pub fn is_folder(path: &Path) -> bool {
    matches!(kind(path), Ok(Kind::Folder))
}

/// Whether a path leads to anything.
pub fn exists(path: &Path) -> bool {
    kind(path).is_ok()
}

/// The absolute path without links; that of an archive is followed by the path in it.
///
/// # Errors
/// If there is nothing at the path.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    match archive_of(path) {
        None => path.canonicalize(),
        Some(file) => {
            kind(path)?;
            let whole = file.canonicalize()?;
            let inner = path.strip_prefix(&file).unwrap_or(Path::new(""));
            Ok(if inner.as_os_str().is_empty() { whole } else { whole.join(inner) })
        }
    }
}

#[cfg(test)]
mod tests;
