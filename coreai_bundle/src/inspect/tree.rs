//! A folder as a tree with sizes.

use std::path::Path;

use anyhow::Context;
use paths::Kind;
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
    for paths::Entry { name, kind } in paths::list(folder).with_context(told)? {
        let inner = (kind == Kind::Folder).then(|| list(&folder.join(&name))).transpose()?;
        let own = if let Kind::File(bytes) = kind { bytes } else { 0 };
        let bytes = inner.as_ref().map_or(own, |inner| inner.iter().map(|entry| entry.bytes).sum());
        entries.push(FolderEntry { name: name.to_string_lossy().into_owned(), bytes, entries: inner });
    }
    Ok(entries)
}
