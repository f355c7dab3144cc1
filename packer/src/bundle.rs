//! Assembly of a complete bundle folder around a finished graph package.

use std::fs;
use std::path::{Path, PathBuf};

use output::StagedDirectory;

use crate::FileError;
use crate::files;
use crate::manifest::{self, FileRecord, Manifest, ManifestError, ManifestKind, Provenance};
use crate::metadata::{BundleMetadata, MetadataError};
use crate::tokenizer::{self, PreparedTokenizer};

/// Why a bundle could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// `metadata.json` could not be written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The files could not be listed and hashed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An asset that the metadata names is not in the folder.
    #[error("the asset '{role}' of metadata.json is not there: {}", path.display())]
    NoAsset {
        /// Key in `assets`.
        role: String,
        /// Where it should be.
        path: PathBuf,
    },
}

/// What goes into a bundle besides its graph package.
#[derive(Debug)]
pub struct BundleParts {
    /// `metadata.json`; the stamp of the tables is taken from `provenance`.
    pub metadata: BundleMetadata,
    /// `tokenizer/`.
    pub tokenizer: PreparedTokenizer,
    /// What the manifest records besides the files.
    pub provenance: Provenance,
    /// Files that were hashed while they were written, paths relative to the bundle.
    pub known_files: Vec<FileRecord>,
}

/// Completes the bundle in `folder`, which holds the graph package already: writes the tokenizer, the metadata
/// and, last, the manifest. Publishing it is the caller's `commit`.
///
/// # Errors
/// When an asset is missing, the folder holds a link, or a file cannot be written.
pub fn assemble(folder: &StagedDirectory, parts: BundleParts) -> Result<Manifest, BundleError> {
    let BundleParts { mut metadata, tokenizer, provenance, known_files } = parts;
    let root = folder.path();
    for (role, file) in &metadata.assets {
        let path = root.join(file);
        if !path.is_dir() {
            return Err(BundleError::NoAsset { role: role.clone(), path });
        }
    }
    if let Some(digest) = &provenance.tables_digest {
        metadata.set_tables_digest(digest);
    }
    write_tokenizer(root, &tokenizer)?;
    metadata.write(root)?;
    Ok(manifest::seal(root, ManifestKind::Bundle, &metadata.name, provenance, &known_files)?)
}

fn write_tokenizer(root: &Path, tokenizer: &PreparedTokenizer) -> Result<(), FileError> {
    let folder = root.join(tokenizer::FOLDER);
    fs::create_dir_all(&folder).map_err(FileError::on("create the folder", &folder))?;
    tokenizer.files.iter().try_for_each(|(name, bytes)| files::write(&folder.join(name), bytes))
}
