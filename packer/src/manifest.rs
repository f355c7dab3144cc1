//! `manifest.json`: size and SHA-256 of every file of a bundle, a table folder or a release, and where they
//! come from.
//!
//! Bundles and tables that belong together carry one stamp, the *tables digest*. An engine that is given
//! the tables of another checkpoint with the same shape notices nothing, so `check` compares the stamps.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use output::Digest;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use text::names::{self, Collision, NameError};

use crate::FileError;
use crate::files::{self, Kind};

/// File name inside the folder that the manifest describes.
pub const FILE_NAME: &str = "manifest.json";
/// Version of the schema below.
pub const VERSION: u32 = 1;
/// Key of [`Manifest::conversion`] that lists the functions of the graph, each with its name, the tokens of a call, and the multiply-adds
/// and bytes of weights for a token. Absent if a call takes one token.
pub const FUNCTIONS: &str = "functions";

/// Why a manifest cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text is not the expected JSON.
    #[error("{} is not a manifest: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A name that would be another file on other systems, or leads out of the folder.
    #[error("{}: {source}", path.display())]
    Name {
        /// The folder, or its manifest.
        path: PathBuf,
        /// Which, and why.
        source: NameError,
    },
    /// Two names that would be the same file on other systems.
    #[error("{}: {source}", path.display())]
    Collision {
        /// The folder, or its manifest.
        path: PathBuf,
        /// Which.
        source: Collision,
    },
    /// Something in the folder cannot be listed: a link, a device, a name that is not UTF-8.
    #[error("{} {what}: bundles hold regular files with UTF-8 names only", path.display())]
    Irregular {
        /// What was found.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// What a manifest describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ManifestKind {
    /// A bundle folder.
    Bundle,
    /// A folder of gather tables.
    Tables,
    /// A release tree.
    Release,
}

impl ManifestKind {
    /// In words, with an article.
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Bundle => "a bundle",
            Self::Tables => "a table folder",
            Self::Release => "a release",
        }
    }
}

/// One file of the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Path relative to the folder, with `/` between components.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the content.
    pub sha256: Digest,
}

/// One file of the checkpoint. The digest is absent where only parts of the file were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Path in the repository.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Digest of the content, if it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// Whether weights were compared with the digests that the Hub states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WeightsCheck {
    /// Whole files were, before they were used.
    #[serde(rename = "verified against the Hub's digest")]
    Verified,
    /// They were read in parts, which have no digests of their own.
    #[serde(rename = "not verified against the Hub's digest")]
    NotVerified,
}

impl WeightsCheck {
    /// The result of a comparison, or of none.
    pub fn of(verified: bool) -> Self {
        if verified { Self::Verified } else { Self::NotVerified }
    }
}

/// Where the weights come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// Repository id; None for a folder of unknown origin.
    pub repository: Option<String>,
    /// Commit.
    pub revision: Option<String>,
    /// Whether the weights that were read are those that the Hub has; absent where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsCheck>,
    /// The checkpoint's files.
    pub files: Vec<SourceFile>,
}

/// Which portable graph an ahead-of-time compiled one was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CompiledFrom {
    /// Name of the source bundle, a sibling folder in a release.
    pub bundle: String,
    /// SHA-256 of the source's `main.mlirb`.
    pub main_sha256: Digest,
    /// Architecture, such as `h18p`.
    pub architecture: String,
    /// Tool versions and flags, as the compiling stage records them.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub toolchain: Value,
}

/// What the maker of a folder knows besides its files.
#[derive(Clone, Debug, Default)]
pub struct Provenance {
    /// Name and version of the tool.
    pub tool: String,
    /// Where the weights come from.
    pub source: Option<SourceRecord>,
    /// Rule and measurements, free-form.
    pub conversion: Value,
    /// Checksums of the tensors that were read, by their names.
    pub checksums: BTreeMap<String, String>,
    /// The gate's report; null if it was not run.
    pub gate: Value,
    /// The stamp of the tables that belong to the folder.
    pub tables_digest: Option<Digest>,
    /// For compiled bundles.
    pub compiled_from: Option<CompiledFrom>,
    /// For releases: what makes the same bytes again; null if it is not known.
    pub recipe: Value,
}

