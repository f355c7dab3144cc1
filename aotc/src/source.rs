//! The bundle that is compiled.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use output::Digest;
use packer::manifest::{self, FileRecord, Manifest};
use packer::metadata::{BundleMetadata, MAIN_ASSET};
use text::terminal::word;
use text::{names, small};

use crate::error::Error;

/// File of a package that holds its program.
const PROGRAM: &str = "main.mlirb";
/// File of a package, and of an artifact, that holds the SHA-256 of its program.
pub(crate) const HASH: &str = "main.hash";
/// Extension of a package that can be compiled.
const EXTENSION: &str = "aimodel";

/// The compiler writes the artifact, up to twice the package where that was published. Its work files have not been
/// measured: they are taken to need as much again.
const SPACE_TIMES: u64 = 4;
const SPACE_EXTRA: u64 = 64 << 20;

/// A bundle with a portable graph that was read completely and is undamaged.
#[derive(Debug)]
pub struct SourceBundle {
    /// The bundle's folder, absolute.
    pub path: PathBuf,
    /// The folder's name.
    pub name: String,
    /// `metadata.json`.
    pub metadata: BundleMetadata,
    /// `manifest.json`, where there is one.
    pub manifest: Option<Manifest>,
    /// Every file that belongs to it, sorted by path.
    pub files: Vec<FileRecord>,
    /// Files that are not in the manifest: they are not copied to a compiled bundle.
    pub strays: Vec<String>,
    /// File name of the graph package, `<stem>.aimodel`.
    pub package: String,
    /// The package's name without its extension.
    pub stem: String,
    /// Digest of the package's program, as in its `main.hash`.
    pub program_sha256: Digest,
    /// When the program was written.
    pub modified: SystemTime,
    /// Digest of the listing of all files, so of everything in the bundle except its manifest.
    pub digest: Digest,
}

impl SourceBundle {
    /// Reads and hashes the bundle at `path`.
    ///
    /// # Errors
    /// [`Error::NotCompilable`] for a folder without a portable graph, [`Error::DamagedSource`] for one whose program
    /// does not match its digest.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let path = absolute(path)?;
        let refused = |reason: String| Error::NotCompilable { path: path.clone(), reason };
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| refused("its name is not UTF-8".into()))?.to_owned();
        if !path.is_dir() {
            return Err(refused("it is not a folder".into()));
        }
        let metadata = BundleMetadata::read(&path)?;
        let package = package_name(&metadata).map_err(&refused)?;
        let folder = path.join(&package);
        if !folder.is_dir() {
            return Err(refused(format!(
                "assets.main of its metadata.json names {package}, which is not there"
            )));
        }
        let files = manifest::collect(&path, &[]).map_err(|e| refused(e.to_string()))?;
        let manifest = Manifest::read(&path).ok();
        let (files, strays): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|file| is_listed(manifest.as_ref(), file));
        let program_sha256 = checked_program(&folder, &package, &files)?;
        let program = folder.join(PROGRAM);
        let modified =
            fs::metadata(&program).and_then(|m| m.modified()).map_err(Error::io("look at", &program))?;
        let stem = package.strip_suffix(&format!(".{EXTENSION}")).unwrap_or(&package).to_owned();
        Ok(Self {
            // The digest of a listing of files is computed as that of a set of tables.
            digest: manifest::tables_digest(&files),
            strays: strays.into_iter().map(|file| file.path).collect(),
            manifest,
            path,
            name,
            metadata,
            files,
            package,
            stem,
            program_sha256,
            modified,
        })
    }

    /// The graph package.
    pub fn package_path(&self) -> PathBuf {
        self.path.join(&self.package)
    }

    /// Bytes of the graph package.
    pub fn package_bytes(&self) -> u64 {
        self.sum(true)
    }

    /// Bytes of everything else, which is copied to a sibling bundle.
    pub fn other_bytes(&self) -> u64 {
        self.sum(false)
    }

    /// Bytes that compiling and making the sibling may take, in the worst known case.
    pub fn needed_bytes(&self) -> u64 {
        let artifact = self.package_bytes().saturating_mul(SPACE_TIMES);
        artifact.saturating_add(self.other_bytes()).saturating_add(SPACE_EXTRA)
    }

    /// Whether a file of the bundle belongs to its graph package.
    pub(crate) fn in_package(&self, file: &FileRecord) -> bool {
        file.path.strip_prefix(&self.package).is_some_and(|rest| rest.starts_with('/'))
    }

    fn sum(&self, in_package: bool) -> u64 {
        let chosen = self.files.iter().filter(|file| self.in_package(file) == in_package);
        chosen.fold(0, |sum: u64, file| sum.saturating_add(file.size))
    }
}

/// The folder's absolute path, with a name even where it was given as `.`.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let absolute = match path.file_name() {
        Some(_) => std::path::absolute(path),
        None => fs::canonicalize(path),
    };
    absolute.map_err(Error::io("resolve", path))
}

/// Whether a bundle's manifest names a file, where there is a manifest.
fn is_listed(manifest: Option<&Manifest>, file: &FileRecord) -> bool {
    manifest.is_none_or(|manifest| manifest.files.iter().any(|listed| listed.path == file.path))
}

fn package_name(metadata: &BundleMetadata) -> Result<String, String> {
    let name = metadata.assets.get(MAIN_ASSET).ok_or("its metadata.json has no assets.main")?;
    match Path::new(name).extension().and_then(|extension| extension.to_str()) {
        _ if names::component(name).is_err() || name.starts_with(['.', '-']) => Err(format!(
            "assets.main of its metadata.json is '{}', which is not a plain file name",
            word(name)
        )),
        Some(EXTENSION) => Ok(name.clone()),
        Some("aimodelc") => {
            Err(format!("it is compiled already ({name}): pass the bundle that it was made from"))
        }
        _ => Err(format!("assets.main of its metadata.json is '{}', which is not an .aimodel", word(name))),
    }
}

fn checked_program(folder: &Path, package: &str, files: &[FileRecord]) -> Result<Digest, Error> {
    let record = |name: &str| {
        let path = format!("{package}/{name}");
        files.iter().find(|file| file.path == path).ok_or_else(|| Error::NotCompilable {
            path: folder.to_path_buf(),
            reason: format!("it has no {name}"),
        })
    };
    let found = record(PROGRAM)?.sha256;
    let damaged =
        |expected| Error::DamagedSource { path: folder.join(PROGRAM), expected, found: found.to_string() };
    let size = record(HASH)?.size;
    if size != 32 {
        return Err(damaged(format!("{size} bytes instead of 32")));
    }
    let hash = folder.join(HASH);
    let bytes = small::read(&hash, small::TEXT).map_err(Error::io("read", &hash))?;
    match <[u8; 32]>::try_from(bytes).map(Digest::from) {
        Ok(expected) if expected == found => Ok(found),
        Ok(expected) => Err(damaged(expected.to_string())),
        Err(bytes) => Err(damaged(format!("{} bytes instead of 32", bytes.len()))),
    }
}
