//! Checks what the compiler wrote: its exit code says nothing.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use output::Digest;
use packer::manifest::{self, FileRecord};
use text::small;

use crate::architecture::Architecture;
use crate::source::{HASH, SourceBundle};

/// Resolution of the clocks of file systems, at worst.
const CLOCK: Duration = Duration::from_secs(2);
/// An artifact holds the weights in a form that the compiler chooses: it may be larger than the package, but not much
/// smaller. Published ones are once to twice the package.
const LEAST_SHARE: u64 = 4;
const MOST_TIMES: u64 = 16;
/// What the compiler may add to a tiny graph.
const OVERHEAD: u64 = 64 << 20;
/// Descriptions that the compiler writes.
const METADATA: &str = "metadata.json";
const STATISTICS: &str = "stats.json";
/// Larger files are not digests or descriptions.
const LARGEST_HASH: u64 = 4096;
const LARGEST_JSON: u64 = 64 << 20;

/// An artifact that passed every check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Artifact {
    /// Every file, sorted by path.
    pub files: Vec<FileRecord>,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Digest of `main-<arch>.mlirb`.
    pub program_sha256: Digest,
}

/// What is known of the package that an artifact was compiled from.
#[derive(Clone, Copy, Debug)]
pub struct CompiledSource {
    /// Bytes of the package.
    pub bytes: u64,
    /// When its program was written, where both were written by the same clock.
    pub modified: Option<SystemTime>,
}

impl From<&SourceBundle> for CompiledSource {
    fn from(source: &SourceBundle) -> Self {
        Self { bytes: source.package_bytes(), modified: Some(source.modified) }
    }
}

/// Checks the artifact in `folder` for `architecture`.
///
/// # Errors
/// Everything that is wrong with it, one sentence each.
pub fn verify(
    folder: &Path,
    architecture: &Architecture,
    origin: Option<CompiledSource>,
) -> Result<Artifact, Vec<String>> {
    let files = manifest::collect(folder, &[]).map_err(|e| vec![e.to_string()])?;
    verify_files(folder, files, architecture, origin)
}

/// What an artifact from elsewhere holds besides the compiler's files, one sentence each.
pub(crate) fn strays(artifact: &Artifact, architecture: &Architecture) -> Vec<String> {
    let (program, delegates) = (program_name(architecture), format!("{}/", delegates_name(architecture)));
    let is_known = |path: &str| {
        [program.as_str(), HASH, METADATA, STATISTICS].contains(&path) || path.starts_with(&delegates)
    };
    let strays = artifact.files.iter().filter(|file| !is_known(&file.path));
    strays.map(|file| format!("{} is not part of a compiled artifact: remove it", file.path)).collect()
}

fn program_name(architecture: &Architecture) -> String {
    format!("main-{architecture}.mlirb")
}

fn delegates_name(architecture: &Architecture) -> String {
    format!("main-{architecture}-delegates")
}

/// As [`verify`], for files that were hashed already; their paths are relative to `folder`.
pub(crate) fn verify_files(
    folder: &Path,
    files: Vec<FileRecord>,
    architecture: &Architecture,
    origin: Option<CompiledSource>,
) -> Result<Artifact, Vec<String>> {
    let bytes = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    let mut inspection = Inspection { folder, architecture, files: &files, defects: Vec::new() };
    let program = inspection.program();
    inspection.names();
    inspection.delegates();
    inspection.json(METADATA);
    inspection.json(STATISTICS);
    if let Some(origin) = origin {
        inspection.size(bytes, origin.bytes);
        inspection.age(origin.modified);
    }
    let defects = inspection.defects;
    match program {
        Some(program_sha256) if defects.is_empty() => Ok(Artifact { files, bytes, program_sha256 }),
        _ => Err(defects),
    }
}

/// Fewest bytes of an artifact that can still hold the weights of a package of that many bytes.
pub(crate) fn least_bytes(package: u64) -> u64 {
    package / LEAST_SHARE
}

struct Inspection<'a> {
    folder: &'a Path,
    architecture: &'a Architecture,
    files: &'a [FileRecord],
    defects: Vec<String>,
}

impl<'a> Inspection<'a> {
    fn find(&self, path: &str) -> Option<&'a FileRecord> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Reads a file that should have at most `limit` bytes.
    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, String> {
        match self.find(name) {
            None => Err(format!("{name} is missing")),
            Some(file) if file.size > limit => Err(format!("{name} has {} bytes: too many", file.size)),
            Some(_) => {
                small::read(&self.folder.join(name), limit).map_err(|e| format!("{name} cannot be read: {e}"))
            }
        }
    }

    fn program(&mut self) -> Option<Digest> {
        let name = program_name(self.architecture);
        let Some(program) = self.find(&name) else {
            self.defects.push(format!("{name} is missing"));
            return None;
        };
        if program.size == 0 {
            self.defects.push(format!("{name} is empty"));
        }
        match self.read(HASH, LARGEST_HASH) {
            Ok(hash) if hash == program.sha256.as_bytes() => {}
            Ok(hash) if hash.len() == 32 => {
                self.defects
                    .push(format!("{HASH} is not the SHA-256 of {name}: one of them is damaged or cut off"));
            }
            Ok(hash) => self.defects.push(format!("{HASH} has {} bytes instead of 32", hash.len())),
            Err(defect) => self.defects.push(defect),
        }
        Some(program.sha256)
    }

    /// Finds files of another architecture: the device refuses an artifact that has them.
    fn names(&mut self) {
        let (program, delegates) = (program_name(self.architecture), delegates_name(self.architecture));
        let mut foreign: Vec<&str> = Vec::new();
        for file in self.files {
            let top = file.path.split('/').next().unwrap_or_default();
            if top.starts_with("main-") && top != program && top != delegates && !foreign.contains(&top) {
                foreign.push(top);
            }
        }
        for name in foreign {
            self.defects.push(format!("{name} is for another architecture, not {}", self.architecture));
        }
    }

    fn delegates(&mut self) {
        let name = delegates_name(self.architecture);
        let inside =
            |file: &&FileRecord| file.path.strip_prefix(&name).is_some_and(|rest| rest.starts_with('/'));
        if !self.files.iter().filter(inside).any(|file| file.size > 0) {
            self.defects.push(format!("{name}/ is missing or empty"));
        }
    }

    fn json(&mut self, name: &str) {
        let defect = match self.read(name, LARGEST_JSON) {
            Err(defect) => defect,
            Ok(bytes) => match serde_json::from_slice::<serde_json::Value>(&bytes) {
                Ok(value) if value.is_object() => return,
                Ok(_) => format!("{name} is not a JSON object"),
                Err(e) => format!("{name} is not JSON: {e}"),
            },
        };
        self.defects.push(defect);
    }

    fn size(&mut self, bytes: u64, package: u64) {
        if bytes < least_bytes(package) {
            self.defects
                .push(format!("it has {bytes} bytes, but its source has {package}: weights are missing"));
        }
        if bytes > package.saturating_mul(MOST_TIMES).saturating_add(OVERHEAD) {
            self.defects.push(format!("it has {bytes} bytes, but its source only {package}"));
        }
    }

    fn age(&mut self, source: Option<SystemTime>) {
        let name = program_name(self.architecture);
        let written = fs::metadata(self.folder.join(&name)).and_then(|metadata| metadata.modified()).ok();
        let (Some(written), Some(source)) = (written, source) else { return };
        if written.checked_add(CLOCK).is_some_and(|written| written < source) {
            self.defects.push(format!("{name} is older than its source"));
        }
    }
}