/// The whole file. Keys that this project does not know are kept, after the known ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`VERSION`].
    pub manifest_version: u32,
    /// What the folder is.
    pub kind: ManifestKind,
    /// The folder's name.
    pub name: String,
    /// Name and version of the tool that made the folder.
    pub tool: String,
    /// Where the weights come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceRecord>,
    /// Rule and measurements, free-form.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub conversion: Value,
    /// CRC-32 of the tensors that were read, by their names: trainings of one model differ in them. Those of bundles that were
    /// made with tables include what the tables were made from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub checksums: BTreeMap<String, String>,
    /// The gate's report.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub gate: Value,
    /// How far the bundle is from its checkpoint on a text, as `eval --record` found.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub evaluation: Value,
    /// The stamp that ties tables and bundles; see [`tables_digest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables_digest: Option<Digest>,
    /// For compiled bundles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled_from: Option<CompiledFrom>,
    /// For releases that `build` made: what makes the same bytes again.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub recipe: Value,
    /// Every file but the manifest itself, sorted by path.
    pub files: Vec<FileRecord>,
    /// Unknown keys, kept.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Manifest {
    /// A manifest of `files`, which [`collect`] found.
    pub fn new(kind: ManifestKind, name: &str, provenance: Provenance, files: Vec<FileRecord>) -> Self {
        Self {
            manifest_version: VERSION,
            kind,
            name: name.to_owned(),
            tool: provenance.tool,
            source: provenance.source,
            conversion: provenance.conversion,
            checksums: provenance.checksums,
            gate: provenance.gate,
            evaluation: Value::Null,
            tables_digest: provenance.tables_digest,
            compiled_from: provenance.compiled_from,
            recipe: provenance.recipe,
            files,
            other: Map::new(),
        }
    }

    /// A tensor that two folders were both made from, but with different weights: trainings of one model have the same shapes, so
    /// nothing else tells them apart.
    pub fn differing_weights(&self, other: &Self) -> Option<&str> {
        let differs = |(tensor, sum): &(&String, &String)| {
            other.checksums.get(*tensor).is_some_and(|of_other| of_other != *sum)
        };
        self.checksums.iter().find(differs).map(|(tensor, _)| tensor.as_str())
    }

    /// Reads the manifest of `folder`.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn read(folder: &Path) -> Result<Self, ManifestError> {
        let path = folder.join(FILE_NAME);
        let bytes = files::read_json(&path)?;
        let manifest: Self = serde_json::from_slice(&bytes)
            .map_err(|source| ManifestError::Json { path: path.clone(), source })?;
        // A release may have any name; bundles and tables become a folder of that name.
        if manifest.kind != ManifestKind::Release {
            names::component(&manifest.name)
                .map_err(|source| ManifestError::Name { path: path.clone(), source })?;
        }
        check_names(&path, &manifest.files)?;
        Ok(manifest)
    }

    /// Writes the manifest into `folder`: two-space indentation, a final newline.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), ManifestError> {
        let path = folder.join(FILE_NAME);
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|source| ManifestError::Json { path: path.clone(), source })?;
        bytes.push(b'\n');
        Ok(files::write(&path, &bytes)?)
    }
}

/// Size and digest of every file below `folder` except its own manifest, sorted by path. Files in `known`,
/// hashed while they were written, are not read again if their size is still the recorded one.
///
/// # Errors
/// When the folder holds something other than regular files and folders, or a file cannot be read.
pub fn collect(folder: &Path, known: &[FileRecord]) -> Result<Vec<FileRecord>, ManifestError> {
    let known: BTreeMap<&str, &FileRecord> =
        known.iter().map(|record| (record.path.as_str(), record)).collect();
    let mut listed = Vec::new();
    for entry in files::walk(folder)? {
        let irregular = |what| ManifestError::Irregular { path: folder.join(&entry.path), what };
        if !entry.is_utf8 {
            return Err(irregular("has a name that is not UTF-8"));
        }
        match entry.kind {
            Kind::Folder => {}
            Kind::File(_) if entry.path == FILE_NAME => {}
            Kind::File(size) => listed.push((entry.path, size)),
            Kind::Link => return Err(irregular("is a symbolic link")),
            Kind::Special => return Err(irregular("is neither a file nor a folder")),
        }
    }
    listed
        .into_par_iter()
        .map(|(path, size)| match known.get(path.as_str()) {
            Some(record) if record.size == size => Ok((*record).clone()),
            _ => {
                let file = files::measure(&folder.join(&path))?;
                Ok(FileRecord { path, size: file.bytes, sha256: file.digest })
            }
        })
        .collect()
}

/// Refuses names that are not the same file on every system.
fn check_names(path: &Path, files: &[FileRecord]) -> Result<(), ManifestError> {
    let path = || path.to_owned();
    let mut paths = files.iter().map(|file| file.path.as_str());
    paths.try_for_each(names::path).map_err(|source| ManifestError::Name { path: path(), source })?;
    names::distinct(files.iter().map(|file| file.path.as_str()))
        .map_err(|source| ManifestError::Collision { path: path(), source })
}

