//! Files of a folder: links, leftovers, strays, and what the manifest says about them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use output::Digest;
use rayon::prelude::*;
use text::names;

use super::context::{Context, Folder};
use super::rules;
use crate::FileError;
use crate::files::{self, Entry, Kind};
use crate::manifest::{FILE_NAME, FileRecord, Manifest};

/// The regular files of a folder and its manifest.
pub(super) struct Contents {
    /// Size by relative path, leftovers not counted.
    pub(super) files: BTreeMap<String, u64>,
    pub(super) manifest: Option<Manifest>,
}

/// Checks the rules for every folder. `expected` says which files belong there when no manifest lists them.
pub(super) fn check(
    context: &mut Context<'_>,
    folder: &Folder,
    expected: &dyn Fn(&str) -> bool,
) -> Result<Contents, FileError> {
    let mut files = BTreeMap::new();
    let mut leftovers = BTreeSet::new();
    for entry in files::walk(&folder.path)? {
        if files::is_leftover(&entry.path) {
            leftovers.insert(leftover_root(&entry.path));
        } else if let Some(size) = regular_size(context, folder, &entry) {
            if size == 0 {
                context.report(&rules::FILE_EMPTY, folder, &entry.path, "the file is empty");
            }
            files.insert(entry.path, size);
        }
    }
    for leftover in leftovers {
        context.report(
            &rules::FILE_LEFTOVER,
            folder,
            &leftover,
            "a leftover of another program or of a killed run",
        );
    }
    if let Err(collision) = names::distinct(files.keys().map(String::as_str)) {
        context.report(&rules::FILE_IRREGULAR, folder, &collision.second, collision.to_string());
    }
    let manifest = manifest(context, folder);
    let listed: Option<BTreeSet<&str>> =
        manifest.as_ref().map(|manifest| manifest.files.iter().map(|file| file.path.as_str()).collect());
    for path in files.keys().filter(|path| *path != FILE_NAME) {
        match &listed {
            Some(listed) if !listed.contains(path.as_str()) => {
                context.report(
                    &rules::MANIFEST_UNLISTED,
                    folder,
                    path,
                    "the manifest does not list the file",
                );
            }
            None if !expected(path) => {
                context.report(&rules::FILE_UNEXPECTED, folder, path, "the file is not part of the folder");
            }
            _ => {}
        }
    }
    if let Some(manifest) = &manifest {
        compare(context, folder, &files, &manifest.files)?;
    }
    Ok(Contents { files, manifest })
}

/// The size of a regular file; anything else is reported, folders aside.
fn regular_size(context: &mut Context<'_>, folder: &Folder, entry: &Entry) -> Option<u64> {
    match entry.kind {
        Kind::Link => {
            context.report(&rules::FILE_SYMLINK, folder, &entry.path, "a symbolic link, not a file");
        }
        Kind::Special => {
            context.report(&rules::FILE_IRREGULAR, folder, &entry.path, "neither a file nor a folder");
        }
        _ if !entry.is_utf8 => {
            context.report(&rules::FILE_IRREGULAR, folder, &entry.path, "the name is not UTF-8");
        }
        Kind::File(size) => {
            if let Err(error) = names::path(&entry.path) {
                context.report(&rules::FILE_IRREGULAR, folder, &entry.path, error.to_string());
            }
            return Some(size);
        }
        Kind::Folder => {}
    }
    None
}

/// The outermost part of a path that is a leftover.
fn leftover_root(path: &str) -> String {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    let mut roots = ends.filter_map(|end| path.get(..end));
    roots.find(|root| files::is_leftover(root)).unwrap_or(path).to_owned()
}

fn manifest(context: &mut Context<'_>, folder: &Folder) -> Option<Manifest> {
    if !paths::is_file(&folder.path.join(FILE_NAME)) {
        return None;
    }
    match Manifest::read(&folder.path) {
        Ok(manifest) => Some(manifest),
        Err(e) => {
            context.report(&rules::MANIFEST_UNREADABLE, folder, FILE_NAME, e.to_string());
            None
        }
    }
}

fn compare(
    context: &mut Context<'_>,
    folder: &Folder,
    found: &BTreeMap<String, u64>,
    records: &[FileRecord],
) -> Result<(), FileError> {
    let mut whole = Vec::new();
    for record in records {
        match found.get(&record.path) {
            // Reported as such already.
            None if files::is_leftover(&record.path) => {}
            None => {
                let what = "the manifest lists the file, but it is missing";
                context.report(&rules::MANIFEST_FILE_MISSING, folder, &record.path, what);
            }
            Some(&size) if size != record.size => {
                let what = format!("{size} bytes, the manifest says {}", record.size);
                context.report(&rules::MANIFEST_SIZE, folder, &record.path, what);
            }
            Some(_) => whole.push(record),
        }
    }
    if context.options.digests {
        compare_digests(context, folder, &whole)?;
    }
    Ok(())
}

fn compare_digests(
    context: &mut Context<'_>,
    folder: &Folder,
    records: &[&FileRecord],
) -> Result<(), FileError> {
    let paths: Vec<PathBuf> = records.iter().map(|record| folder.path.join(&record.path)).collect();
    let unknown: Vec<&PathBuf> = paths.iter().filter(|path| !context.knows(path)).collect();
    let computed: Vec<(PathBuf, Digest)> = unknown
        .into_par_iter()
        .map(|path| Ok((path.clone(), files::measure(path)?.digest)))
        .collect::<Result<_, FileError>>()?;
    context.remember(computed);
    for (record, path) in records.iter().zip(&paths) {
        let digest = context.digest(path)?;
        if digest != record.sha256 {
            let what = format!("SHA-256 {digest}, the manifest says {}", record.sha256);
            context.report(&rules::MANIFEST_DIGEST, folder, &record.path, what);
        }
    }
    Ok(())
}
