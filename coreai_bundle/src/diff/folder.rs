//! Which files of two folders belong together, and what kind of comparison each gets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ::text::small;
use aimodel::package::{HASH, PROGRAM};
use anyhow::{Context, bail};
use output::Digest;
use packer::archive::is_report;
use packer::manifest::{self, Manifest};
use packer::metadata::{BundleMetadata, MAIN_ASSET};
use paths::Kind;
use serde_json::Value;

use super::{FileDifference, Verdict, bytes, json, program, tables};

/// What the package's folder is called in reports, whatever its name.
const PACKAGE: &str = "package";
/// Largest JSON file that is compared field by field.
const LARGEST_JSON: u64 = small::JSON;

/// A folder: its files by the path that they have in reports.
struct Folder {
    root: PathBuf,
    files: BTreeMap<String, PathBuf>,
    manifest: Option<Manifest>,
}

impl Folder {
    fn open(root: &Path) -> anyhow::Result<Self> {
        if !paths::is_folder(root) {
            bail!(
                "{} is not a folder: give a package, a bundle, a table folder, or an archive of `pack`",
                root.display()
            );
        }
        let mut files = BTreeMap::new();
        list(root, "", &mut files)?;
        files.retain(|name, _| !is_report(name));
        let has_manifest = files.contains_key(manifest::FILE_NAME);
        let manifest = has_manifest.then(|| Manifest::read(root)).transpose()?;
        let mut folder = Folder { root: root.to_owned(), files, manifest };
        folder.rename_package();
        Ok(folder)
    }

    /// Bundles name their package after themselves.
    fn rename_package(&mut self) {
        let Ok(metadata) = BundleMetadata::read(&self.root) else { return };
        let Some(prefix) = metadata.assets.get(MAIN_ASSET).map(|asset| format!("{asset}/")) else { return };
        let files = std::mem::take(&mut self.files);
        let renamed = |name: String| match name.strip_prefix(&prefix) {
            Some(rest) => format!("{PACKAGE}/{rest}"),
            None => name,
        };
        self.files = files.into_iter().map(|(name, path)| (renamed(name), path)).collect();
    }

    /// Recorded digest of a file: a package's is beside it, others are in the manifest.
    fn digest(&self, path: &Path) -> Option<Digest> {
        if path.file_name()? == PROGRAM {
            let hash: [u8; 32] =
                paths::read(&path.with_file_name(HASH), small::TEXT).ok()?.try_into().ok()?;
            return Some(hash.into());
        }
        let name = path.strip_prefix(&self.root).ok()?.to_str()?;
        let size = paths::open(path).ok()?.length();
        let files = &self.manifest.as_ref()?.files;
        Some(files.iter().find(|file| file.path == name && file.size == size)?.sha256)
    }
}

fn list(folder: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> anyhow::Result<()> {
    let told = || format!("cannot list {}", folder.display());
    for paths::Entry { name, kind } in paths::list(folder).with_context(told)? {
        let (path, name) = (folder.join(&name), name.to_string_lossy().into_owned());
        if kind == Kind::Folder {
            list(&path, &format!("{prefix}{name}/"), files)?;
        } else {
            files.insert(format!("{prefix}{name}"), path);
        }
    }
    Ok(())
}

/// Compares everything below two folders, in order of paths.
pub(super) fn compare(left: &Path, right: &Path, quick: bool) -> anyhow::Result<Vec<FileDifference>> {
    let (left, right) = (Folder::open(left)?, Folder::open(right)?);
    let paths: BTreeSet<&String> = left.files.keys().chain(right.files.keys()).collect();
    if paths.is_empty() {
        bail!("{} and {}: both folders are empty", left.root.display(), right.root.display());
    }
    let mut reports = Vec::with_capacity(paths.len());
    for path in paths {
        let size = |path: &PathBuf| -> anyhow::Result<u64> {
            Ok(paths::open(path).with_context(|| format!("cannot look at {}", path.display()))?.length())
        };
        let verdict = match (left.files.get(path), right.files.get(path)) {
            (Some(ours), Some(theirs)) => both((&left, ours), (&right, theirs), quick)?,
            (Some(ours), None) => Verdict::OnlyLeft { bytes: size(ours)? },
            (None, Some(theirs)) => Verdict::OnlyRight { bytes: size(theirs)? },
            (None, None) => continue,
        };
        reports.push(FileDifference { path: path.clone(), verdict });
    }
    leave_out_hashes(&mut reports);
    Ok(reports)
}

/// The hash of a program differs where the program does.
fn leave_out_hashes(reports: &mut Vec<FileDifference>) {
    let programs: Vec<String> = reports
        .iter()
        .filter(|report| !report.verdict.is_equal())
        .filter_map(|report| Some(format!("{}{HASH}", report.path.strip_suffix(PROGRAM)?)))
        .collect();
    reports.retain(|report| !programs.contains(&report.path));
}

fn both(
    (left, ours): (&Folder, &Path),
    (right, theirs): (&Folder, &Path),
    quick: bool,
) -> anyhow::Result<Verdict> {
    if quick && matches!((left.digest(ours), right.digest(theirs)), (Some(a), Some(b)) if a == b) {
        return Ok(Verdict::Equal { by_digest: true });
    }
    let name = ours.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(found) = bytes::compare(ours, theirs)? else { return Ok(Verdict::Equal { by_digest: false }) };
    if name == PROGRAM {
        let package = |program: &Path| program.parent().unwrap_or(program).to_owned();
        let found = program::compare_packages(&package(ours), &package(theirs))?;
        return Ok(found.map_or(Verdict::Equivalent, Verdict::Program));
    }
    if name.ends_with(".json") && found.left_bytes.max(found.right_bytes) <= LARGEST_JSON {
        let parsed = |path: &Path| {
            paths::read(path, LARGEST_JSON).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
        };
        if let (Some(mut a), Some(mut b)) = (parsed(ours), parsed(theirs)) {
            if name == manifest::FILE_NAME {
                [&mut a, &mut b].into_iter().for_each(without_consequences);
            }
            let fields = json::differences(&a, &b);
            return Ok(if fields.is_empty() { Verdict::Equivalent } else { Verdict::Fields { fields } });
        }
    }
    Ok(match tables::compare(&name, (ours, theirs), &found)? {
        Some(difference) => Verdict::Table(difference),
        None => Verdict::Bytes(found),
    })
}

/// Removes from a manifest what follows from other differences: digests of files, and statistics of single tensors.
fn without_consequences(manifest: &mut Value) {
    if let Some(fields) = manifest.as_object_mut() {
        fields.remove("files");
    }
    if let Some(conversion) = manifest.get_mut("conversion").and_then(Value::as_object_mut) {
        conversion.remove("tensors");
    }
}
