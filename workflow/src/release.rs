//! Bundles and tables as one tree, with a card and a license.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use checkpoint::source::Source;
use hub::RepositoryId;
use output::StagedDirectory;
use packer::TOOL;
use packer::check::{CheckReport, Options, check};
use packer::manifest::{Manifest, ManifestKind, SourceRecord};
use packer::release::{License, Release, assemble, license_of_card};
use packer::replace::Outputs;
use packer::template::Renderer;
use serde::Serialize;
use text::small;
use text::terminal::{line, word};

use crate::origin::{Access, Opened, Opener};

/// Names under which repositories keep their license.
const LICENSE_FILES: [&str; 3] = ["LICENSE", "LICENSE.txt", "LICENSE.md"];
/// The standard text, for sources that name the license but do not contain it.
const APACHE: (&str, &str) = ("apache-2.0", include_str!("../../LICENSE"));

/// What to make a release from.
#[derive(Clone, Debug)]
pub struct ReleaseRequest {
    /// Bundles and table folders.
    pub folders: Vec<PathBuf>,
    /// Folder to make.
    pub output: PathBuf,
    /// The checkpoint, whose card and license apply; the repository in the manifests otherwise.
    pub source: Option<String>,
    /// Repository that the card names as the base model; the one in the manifests otherwise.
    pub base_model: Option<String>,
    /// Text of the license, instead of the checkpoint's.
    pub license: Option<PathBuf>,
    /// Identifier of the license in cards, instead of the one in the checkpoint's card.
    pub license_id: Option<String>,
    /// Whether to replace a release that exists.
    pub force: bool,
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
}

/// The folders by kind, and where the first of them comes from.
struct Members {
    bundles: Vec<PathBuf>,
    tables: Vec<PathBuf>,
    source: SourceRecord,
}

impl Members {
    fn read(folders: &[PathBuf]) -> anyhow::Result<Self> {
        let mut members =
            Members { bundles: Vec::new(), tables: Vec::new(), source: SourceRecord::default() };
        for folder in folders {
            let manifest = Manifest::read(folder)?;
            match manifest.kind {
                ManifestKind::Bundle => members.bundles.push(folder.clone()),
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
    /// Makes the release.
    ///
    /// # Errors
    /// If the folders or the license cannot be read, the release would have defects, or it must not be replaced.
    pub fn make(&self, render: Renderer<'_>, opener: Opener<'_>) -> anyhow::Result<FinishedRelease> {
        let members = Members::read(&self.folders)?;
        let base_model = self.base_model.clone().or_else(|| members.source.repository.clone());
        let base_model = base_model.context(
            "the manifests name no repository (the checkpoint was a folder): give --base-model OWNER/NAME",
        )?;
        RepositoryId::new(&base_model).context("the base model is named as OWNER/NAME: give --base-model")?;
        let license = self.license(&members.source, opener)?;
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
        };
        let files = assemble(&folder, &release)?.files;
        refuse_defects(folder.path(), render)?;
        let (path, bytes) = (folder.commit()?, files.iter().map(|file| file.size).sum());
        Ok(FinishedRelease { path, files: files.len(), bytes, license: license.id })
    }

    fn outputs(&self) -> Outputs {
        let others = self.source.iter().map(PathBuf::from).chain(self.license.clone());
        Outputs::new(self.folders.iter().cloned().chain(others), self.force)
    }

    /// The given one, else the checkpoint's.
    fn license(&self, recorded: &SourceRecord, opener: Opener<'_>) -> anyhow::Result<License> {
        if let (Some(path), Some(id)) = (&self.license, &self.license_id) {
            let text =
                small::read(path, small::TEXT).with_context(|| format!("cannot read {}", path.display()))?;
            return Ok(License { id: id.clone(), text });
        }
        let opened = self.checkpoint(recorded, opener)?;
        let card = opened.source.read_file("README.md")?.unwrap_or_default();
        let named = self.license_id.clone().or_else(|| license_of_card(&String::from_utf8_lossy(&card)));
        let id = named.with_context(|| {
            format!("the card of {} names no license: give --license-id, and --license FILE", opened.name)
        })?;
        let text = match license_text(&*opened.source)? {
            Some(text) => text,
            None if id == APACHE.0 => APACHE.1.as_bytes().to_vec(),
            None => bail!("{} holds no LICENSE, only its name ({id}): give --license FILE", opened.name),
        };
        Ok(License { id, text })
    }

    fn checkpoint(&self, recorded: &SourceRecord, opener: Opener<'_>) -> anyhow::Result<Opened> {
        if let Some(source) = &self.source {
            return opener.open(source, &Access::default());
        }
        let repository = recorded.repository.as_deref().context(
            "the license is that of the checkpoint, which was a folder: give --source FOLDER, or --license FILE and --license-id ID",
        )?;
        opener.open(repository, &Access { revision: recorded.revision.clone(), ..Access::default() })
    }
}

fn license_text(source: &dyn Source) -> anyhow::Result<Option<Vec<u8>>> {
    for name in LICENSE_FILES {
        if let Some(text) = source.read_file(name)? {
            return Ok(Some(text));
        }
    }
    Ok(None)
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
    format!("{} defects:{}", report.defects().count(), listed.collect::<String>())
}
