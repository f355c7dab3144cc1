//! What is in a checkpoint, a package, a bundle or a table folder.

mod checkpoint;
mod folder;
mod outputs;
mod package;
mod page;
mod tree;
mod weights;

use std::path::PathBuf;

use anyhow::{Context, bail};
use packer::contents::{self, FolderKind};
use serde::Serialize;

pub use checkpoint::CheckpointSummary;
pub use folder::{BundleSummary, TablesSummary};
pub use outputs::{MemberSummary, OutputsSummary};
pub use package::{BlobSummary, GraphSummary, PackageSummary, PortSummary};
pub use page::write as write_page;
pub use tree::FolderEntry;
pub use weights::{WeightScales, WeightSummary, WeightValues};

use crate::origin::{Access, Opener};
use crate::runnable;
use crate::source::SourceSpec;

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
    /// A folder of these, a release, or an archive.
    Outputs(OutputsSummary),
}

/// Looks at what is at a path, or at a repository of the Hub.
///
/// # Errors
/// If it is none of these, or cannot be read.
pub fn inspect(
    what: &SourceSpec,
    access: Access,
    shown: &Shown,
    opener: Opener<'_>,
) -> anyhow::Result<Inspected> {
    let Some(path) = what.path() else { return CheckpointSummary::read(what, access, opener) };
    paths::kind(path).with_context(|| format!("cannot look at {}", path.display()))?;
    let holds = |name: &str| paths::exists(&path.join(name));
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
        CheckpointSummary::read(what, access, opener)
    } else if holds("meta.json") {
        Ok(Inspected::Tables(TablesSummary::read(path)?))
    } else if is_bundle {
        Ok(Inspected::Bundle(BundleSummary::read(path, shown)?))
    } else if let Some(holds @ (FolderKind::Outputs | FolderKind::Release)) = contents::kind_of(path) {
        Ok(Inspected::Outputs(OutputsSummary::read(path, holds)?))
    } else {
        // What it is instead is said there.
        CheckpointSummary::read(what, access, opener)
    }
}
