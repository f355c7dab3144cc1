//! A folder as a tree with sizes.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::Lines;
use crate::digits;
use crate::terminal::{self, shortened};

/// Columns of a size.
const SIZE: usize = 12;
/// Columns of names, at most.
const NAMES: usize = 72;

/// Something in a folder.
struct Entry {
    name: String,
    bytes: u64,
    /// What is in it, if it is a folder.
    entries: Option<Vec<Entry>>,
}

/// Adds the tree of a folder to the text, and gives it as JSON.
pub(super) fn add(path: &Path, lines: &mut Lines) -> anyhow::Result<Value> {
    let entries = list(path)?;
    let width = terminal::width().saturating_sub(SIZE).min(NAMES);
    draw(&entries, "  ", width, lines);
    Ok(json(&entries))
}

fn list(folder: &Path) -> anyhow::Result<Vec<Entry>> {
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
        entries.push(Entry { name, bytes, entries: inner });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn draw(entries: &[Entry], indent: &str, width: usize, lines: &mut Lines) {
    for (at, entry) in entries.iter().enumerate() {
        let last = at + 1 == entries.len();
        let (branch, further) = if last { ("└── ", "    ") } else { ("├── ", "│   ") };
        let slash = if entry.entries.is_some() { "/" } else { "" };
        let room = width.saturating_sub(indent.chars().count() + 4);
        let name = shortened(&format!("{}{slash}", entry.name), room);
        let size = digits::bytes(entry.bytes);
        lines.add(format!("{indent}{branch}{name:<room$}{size:>SIZE$}"));
        if let Some(inner) = &entry.entries {
            draw(inner, &format!("{indent}{further}"), width, lines);
        }
    }
}

fn json(entries: &[Entry]) -> Value {
    let one = |entry: &Entry| {
        let mut value = json!({"name": entry.name, "bytes": entry.bytes});
        if let Some(inner) = &entry.entries {
            value["entries"] = json(inner);
        }
        value
    };
    entries.iter().map(one).collect()
}
