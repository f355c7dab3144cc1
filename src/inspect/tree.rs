//! A folder as a tree with sizes.

use coreai_bundle::inspect::FolderEntry;

use super::Lines;
use crate::digits;
use crate::terminal::{self, shortened};

/// Columns of a size.
const SIZE: usize = 12;
/// Columns of names, at most.
const NAMES: usize = 72;

/// Adds the tree of a folder to the text.
pub(super) fn add(entries: &[FolderEntry], lines: &mut Lines) {
    let width = terminal::width().saturating_sub(SIZE).min(NAMES);
    draw(entries, "  ", width, lines);
}

fn draw(entries: &[FolderEntry], indent: &str, width: usize, lines: &mut Lines) {
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
