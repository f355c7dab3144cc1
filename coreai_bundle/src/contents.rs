//! Bundles in folders of outputs, in releases and in archives: which one is meant, and what else is there.

use std::path::{Path, PathBuf};

use anyhow::bail;
use packer::contents::{FolderKind, Member, kind_of, members};
use packer::metadata::{BundleMetadata, MAIN_ASSET};
use text::terminal::word;

/// Members that an error lists.
const LISTED: usize = 20;

/// The bundle or package at a path: that itself, or the only one in a folder or archive.
///
/// # Errors
/// If the folder holds none that can be run here, or several: the error lists what lies in it, and how to name one.
pub fn one_bundle(path: &Path) -> anyhow::Result<PathBuf> {
    if let Some(archive) = paths::archive_of(path).filter(|archive| archive != path)
        && !paths::exists(path)
    {
        bail!("there is no {} in the archive, which holds{}", path.display(), listed(&archive));
    }
    if kind_of(path) == Some(FolderKind::Tables) {
        bail!("{} holds tables: give the bundle that they belong to", path.display());
    }
    let Some(found) = bundles_in(path) else { return Ok(path.to_owned()) };
    match &found[..] {
        [only] => Ok(only.clone()),
        [] => bail!("{} holds no bundle that can be run here; it holds{}", path.display(), listed(path)),
        _ => bail!("{} holds {} bundles: give one of them{}", path.display(), found.len(), listed(path)),
    }
}

/// The bundle at a path, or all in a folder or archive, where any number can be measured.
///
/// # Errors
/// If the folder holds none that can be run here.
pub fn all_bundles(path: &Path) -> anyhow::Result<Vec<PathBuf>> {
    match bundles_in(path) {
        None => Ok(vec![path.to_owned()]),
        Some(found) if found.is_empty() => one_bundle(path).map(|only| vec![only]),
        Some(found) => Ok(found),
    }
}

/// Bundles and tables to release: the folder itself, or all in a folder or archive.
pub fn parts_of_release(path: &Path) -> Vec<PathBuf> {
    if kind_of(path) != Some(FolderKind::Outputs) {
        return vec![path.to_owned()];
    }
    let is_part = |member: &Member| matches!(member.kind, FolderKind::Bundle | FolderKind::Tables);
    members(path).iter().filter(|member| is_part(member)).map(|member| path.join(&member.path)).collect()
}

/// Bundles that can be run here in a folder of several things; None for anything else, which is what was meant.
fn bundles_in(path: &Path) -> Option<Vec<PathBuf>> {
    if !matches!(kind_of(path), Some(FolderKind::Outputs | FolderKind::Release)) {
        return None;
    }
    let is_meant = |member: &Member| match member.kind {
        FolderKind::Bundle => !is_compiled(&path.join(&member.path)),
        FolderKind::Package => true,
        _ => false,
    };
    Some(
        members(path)
            .iter()
            .filter(|member| is_meant(member))
            .map(|member| path.join(&member.path))
            .collect(),
    )
}

/// Whether a bundle is for one kind of device, whose compiler made its graph.
fn is_compiled(bundle: &Path) -> bool {
    let metadata = BundleMetadata::read(bundle).ok();
    let main = metadata.and_then(|metadata| metadata.assets.get(MAIN_ASSET).cloned());
    main.is_some_and(|main| main.trim_end_matches('/').ends_with(".aimodelc"))
}

/// What lies in a folder, a line for each, as it is given to a command.
fn listed(path: &Path) -> String {
    let members = members(path);
    let mut text = String::new();
    for member in members.iter().take(LISTED) {
        let inside = path.join(&member.path);
        let noun = match member.kind {
            FolderKind::Bundle if is_compiled(&inside) => "bundle, compiled ahead of time",
            kind => noun(kind),
        };
        text.push_str(&format!("\n  {}  {noun}", word(&inside.display().to_string())));
    }
    match members.len().saturating_sub(LISTED) {
        0 => text,
        more => format!("{text}\n  and {more} more"),
    }
}

/// What something is called.
pub fn noun(kind: FolderKind) -> &'static str {
    match kind {
        FolderKind::Package => "package",
        FolderKind::Bundle => "bundle",
        FolderKind::Tables => "tables",
        FolderKind::Release => "release",
        FolderKind::Outputs => "outputs",
    }
}