/// Describes a finished folder: collects its files and writes its manifest. A folder of tables gets the digest
/// of its files as its stamp.
///
/// # Errors
/// As [`collect`] and [`Manifest::write`].
pub fn seal(
    folder: &Path,
    kind: ManifestKind,
    name: &str,
    mut provenance: Provenance,
    known: &[FileRecord],
) -> Result<Manifest, ManifestError> {
    let files = collect(folder, known)?;
    check_names(folder, &files)?;
    if kind == ManifestKind::Tables {
        provenance.tables_digest = Some(tables_digest(&files));
    }
    let manifest = Manifest::new(kind, name, provenance, files);
    manifest.write(folder)?;
    Ok(manifest)
}

/// The stamp of a table set: SHA-256 of the lines `<sha256>  <path>\n` of its files in order of their paths,
/// which is what `sha256sum * | sha256sum` prints in the folder (without the manifest, in the C locale).
pub fn tables_digest(files: &[FileRecord]) -> Digest {
    let mut sorted: Vec<&FileRecord> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut lines = String::new();
    for file in sorted {
        // Writing to a String cannot fail.
        let _ = writeln!(lines, "{}  {}", file.sha256, file.path);
    }
    Digest::of_bytes(lines.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn folder_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn every_file_but_the_manifest_is_listed_in_order() {
        let folder = folder_with(&[
            ("b", "1"),
            ("a/z", "22"),
            ("a/b", ""),
            ("manifest.json", "{}"),
            ("a/manifest.json", "3"),
        ]);
        let files = collect(folder.path(), &[]).unwrap();
        let listed: Vec<_> = files.iter().map(|f| (f.path.as_str(), f.size)).collect();
        assert_eq!(listed, [("a/b", 0), ("a/manifest.json", 1), ("a/z", 2), ("b", 1)]);
        assert_eq!(files[2].sha256, Digest::of_bytes(b"22"));
    }

    #[test]
    fn known_files_are_not_read_again_unless_their_size_differs() {
        let folder = folder_with(&[("kept", "123"), ("grown", "1234")]);
        let mark = Digest::of_bytes(b"hashed while it was written");
        let known = ["kept", "grown"].map(|path| FileRecord { path: path.into(), size: 3, sha256: mark });
        let files = collect(folder.path(), &known).unwrap();
        assert_eq!(files[0].sha256, Digest::of_bytes(b"1234"));
        assert_eq!(files[1].sha256, mark);
    }

    #[test]
    fn links_are_refused() {
        let folder = folder_with(&[("real", "x")]);
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        let error = collect(folder.path(), &[]).unwrap_err();
        assert!(error.to_string().contains("link is a symbolic link"), "{error}");
    }

    #[test]
    fn sealed_folder_is_read_back_with_unknown_keys() {
        let folder = folder_with(&[("meta.json", "{}"), ("proj.f32", "....")]);
        let provenance = Provenance {
            tool: "coreai-bundle 0.1.0".into(),
            source: Some(SourceRecord { repository: Some("o/n".into()), ..SourceRecord::default() }),
            conversion: serde_json::json!({"rule": "lattice", "blocks": 3}),
            ..Provenance::default()
        };
        let sealed = seal(folder.path(), ManifestKind::Tables, "tables", provenance, &[]).unwrap();
        assert_eq!(sealed.tables_digest, Some(tables_digest(&sealed.files)));
        assert_eq!(Manifest::read(folder.path()).unwrap(), sealed);

        let text = fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        fs::write(folder.path().join(FILE_NAME), text.replacen('{', "{\"later\": [1],", 1)).unwrap();
        let read = Manifest::read(folder.path()).unwrap();
        read.write(folder.path()).unwrap();
        assert_eq!(Manifest::read(folder.path()).unwrap().other["later"], serde_json::json!([1]));
    }

    #[test]
    fn tables_digest_is_that_of_the_listing() {
        let record = |path: &str, content: &[u8]| FileRecord {
            path: path.into(),
            size: content.len() as u64,
            sha256: Digest::of_bytes(content),
        };
        let files = [record("b", b"2"), record("a", b"1")];
        let listing = format!("{}  a\n{}  b\n", Digest::of_bytes(b"1"), Digest::of_bytes(b"2"));
        assert_eq!(tables_digest(&files), Digest::of_bytes(listing.as_bytes()));
    }
}
