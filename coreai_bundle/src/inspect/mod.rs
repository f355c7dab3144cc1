//! What is in a checkpoint, a package, a bundle or a table folder.

mod checkpoint;
mod folder;
mod package;
mod page;
mod tree;
mod weights;

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;

pub use checkpoint::CheckpointSummary;
pub use folder::{BundleSummary, TablesSummary};
pub use package::{BlobSummary, GraphSummary, PackageSummary, PortSummary};
pub use page::write as write_page;
pub use tree::FolderEntry;
pub use weights::{WeightScales, WeightSummary, WeightValues};

use crate::origin::{self, Access, Opener};
use crate::runnable;

/// Parts of a package, or of a bundle's, that are shown on demand.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Whether every blob is listed.
    pub blobs: bool,
    /// Whether the ops are listed, with the names of weights.
    pub graph: bool,
    /// Only those of one layer.
    pub layer: Option<u64>,
    /// With the decompositions of composite ops.
    pub regions: bool,
    /// Whether the weights are read for their statistics.
    pub weights: bool,
    /// Package or bundle whose names the weights take where the graphs are alike.
    pub names: Option<PathBuf>,
}

impl Shown {
    /// Whether anything that only packages have was asked for.
    fn is_of_package(&self) -> bool {
        self.blobs || self.graph || self.weights || self.names.is_some()
    }
}

/// What was found.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "there is one of them")]
pub enum Inspected {
    /// A checkpoint.
    Checkpoint(CheckpointSummary),
    /// A package.
    Package(PackageSummary),
    /// A bundle.
    Bundle(BundleSummary),
    /// A table folder.
    Tables(TablesSummary),
}

/// Looks at what is at a path, or at a repository of the Hub.
///
/// # Errors
/// If it is none of these, or cannot be read.
pub fn inspect(path: &Path, access: &Access, shown: &Shown, opener: Opener<'_>) -> anyhow::Result<Inspected> {
    let holds = |name: &str| path.join(name).exists();
    if !path.exists() && path.to_str().is_some_and(origin::is_repository) {
        return CheckpointSummary::read(path, access, opener);
    }
    if !path.is_dir() {
        bail!(
            "{}: there is no such folder; give a checkpoint, a package, a bundle or a table folder",
            path.display()
        );
    }
    if holds(aimodel::package::PROGRAM) {
        return Ok(Inspected::Package(PackageSummary::read(
            path,
            shown,
            runnable::DEFAULT_CHUNK.get() as u64,
        )?));
    }
    let is_bundle = holds(packer::metadata::FILE_NAME);
    if shown.is_of_package() && !is_bundle {
        bail!("{}: --blobs, --graph, --weights and --names are for packages and bundles", path.display());
    }
    if holds(::checkpoint::config::CONFIG_FILE) {
        CheckpointSummary::read(path, access, opener)
    } else if holds("meta.json") {
        Ok(Inspected::Tables(TablesSummary::read(path)?))
    } else if is_bundle {
        Ok(Inspected::Bundle(BundleSummary::read(path, shown)?))
    } else {
        bail!(
            "{}: this is not a checkpoint (config.json), a package (main.mlirb), a bundle (metadata.json) \
             or a table folder (meta.json)",
            path.display()
        );
    }
}
