//! State of a run: the findings so far, digests that were computed, and the folder that rules look at.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use output::Digest;
use text::bounds::shortened;
use text::shell::quoted;

use super::Options;
use super::facts::GraphFacts;
use super::finding::{Finding, Rule, Severity};
use crate::FileError;
use crate::contents::{FolderKind, GRAPHS};
use crate::files;

/// Reads the facts of the graph package in a folder, or says why it cannot be read.
pub type GraphReader<'a> = &'a dyn Fn(&Path) -> Result<GraphFacts, String>;

/// Findings of one rule that are kept: a broken folder may violate it a hundred thousand times.
const MOST: usize = 100;
/// Characters of what is wrong.
const LONGEST: usize = 2000;

/// Findings of one rule.
#[derive(Default)]
struct Tally {
    kept: usize,
    omitted: usize,
}

/// Collects what the rules find.
pub(super) struct Context<'a> {
    pub(super) options: &'a Options<'a>,
    findings: Vec<Finding>,
    /// Findings of each rule.
    tallies: HashMap<&'static str, Tally>,
    /// Digests by path: a release lists the files that its bundles list, too.
    digests: HashMap<PathBuf, Digest>,
}

impl<'a> Context<'a> {
    pub(super) fn new(options: &'a Options<'a>) -> Self {
        Self { options, findings: Vec::new(), tallies: HashMap::new(), digests: HashMap::new() }
    }

    /// Adds a finding about `file` in `folder`; an empty `file` means the folder itself.
    pub(super) fn report(&mut self, rule: &Rule, folder: &Folder, file: &str, what: impl Into<String>) {
        let tally = self.tallies.entry(rule.id).or_default();
        if tally.kept == MOST {
            tally.omitted += 1;
            return;
        }
        let finding = Finding {
            id: rule.id,
            severity: rule.severity,
            path: folder.shown(file),
            what: shortened(&what.into(), LONGEST).into_owned(),
            why: rule.why,
            fix: folder.fix(rule.fix, file),
        };
        // A release lists what its bundles list: one finding is enough.
        let is_same = |other: &Finding| {
            (other.id, &other.path, &other.what) == (finding.id, &finding.path, &finding.what)
        };
        if !self.findings.iter().any(is_same) {
            tally.kept += 1;
            self.findings.push(finding);
        }
    }

    /// SHA-256 of a file, computed once.
    pub(super) fn digest(&mut self, path: &Path) -> Result<Digest, FileError> {
        if let Some(digest) = self.digests.get(path) {
            return Ok(*digest);
        }
        let digest = files::measure(path)?.digest;
        self.digests.insert(path.to_path_buf(), digest);
        Ok(digest)
    }

    /// Adopts digests that were computed elsewhere.
    pub(super) fn remember(&mut self, digests: impl IntoIterator<Item = (PathBuf, Digest)>) {
        self.digests.extend(digests);
    }

    /// Whether the digest of a file is known already.
    pub(super) fn knows(&self, path: &Path) -> bool {
        self.digests.contains_key(path)
    }

    /// The findings, defects first.
    pub(super) fn into_findings(self) -> Vec<Finding> {
        let mut findings = self.findings;
        for (rule, Tally { omitted, .. }) in self.tallies.into_iter().filter(|(_, tally)| tally.omitted > 0) {
            if let Some(last) = findings.iter_mut().rfind(|finding| finding.id == rule) {
                last.what.push_str(&format!("; {omitted} more like it"));
            }
        }
        findings.sort_by_key(|finding| finding.severity == Severity::Note);
        findings
    }
}

/// A folder under check.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    /// Path relative to what the check was asked for, with a final `/`, or nothing for the root.
    prefix: String,
    /// The command that makes the folder again.
    remake: String,
}

impl Folder {
    /// The folder that the check was asked for.
    pub(super) fn root(path: &Path, target: FolderKind) -> Self {
        // So that `.` has a name and a parent to look for tables in.
        let path = paths::resolve(path).unwrap_or_else(|_| path.to_path_buf());
        Self { remake: remake(&path, target), prefix: String::new(), path }
    }

    /// A folder below this one.
    pub(super) fn below(&self, relative: &str, target: FolderKind) -> Self {
        let path = self.path.join(relative);
        Self { remake: remake(&path, target), prefix: format!("{}{relative}/", self.prefix), path }
    }

