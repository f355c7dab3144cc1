//! Bundles and tables as one tree, with a card and a license.

mod terms;

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use checkpoint::source::Source;
use output::StagedDirectory;
use packer::TOOL;
use packer::check::{CheckReport, Options, check};
use packer::manifest::{Manifest, ManifestKind, SourceRecord};
use packer::release::{Release, assemble};
use packer::replace::Outputs;
use packer::template::Renderer;
use serde::Serialize;
use serde_json::Value;
use text::counted;
use text::small;
use text::terminal::{line, word};

use crate::contents;
use crate::origin::{Access, Opened, Opener};
use crate::source::SourceSpec;
use terms::Terms;

/// What to make a release from.
#[derive(Clone, Debug)]
pub struct ReleaseRequest {
    /// Bundles and table folders, or folders and archives that hold some.
    pub folders: Vec<PathBuf>,
    /// Folder to make.
    pub output: PathBuf,
    /// The checkpoint, whose card and license apply; the repository in the manifests otherwise.
    pub source: Option<SourceSpec>,
    /// Repository that the card names as the base model; the one in the manifests otherwise.
    pub base_model: Option<String>,
    /// Text of the license, instead of the checkpoint's.
    pub license: Option<LicenseText>,
    /// Identifier of the license in cards, instead of the one in the checkpoint's card.
    pub license_id: Option<String>,
    /// Whether to replace a release that exists.
    pub force: bool,
    /// What makes the same bytes again, for the manifest; null if it is not known.
    pub recipe: Value,
}

/// Text of a license.
#[derive(Clone, Debug)]
pub enum LicenseText {
    /// In a file.
    File(PathBuf),
    /// As it is.
    Text(String),
}

impl LicenseText {
    fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::File(path) => {
                small::read(path, small::TEXT).with_context(|| format!("cannot read {}", path.display()))
            }
            Self::Text(text) => Ok(text.clone().into_bytes()),
        }
    }
}

/// A release that was made.
#[derive(Clone, Debug, Serialize)]
pub struct FinishedRelease {
    /// Its folder.
    pub path: PathBuf,
    /// Number of its files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Identifier of its license in cards.
    pub license: String,
    /// Bundles that were not compared with the checkpoint.
    pub ungated: Vec<String>,
}

/// The folders by kind, and where the first of them comes from.
struct Members {
    bundles: Vec<PathBuf>,
    /// Names of those that were not compared with the checkpoint.
    ungated: Vec<String>,
    tables: Vec<PathBuf>,
    source: SourceRecord,
}

impl Members {
    fn read(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let mut members = Members {
            bundles: Vec::new(),
            ungated: Vec::new(),
            tables: Vec::new(),
            source: SourceRecord::default(),
        };
        for folder in folders {
            let manifest = Manifest::read(folder).with_context(|| {
                let folder = folder.display();
                format!("{folder} is not an output of `convert`, `tables` or `aotc`, nor a folder of them")
            })?;
            match manifest.kind {
                ManifestKind::Bundle => {
                    // A graph that was compiled ahead of time runs on devices only.
                    if manifest.gate.is_null() && manifest.compiled_from.is_none() {
                        members.ungated.push(manifest.name.clone());
                    }
                    members.bundles.push(folder.clone());
                }
                ManifestKind::Tables => members.tables.push(folder.clone()),
                ManifestKind::Release => bail!("{} is a release already: give its parts", folder.display()),
            }
            if let (None, Some(source)) = (&members.source.repository, manifest.source) {
                members.source = source;
            }
        }
        Ok(members)
    }
}

impl ReleaseRequest {
    /// Refuses a release whose terms cannot be found, before its members are made from this checkpoint.
    ///
    /// # Errors
    /// If the base model or the license is missing, or the checkpoint cannot be read.
    pub(crate) fn check(&self, source: &dyn Source) -> anyhow::Result<()> {
        Terms::find(self, source.identity().repository.as_deref(), Some(source)).map(|_| ())
    }

    /// Makes the release.
    ///
    /// # Errors
    /// If the folders or the license cannot be read, the release would have defects, or it must not be replaced.
    pub fn make(&self, render: Renderer<'_>, opener: Opener<'_>) -> anyhow::Result<FinishedRelease> {
        let folders: Vec<PathBuf> =
            self.folders.iter().flat_map(|folder| contents::parts_of_release(folder)).collect();
        let members = Members::read(&folders)?;
        let opened = self.checkpoint(&members.source, opener)?;
        let source = opened.as_ref().map(|opened| &*opened.source);
        let Terms { base_model, license } = Terms::find(self, members.source.repository.as_deref(), source)?;
        let output = self.outputs().folder(ManifestKind::Release);
        let folder = StagedDirectory::new(&self.output, output)?;
        let name = self.output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let release = Release {
            name: &name,
            tool: TOOL,
            bundles: &members.bundles,
            tables: &members.tables,
            base_model: &base_model,
            license: &license,
            recipe: &self.recipe,
        };
        let files = assemble(&folder, &release)?.files;
        refuse_defects(folder.path(), render)?;
        let (path, bytes) = (folder.commit()?, files.iter().map(|file| file.size).sum());
        Ok(FinishedRelease { path, files: files.len(), bytes, license: license.id, ungated: members.ungated })
    }

    fn outputs(&self) -> Outputs {
        let license = self.license.iter().filter_map(|license| match license {
            LicenseText::File(path) => Some(path.clone()),
            LicenseText::Text(_) => None,
        });
        let source = self.source.as_ref().and_then(SourceSpec::path).map(Path::to_owned);
        let others = source.into_iter().chain(license);
        Outputs::new(self.folders.iter().cloned().chain(others), self.force)
    }

    /// The checkpoint, if its card or license is needed and it is known where it is.
    fn checkpoint(&self, recorded: &SourceRecord, opener: Opener<'_>) -> anyhow::Result<Option<Opened>> {
        if self.license.is_some() && self.license_id.is_some() {
            return Ok(None);
        }
        if let Some(source) = &self.source {
            return opener.open(source, Access::default()).map(Some);
        }
        let open = |repository: &String| {
            let (id, revision) = (repository.clone(), recorded.revision.clone());
            opener.open(&SourceSpec::Repository { id, revision }, Access::default())
        };
        recorded.repository.as_ref().map(open).transpose()
    }
}

/// Digests were compared while the tree was made; everything else is checked here.
fn refuse_defects(tree: &Path, render: Renderer<'_>) -> anyhow::Result<()> {
    let report = check(tree, &Options { digests: false, ..Options::new(render) })?;
    if !report.has_defects() {
        return Ok(());
    }
    bail!("the tree would have {}\nrun `coreai-bundle check` on its parts", defects_in_words(&report))
}

/// How many defects there are, and the first of them.
pub(crate) fn defects_in_words(report: &CheckReport) -> String {
    /// Defects that are listed.
    const LISTED: usize = 5;
    let listed = report
        .defects()
        .take(LISTED)
        .map(|finding| format!("\n  {}: {}", word(&finding.path), line(&finding.what)));
    format!("{}:{}", counted(report.defects().count(), "defect"), listed.collect::<String>())
}
