//! A folder of outputs, a release or an archive: everything that lies in it.

use std::path::{Path, PathBuf};

use packer::contents::{self, FolderKind};
use packer::manifest::Manifest;
use packer::metadata::BundleMetadata;
use packer::verdict::Verdict;
use serde::Serialize;

use super::tree::{self, FolderEntry};

/// What lies in a folder.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "folder")]
pub struct OutputsSummary {
    /// The folder or archive.
    pub path: PathBuf,
    /// Whether it is a release or a folder of outputs.
    pub holds: FolderKind,
    /// Bundles, tables and packages in it.
    pub members: Vec<MemberSummary>,
    /// All files.
    pub files: Vec<FolderEntry>,
}

/// A bundle, a table folder or a package.
#[derive(Debug, Serialize)]
pub struct MemberSummary {
    /// Its path in the folder.
    pub path: String,
    /// What it is.
    pub kind: FolderKind,
    /// Bytes of its files.
    pub bytes: u64,
    /// Where its graph gets its per-layer rows, if its manifest says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How its weights are stored, if its metadata says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Whether it passed its gate, if that was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate_passed: Option<bool>,
}

impl OutputsSummary {
    pub(super) fn read(path: &Path, holds: FolderKind) -> anyhow::Result<Self> {
        let members = contents::members(path).into_iter().map(|member| MemberSummary::read(path, member));
        let members = members.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(OutputsSummary { path: path.to_owned(), holds, members, files: tree::list(path)? })
    }
}

impl MemberSummary {
    fn read(folder: &Path, member: contents::Member) -> anyhow::Result<Self> {
        let path = folder.join(&member.path);
        // What is wrong with a member is said where it is looked at itself.
        let manifest = Manifest::read(&path).ok();
        let metadata = BundleMetadata::read(&path).ok().filter(|_| member.kind == FolderKind::Bundle);
        let variant = manifest.as_ref().and_then(|manifest| manifest.conversion["variant"].as_str());
        Ok(MemberSummary {
            bytes: tree::list(&path)?.iter().map(|entry| entry.bytes).sum(),
            variant: variant.map(str::to_owned),
            weights: metadata.and_then(|metadata| Some(metadata.compression?.scheme)),
            gate_passed: manifest
                .as_ref()
                .and_then(|manifest| Verdict::of(&manifest.gate))
                .map(|verdict| verdict.passed),
            path: member.path,
            kind: member.kind,
        })
    }
}
