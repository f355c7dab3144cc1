//! Folders that may be replaced.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::files::{self, Kind};
use crate::manifest::{FILE_NAME, Manifest, ManifestKind};

/// Larger manifests were not written by this tool.
const LARGEST_MANIFEST: u64 = 64 << 20;

/// Whether a folder holds nothing but what this tool wrote into a folder of this kind.
pub(super) fn may_replace(folder: &Path, kind: ManifestKind) -> Result<(), String> {
    let entries = files::walk(folder).map_err(|error| format!("is not replaced: {error}"))?;
    if entries.is_empty() {
        return Ok(());
    }
    let manifest = manifest(folder).ok_or(
        "is not replaced, because it has no manifest.json of this tool: move it away or choose another output",
    )?;
    if manifest.kind != kind {
        let (found, wanted) = (manifest.kind.noun(), kind.noun());
        return Err(format!("is {found}, but the output is {wanted}: choose another output"));
    }
    let listed: HashSet<&str> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    let is_ours = |entry: &files::Entry| match entry.kind {
        Kind::Folder => true,
        Kind::File(_) => {
            entry.path == FILE_NAME
                || listed.contains(entry.path.as_str())
                || files::is_of_file_manager(entry.path.rsplit('/').next().unwrap_or_default())
        }
        Kind::Link | Kind::Special => false,
    };
    match entries.iter().find(|entry| !is_ours(entry)) {
        None => Ok(()),
        // Quoted: the name may hold anything.
        Some(foreign) => Err(format!(
            "is not replaced, because it holds {:?}, which is not in its manifest.json: move that away or choose another output",
            foreign.path
        )),
    }
}

/// The folder's manifest, if it is one.
fn manifest(folder: &Path) -> Option<Manifest> {
    let found = fs::symlink_metadata(folder.join(FILE_NAME)).ok()?;
    if !found.is_file() || found.len() > LARGEST_MANIFEST {
        return None;
    }
    Manifest::read(folder).ok()
}
