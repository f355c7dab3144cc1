//! `coreai-bundle release`: bundles and tables as one tree, with a card and a license.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use checkpoint::source::Source;
use clap::Args;
use hub::RepositoryId;
use output::StagedDirectory;
use packer::check::{Options, check};
use packer::manifest::{Manifest, ManifestKind, SourceRecord};
use packer::release::{License, Release, assemble, license_of_card};
use packer::replace::Outputs;
use serde_json::json;
use text::small;

use crate::check::defects_in_words;
use crate::origin::{self, Access, Origin};
use crate::{digits, outputs, template, terminal};

/// Names under which repositories keep their license.
const LICENSE_FILES: [&str; 3] = ["LICENSE", "LICENSE.txt", "LICENSE.md"];
/// The standard text, for sources that name it and do not hold it.
const APACHE: (&str, &str) = ("apache-2.0", include_str!("../LICENSE"));

/// Make a release tree of bundles and tables, with a model card and a license
///
/// The card is made of what the manifests record: it names what was measured, and what was not. Every byte is hashed again and compared
/// with the manifests, then the tree is checked as `check` does; a tree with defects is not made.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  coreai-bundle release out/gemma4_e4b_qat_decode_int4lin out/gemma4_e4b_qat_decode_int4lin_aotc_h18p out/gemma4_e4b_qat_gather_raw -o release")]
pub(crate) struct Arguments {
    /// Bundles and table folders
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// The checkpoint, whose card and license apply [default: the repository in the manifests]
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Repository that the card names as the base model [default: the one in the manifests]
    #[arg(long, value_name = "OWNER/NAME")]
    base_model: Option<String>,
    /// Text of the license, instead of the checkpoint's
    #[arg(long, value_name = "FILE", requires = "license_id")]
    license: Option<PathBuf>,
    /// The license as cards name it, instead of what the checkpoint's card says
    #[arg(long, value_name = "ID")]
    license_id: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Replace a release that exists; what this tool did not write stays
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let members = Members::read(&arguments.folders)?;
    let base_model = arguments.base_model.clone().or_else(|| members.source.repository.clone());
    let base_model = base_model.context(
        "the manifests name no repository (the checkpoint was a folder): give --base-model OWNER/NAME",
    )?;
    RepositoryId::new(&base_model).context("the base model is named as OWNER/NAME: give --base-model")?;
    let license = arguments.license(&members.source)?;
    let output = arguments.outputs().folder(ManifestKind::Release);
    let folder = StagedDirectory::new(&arguments.output, output)?;
    let name = arguments.output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let release = Release {
        name: &name,
        tool: &outputs::tool(),
        bundles: &members.bundles,
        tables: &members.tables,
        base_model: &base_model,
        license: &license,
    };
    let manifest = assemble(&folder, &release)?;
    refuse_defects(folder.path())?;
    let path = folder.commit()?;
    let bytes: u64 = manifest.files.iter().map(|file| file.size).sum();
    let mut out = terminal::out();
    if arguments.json {
        let release =
            json!({"path": path, "files": manifest.files.len(), "bytes": bytes, "license": license.id});
        terminal::print_json(&json!({"event": "done", "release": release}))?;
    } else {
        let (files, size) = (manifest.files.len(), digits::bytes(bytes));
        writeln!(out, "{}  {files} files, {size}, license {}", path.display(), license.id)?;
    }
    Ok(ExitCode::SUCCESS)
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

impl Arguments {
    fn outputs(&self) -> Outputs {
        let others = self.source.iter().map(PathBuf::from).chain(self.license.clone());
        Outputs::new(self.folders.iter().cloned().chain(others), self.force)
    }

    /// As typed, else as the checkpoint has it.
    fn license(&self, recorded: &SourceRecord) -> anyhow::Result<License> {
        if let (Some(path), Some(id)) = (&self.license, &self.license_id) {
            let text =
                small::read(path, small::TEXT).with_context(|| format!("cannot read {}", path.display()))?;
            return Ok(License { id: id.clone(), text });
        }
        let origin = self.checkpoint(recorded)?;
        let card = origin.source.read_file("README.md")?.unwrap_or_default();
        let named = self.license_id.clone().or_else(|| license_of_card(&String::from_utf8_lossy(&card)));
        let id = named.with_context(|| {
            format!("the card of {} names no license: give --license-id, and --license FILE", origin.name)
        })?;
        let text = match license_text(&*origin.source)? {
            Some(text) => text,
            None if id == APACHE.0 => APACHE.1.as_bytes().to_vec(),
            None => bail!("{} holds no LICENSE, only its name ({id}): give --license FILE", origin.name),
        };
        Ok(License { id, text })
    }

    fn checkpoint(&self, recorded: &SourceRecord) -> anyhow::Result<Origin> {
        if let Some(source) = &self.source {
            return origin::open(source, &Access::default());
        }
        let repository = recorded.repository.as_deref().context(
            "the license is that of the checkpoint, which was a folder: give --source FOLDER, or --license FILE and --license-id ID",
        )?;
        origin::open(repository, &Access { revision: recorded.revision.clone(), download: false })
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
fn refuse_defects(tree: &Path) -> anyhow::Result<()> {
    let report = check(tree, &Options { digests: false, ..Options::new(&template::render) })?;
    if !report.has_defects() {
        return Ok(());
    }
    bail!("the tree would have {}\nrun `coreai-bundle check` on its parts", defects_in_words(&report))
}
