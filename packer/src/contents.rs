//! What lies in a folder, a release or an archive: bundles, tables, packages.

use std::path::Path;

use aimodel::package::PROGRAM;
use serde::Serialize;

use crate::manifest::{Manifest, ManifestKind};
use crate::metadata as bundle_metadata;
use crate::tokenizer;

/// Folder of the bundles in a release.
pub(crate) const GRAPHS: &str = "gpu-pipelined";
/// Folder of the gather tables in a release.
pub(crate) const TABLES: &str = "ios-frontend";
/// Shapes and constants of tables.
pub(crate) const TABLES_META: &str = "meta.json";
/// The per-layer table, by which a folder is recognized.
pub(crate) const PER_LAYER: &str = "embed_per_layer.i8";
/// Suffix of Apple's own form of the per-layer table.
pub(crate) const SAFETENSORS: &str = "_ple.safetensors";
/// Suffix of a portable graph package.
pub(crate) const PORTABLE: &str = ".aimodel";
/// Suffix of an ahead-of-time compiled one.
pub(crate) const COMPILED: &str = ".aimodelc";

/// Most members of a folder.
const MOST: usize = 1000;

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FolderKind {
    /// A graph package on its own.
    Package,
    /// A bundle.
    Bundle,
    /// Gather tables.
    Tables,
    /// A release tree.
    Release,
    /// Several of these, such as what a conversion made.
    Outputs,
}

/// Something of a known kind in a folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Member {
    /// Its path in the folder, with `/` between components.
    pub path: String,
    /// What it is.
    pub kind: FolderKind,
}

/// Whether a name is that of a graph package.
pub(crate) fn is_asset(name: &str) -> bool {
    name.ends_with(PORTABLE) || name.ends_with(COMPILED)
}

/// Whether a name is that of a per-layer table.
fn is_table(name: &str) -> bool {
    name == PER_LAYER || name.ends_with(SAFETENSORS)
}

/// What the folder or archive at `path` is, by what it holds; None if it is not recognized.
pub fn kind_of(path: &Path) -> Option<FolderKind> {
    single_kind(path).or_else(|| (!members_below(path).is_empty()).then_some(FolderKind::Outputs))
}

/// What lies in a folder of outputs or in a release, sorted by path; nothing for every other kind.
pub fn members(path: &Path) -> Vec<Member> {
    match single_kind(path) {
        None => members_below(path),
        Some(FolderKind::Release) => {
            let part = |part: &str| {
                let found = members_below(&path.join(part)).into_iter();
                found
                    .map(|member| Member { path: format!("{part}/{}", member.path), ..member })
                    .collect::<Vec<_>>()
            };
            [part(GRAPHS), part(TABLES)].concat()
        }
        Some(_) => Vec::new(),
    }
}

/// Folders of a known kind in a folder; hidden ones are leftovers.
fn members_below(path: &Path) -> Vec<Member> {
    let entries = paths::list(path).unwrap_or_default();
    let names = entries.iter().filter_map(|entry| entry.name.to_str()).filter(|name| !name.starts_with('.'));
    let member = |name: &str| {
        let inside = path.join(name);
        // An archive is not followed where it is only found.
        let is_folder = paths::is_folder(&inside) && (paths::archive_of(&inside) == paths::archive_of(path));
        let kind = single_kind(&inside).filter(|_| is_folder)?;
        Some(Member { path: name.to_owned(), kind })
    };
    names.filter_map(member).take(MOST).collect()
}

/// What a folder is, if it is one thing.
fn single_kind(path: &Path) -> Option<FolderKind> {
    let entries = paths::list(path).ok()?;
    let names: Vec<String> = entries.iter().map(|entry| entry.name.to_string_lossy().into_owned()).collect();
    let has = |name: &str| names.iter().any(|found| found == name);
    let stated = Manifest::read(path).ok().map(|manifest| manifest.kind);
    if has(GRAPHS) || has(TABLES) || stated == Some(ManifestKind::Release) {
        Some(FolderKind::Release)
    } else if has(PROGRAM) {
        Some(FolderKind::Package)
    } else if names.iter().any(|name| is_asset(name))
        || stated == Some(ManifestKind::Bundle)
        || has(tokenizer::FOLDER)
    {
        Some(FolderKind::Bundle)
    } else if has(TABLES_META)
        || names.iter().any(|name| is_table(name))
        || stated == Some(ManifestKind::Tables)
    {
        Some(FolderKind::Tables)
    } else if has(bundle_metadata::FILE_NAME) {
        Some(FolderKind::Bundle)
    } else {
        None
    }
}
