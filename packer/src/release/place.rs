//! Puts a member's files into their place in the release.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::ReleaseError;
use super::member::Member;
use crate::files::FileError;
use crate::manifest;

/// Files smaller than this are copied: they are what people edit, and a link would edit the original.
const LINKED: u64 = 1 << 20;

/// Links or copies the files that the manifest lists, and the manifest.
pub(super) fn member(member: &Member, target: &Path) -> Result<(), ReleaseError> {
    for file in &member.manifest.files {
        bring(&member.folder.join(&file.path), &target.join(&file.path), file.size >= LINKED)?;
    }
    bring(&member.folder.join(manifest::FILE_NAME), &target.join(manifest::FILE_NAME), false)
}

fn bring(from: &Path, to: &Path, is_large: bool) -> Result<(), ReleaseError> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(FileError::on("create the folder", folder))?;
    }
    if paths::archive_of(from).is_some() {
        return copy_out(from, to);
    }
    let kind = fs::symlink_metadata(from).map_err(FileError::on("look at", from))?;
    if !kind.is_file() {
        return Err(ReleaseError::WrongKind { path: from.to_owned(), found: "no regular file" });
    }
    // Another file system, or one without links: copy instead.
    if is_large && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map_err(FileError::on("copy", from))?;
    Ok(())
}

/// Copies a file out of an archive.
fn copy_out(from: &Path, to: &Path) -> Result<(), ReleaseError> {
    let mut reader = paths::open(from).map_err(FileError::on("open", from))?.reader();
    let mut file = File::create_new(to).map_err(FileError::on("create", to))?;
    io::copy(&mut reader, &mut file).map_err(FileError::on("copy", from))?;
    Ok(())
}