    /// A part of this folder, which is made again together with it.
    pub(super) fn part(&self, relative: &str) -> Self {
        let path = self.path.join(relative);
        Self { path, prefix: format!("{}{relative}/", self.prefix), remake: self.remake.clone() }
    }

    /// Name of the folder.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    fn shown(&self, file: &str) -> String {
        format!("{}{file}", self.prefix).trim_end_matches('/').to_owned()
    }

    fn fix(&self, fix: &str, file: &str) -> String {
        let path = unpacked(&self.path);
        let file = if file.is_empty() { path.clone() } else { path.join(file) };
        let fix = fix
            .replace("{remake}", &self.remake)
            .replace("{path}", &quoted(&path))
            .replace("{file}", &quoted(&file));
        match paths::archive_of(&self.path) {
            Some(archive) => {
                format!("unpack {} into {}, then {fix}", quoted(&archive), quoted(&unpacked(&archive)))
            }
            None => fix,
        }
    }
}

/// Where what a path leads to would be if the archive that it is in were unpacked beside itself: no command writes into archives.
fn unpacked(path: &Path) -> PathBuf {
    let inner = paths::archive_of(path).and_then(|archive| {
        let inner = path.strip_prefix(&archive).ok()?;
        // Without a part after it, a path would end with a slash.
        let folder = archive.with_extension("");
        Some(if inner.as_os_str().is_empty() { folder } else { folder.join(inner) })
    });
    inner.unwrap_or_else(|| path.to_owned())
}

/// The command that makes the folder at `path` again.
fn remake(path: &Path, target: FolderKind) -> String {
    let path = &unpacked(path);
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let parent = path.parent().unwrap_or(Path::new("."));
    if target == FolderKind::Package
        && parent.file_name().is_some_and(|bundle| name.starts_with(&*bundle.to_string_lossy()))
    {
        // It is made together with the bundle around it.
        return remake(parent, FolderKind::Bundle);
    }
    match target {
        FolderKind::Package | FolderKind::Bundle => match name.rsplit_once("_aotc_") {
            Some((source, architecture)) => {
                format!("coreai-bundle aotc {} --arch {architecture}", quoted(&parent.join(source)))
            }
            None => convert(&name, parent),
        },
        FolderKind::Tables => {
            let base = name.strip_suffix("_gather_raw").map(given_name).unwrap_or_default();
            format!("coreai-bundle tables SOURCE{base} -o {} --force", quoted(parent))
        }
        FolderKind::Release => release(path),
        FolderKind::Outputs => format!("coreai-bundle convert SOURCE -o {} --force", quoted(path)),
    }
}

fn release(path: &Path) -> String {
    format!("coreai-bundle release BUNDLES.. TABLES.. -o {} --force", quoted(path))
}

/// The command that makes a bundle of this name in a folder. In a release it is made elsewhere first: a release has its own card and
/// manifest.
fn convert(name: &str, folder: &Path) -> String {
    let name = name.trim_end_matches(".aimodel");
    let mut command = format!("coreai-bundle convert SOURCE{}", variant(name));
    if let Some((base, kind)) = name.rsplit_once("_decode_") {
        for (prefix, options) in [
            ("int8lin", " --weights int8"),
            ("f16", " --weights f16"),
            ("int4q4_0", " --rule q4_0"),
            ("int4absmax", " --rule absmax"),
        ] {
            if kind.starts_with(prefix) {
                command.push_str(options);
            }
        }
        if kind.ends_with("_split") {
            command.push_str(" --cache split");
        }
        command.push_str(&given_name(base));
    }
    if folder.file_name().is_some_and(|name| name == GRAPHS) {
        let root = folder.parent().unwrap_or(folder);
        return format!("{command} -o DIR, then {}", release(root));
    }
    format!("{command} -o {} --force", quoted(folder))
}

fn given_name(base: &str) -> String {
    format!(" --name {}", quoted(Path::new(base)))
}

/// The option for the graph's variant according to a bundle's name; without a suffix it is what is made by default.
fn variant(name: &str) -> &'static str {
    if name.ends_with("_tbl") {
        " --variant tbl"
    } else if name.ends_with("_stock") {
        " --variant stock"
    } else {
        ""
    }
}
