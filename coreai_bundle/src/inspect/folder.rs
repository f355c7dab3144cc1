//! Bundles and table folders: what their own files say.

use std::path::Path;

use anyhow::Context;
use packer::manifest::{self, Manifest};
use packer::metadata::{BundleMetadata, MAIN_ASSET};
use serde::Serialize;
use serde_json::Value;
use text::small;

use super::tree::{self, FolderEntry};
use super::{PackageSummary, Shown};
use crate::runnable;

/// What a bundle says about itself.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "bundle")]
pub struct BundleSummary {
    /// Its metadata.
    pub metadata: BundleMetadata,
    /// Its manifest, if it has one.
    pub manifest: Option<Manifest>,
    /// Its files.
    pub files: Vec<FolderEntry>,
    /// Its graph, if it names one.
    pub package: Option<PackageSummary>,
}

impl BundleSummary {
    pub(super) fn read(path: &Path, shown: &Shown) -> anyhow::Result<Self> {
        let metadata = BundleMetadata::read(path)?;
        let manifest = manifest_of(path)?;
        let files = tree::list(path)?;
        let main = metadata.assets.get(MAIN_ASSET);
        let chunk = runnable::chunk_of(&metadata);
        let package = main.map(|main| PackageSummary::read(&path.join(main), shown, chunk)).transpose()?;
        Ok(BundleSummary { metadata, manifest, files, package })
    }
}

/// What a table folder says about itself.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "tables")]
pub struct TablesSummary {
    /// Its `meta.json`.
    pub meta: Value,
    /// Its manifest, if it has one.
    pub manifest: Option<Manifest>,
    /// Its files.
    pub files: Vec<FolderEntry>,
}

impl TablesSummary {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let meta = path.join("meta.json");
        let text =
            paths::read(&meta, small::JSON).with_context(|| format!("cannot read {}", meta.display()))?;
        let meta: Value =
            serde_json::from_slice(&text).with_context(|| format!("{} is not JSON", meta.display()))?;
        Ok(TablesSummary { meta, manifest: manifest_of(path)?, files: tree::list(path)? })
    }
}

/// What the manifest of a folder says, if it has one.
fn manifest_of(path: &Path) -> anyhow::Result<Option<Manifest>> {
    let has_one = paths::exists(&path.join(manifest::FILE_NAME));
    Ok(has_one.then(|| Manifest::read(path)).transpose()?)
}
