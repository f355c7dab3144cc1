//! Walking folders and reading files, with errors that name the path.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use output::WrittenFile;
pub(crate) use paths::Kind;
use text::small;

/// A file system operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    /// The operation, as a verb.
    pub action: &'static str,
    /// On which path.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn on(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { action, path: path.to_path_buf(), source }
    }
}

/// Size and digest of the file at `path`.
///
/// # Errors
/// When it cannot be read.
pub fn measure(path: &Path) -> Result<WrittenFile, FileError> {
    let file = paths::open(path).map_err(FileError::on("open", path))?;
    WrittenFile::of_reader(file.reader()).map_err(FileError::on("read", path))
}

/// One entry below a folder.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Path relative to the folder that was walked, with `/` between components. A name that is not UTF-8 has
    /// its bad bytes replaced and [`Entry::is_utf8`] false.
    pub(crate) path: String,
    /// What it is, links not followed.
    pub(crate) kind: Kind,
    pub(crate) is_utf8: bool,
}

/// Everything below `root`, sorted by path, links not followed.
pub(crate) fn walk(root: &Path) -> Result<Vec<Entry>, FileError> {
    let mut entries = Vec::new();
    walk_into(root, "", &mut entries)?;
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

fn walk_into(folder: &Path, prefix: &str, entries: &mut Vec<Entry>) -> Result<(), FileError> {
    for paths::Entry { name, kind } in paths::list(folder).map_err(FileError::on("list", folder))? {
        let path = format!("{prefix}{}", name.to_string_lossy());
        if kind == Kind::Folder {
            walk_into(&folder.join(&name), &format!("{path}/"), entries)?;
        }
        entries.push(Entry { path, kind, is_utf8: name.to_str().is_some() });
    }
    Ok(())
}

/// Reads a whole JSON file.
pub(crate) fn read_json(path: &Path) -> Result<Vec<u8>, FileError> {
    paths::read(path, small::JSON).map_err(FileError::on("read", path))
}

/// Writes a whole small file.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    fs::write(path, bytes).map_err(FileError::on("write", path))
}

/// Whether a file is a leftover that belongs to no release: a file manager's, or of a run that was killed.
/// `path` is relative, with `/` between components.
pub(crate) fn is_leftover(path: &str) -> bool {
    path.split('/').any(|name| {
        is_of_file_manager(name) || matches!(name, "__MACOSX" | ".git" | ".cache") || is_partial(name)
    })
}

/// Whether a file manager leaves a file of this name in folders that it shows.
pub(crate) fn is_of_file_manager(name: &str) -> bool {
    matches!(name, ".DS_Store" | "Thumbs.db" | "desktop.ini") || name.starts_with("._")
}

/// Whether `name` is that of a staged output ([`output::Guard`]) or of another tool's unfinished download.
pub(crate) fn is_partial(name: &str) -> bool {
    (name.starts_with('.') && (name.contains(".partial-") || name.contains(".replaced-")))
        || [".incomplete", ".part", ".crdownload", ".tmp"].iter().any(|suffix| name.ends_with(suffix))
}
