//! Finds the parts of a bundle that are needed to run it.

use std::path::{Path, PathBuf};

use aimodel::package::PROGRAM;
use serde::Deserialize;
use text::{names, small};

/// File of a bundle that names its assets.
const METADATA: &str = "metadata.json";
/// Folder of a bundle's tokenizer.
const TOKENIZER: &str = "tokenizer";

/// A folder that is neither a bundle nor a package.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The system refused to read a file.
    #[error("{path}: {source}; is this a bundle?", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// `metadata.json` does not name a main asset.
    #[error("{path}: {source}", path = path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The main asset cannot be run here.
    #[error("{path} cannot be run here: {reason}", path = path.display())]
    Asset {
        /// The asset.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
}

#[derive(Deserialize)]
struct Metadata {
    assets: Assets,
}

#[derive(Deserialize)]
struct Assets {
    main: String,
}

/// Paths of a bundle's parts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BundlePaths {
    /// The package (`X.aimodel`).
    pub package: PathBuf,
    /// Folder of the tokenizer; `None` if a bare package was given.
    pub tokenizer: Option<PathBuf>,
}

impl BundlePaths {
    /// Finds the parts of a bundle folder, or of a bare package.
    ///
    /// # Errors
    /// [`BundleError`] says what is missing, or that the asset is compiled ahead of time.
    pub fn find(path: &Path) -> Result<BundlePaths, BundleError> {
        if paths::is_file(&path.join(PROGRAM)) {
            return Ok(BundlePaths { package: path.to_owned(), tokenizer: None });
        }
        let file = path.join(METADATA);
        let json = paths::read(&file, small::JSON)
            .map_err(|source| BundleError::Io { path: file.clone(), source })?;
        let metadata: Metadata = serde_json::from_slice(&json)
            .map_err(|source| BundleError::Metadata { path: file.clone(), source })?;
        let package = path.join(&metadata.assets.main);
        if let Err(error) = names::path(metadata.assets.main.trim_end_matches('/')) {
            return Err(BundleError::Asset { path: package, reason: error.why });
        }
        if metadata.assets.main.ends_with(".aimodelc") {
            let reason =
                "it is compiled ahead of time for a device; give the bundle that it was compiled from";
            return Err(BundleError::Asset { path: package, reason });
        }
        if !paths::is_file(&package.join(PROGRAM)) {
            return Err(BundleError::Asset { path: package, reason: "it has no main.mlirb" });
        }
        Ok(BundlePaths { package, tokenizer: Some(path.join(TOKENIZER)) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn bundles_and_packages_are_found_and_other_folders_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(BundlePaths::find(dir.path()), Err(BundleError::Io { .. })));
        fs::write(dir.path().join(METADATA), r#"{"assets": {"main": "m.aimodel"}}"#).unwrap();
        assert!(matches!(BundlePaths::find(dir.path()), Err(BundleError::Asset { .. })));
        let package = dir.path().join("m.aimodel");
        fs::create_dir(&package).unwrap();
        fs::write(package.join(PROGRAM), "").unwrap();
        let found = BundlePaths::find(dir.path()).unwrap();
        assert_eq!(found.package, package);
        assert_eq!(found.tokenizer, Some(dir.path().join(TOKENIZER)));
        assert_eq!(BundlePaths::find(&package).unwrap().tokenizer, None);
        fs::write(dir.path().join(METADATA), r#"{"assets": {"main": "m.h18p.aimodelc"}}"#).unwrap();
        assert!(BundlePaths::find(dir.path()).unwrap_err().to_string().contains("ahead of time"));
        fs::write(dir.path().join(METADATA), r#"{"assets": {}}"#).unwrap();
        assert!(matches!(BundlePaths::find(dir.path()), Err(BundleError::Metadata { .. })));
    }
}
