//! A bundle or a table folder to release.

use std::path::{Path, PathBuf};

use super::ReleaseError;
use crate::manifest::{Manifest, ManifestKind};
use crate::metadata::BundleMetadata;

/// A folder with what its files say about it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) folder: PathBuf,
    /// Name that it has in the release.
    pub(super) name: String,
    pub(super) manifest: Manifest,
    /// Of a bundle.
    pub(super) metadata: Option<BundleMetadata>,
}

impl Member {
    /// Reads the manifest, which must be of that kind, and the metadata of a bundle.
    pub(super) fn read(folder: &Path, kind: ManifestKind) -> Result<Self, ReleaseError> {
        let manifest = Manifest::read(folder)?;
        if manifest.kind != kind {
            let found = match manifest.kind {
                ManifestKind::Bundle => "a bundle, not a table folder",
                ManifestKind::Tables => "a table folder, not a bundle",
                ManifestKind::Release => "a release already",
            };
            return Err(ReleaseError::WrongKind { path: folder.to_owned(), found });
        }
        let metadata = (kind == ManifestKind::Bundle).then(|| BundleMetadata::read(folder)).transpose()?;
        Ok(Member { folder: folder.to_owned(), name: manifest.name.clone(), manifest, metadata })
    }

    /// The checkpoint, for messages.
    pub(super) fn source_in_words(&self) -> String {
        let Some(source) = &self.manifest.source else { return "an unknown checkpoint".to_owned() };
        let repository = source.repository.as_deref().unwrap_or("a folder");
        match &source.revision {
            Some(revision) => format!("{repository} at {revision}"),
            None => format!("{repository} without a revision, whose files differ"),
        }
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.size).sum()
    }
}
