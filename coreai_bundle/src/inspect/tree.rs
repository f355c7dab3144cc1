//! A folder as a tree with sizes.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;

/// Something in a folder.
#[derive(Debug, Serialize)]
pub struct FolderEntry {
    /// Its name.
    pub name: String,
    /// Its bytes, with everything in it.
    pub bytes: u64,
    /// What is in it, if it is a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<Vec<FolderEntry>>,
}

/// Everything in a folder, by name.
pub(super) fn list(folder: &Path) -> anyhow::Result<Vec<FolderEntry>> {
    let told = || format!("cannot list {}", folder.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).with_context(told)? {
        let path = entry.with_context(told)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let metadata =
            path.symlink_metadata().with_context(|| format!("cannot look at {}", path.display()))?;
        let inner = metadata.is_dir().then(|| list(&path)).transpose()?;
        let bytes =
            inner.as_ref().map_or(metadata.len(), |inner| inner.iter().map(|entry| entry.bytes).sum());
        entries.push(FolderEntry { name, bytes, entries: inner });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}
