//! Outputs that would be, hold, or lie inside an input.
//!
//! Paths are compared by device and inode of every folder on the way, so that links, `..`, and names that differ in case alone on a
//! file system that ignores it make no difference.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Refuses an output at `target`, an absolute path, if it overlaps with `input`.
pub(super) fn refuse(target: &Path, input: &Path) -> Result<(), String> {
    let Some(input_id) = id(input) else { return Ok(()) };
    let (target, real_input) = (resolve(target), resolve(input));
    let target_id = id(&target);
    if target_id == Some(input_id) {
        return Err("is an input of this command: choose another output".to_owned());
    }
    let is_below =
        |path: &Path, folder| path.ancestors().skip(1).any(|ancestor| id(ancestor) == Some(folder));
    if is_below(&target, input_id) {
        return Err(format!("is inside the input {}: choose an output outside of it", input.display()));
    }
    if target_id.is_some_and(|target_id| is_below(&real_input, target_id)) {
        return Err(format!("holds the input {}: choose another output", input.display()));
    }
    Ok(())
}

/// The identity of a file, links followed.
fn id(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// The absolute path without links and `..`. Components that do not exist yet count as folders that will be made.
fn resolve(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let parts: Vec<Component<'_>> = path.components().collect();
    let existing = (0..=parts.len()).rev().find_map(|count| {
        let (there, missing) = parts.split_at(count);
        Some((fs::canonicalize(there.iter().collect::<PathBuf>()).ok()?, missing))
    });
    let Some((mut resolved, missing)) = existing else { return path };
    for part in missing {
        if *part == Component::ParentDir {
            resolved.pop();
        } else {
            resolved.push(part);
        }
    }
    // A `..` may have led back to something that exists.
    if missing.contains(&Component::ParentDir) { resolve(&resolved) } else { resolved }
}
