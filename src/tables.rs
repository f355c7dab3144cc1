//! `coreai-bundle tables`: the gather tables of a checkpoint, and what `convert` shares with it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use checkpoint::source::Source;
use clap::{Args, ValueEnum};
use converter::Model;
use converter::name::ModelName;
use converter::tables::{TablesPlan, WrittenTables, safetensors};
use output::{Digest, StagedDirectory, StagedFile};
use packer::manifest::{self, FileRecord, Manifest, ManifestKind, Provenance};
use packer::replace::FileKind;
use serde::Serialize;
use serde_json::{Value, json};

use crate::outputs::Common;
use crate::progress::Progress;
use crate::stage::{Options, Stage};
use crate::{bundle, digits, interrupt, origin, outputs, published, stage, terminal};

/// Write the gather tables of a checkpoint
#[derive(Debug, Args)]
#[command(after_help = "Example:
  coreai-bundle tables gemma-4-E4B-it-qat -o out")]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Form of the per-layer table
    #[arg(long, value_enum, default_value_t = Form::Raw)]
    ple: Form,
}

/// Form of the per-layer table, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Form {
    /// A folder of raw tables with a scale a row, as the bundles of this tool use them
    Raw,
    /// One safetensors file with one scale, as Apple's own Gemma 3n export writes it
    Safetensors,
}

/// A table folder that is complete, under its temporary name until it is published.
#[derive(Debug, Serialize)]
pub(crate) struct FinishedTables {
    /// Where the folder will be.
    pub(crate) path: PathBuf,
    /// Bytes of all its files.
    pub(crate) bytes: u64,
    /// What bundles that belong to it carry.
    pub(crate) stamp: Digest,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let origin = origin::open(&arguments.common.source, &arguments.common.access)?;
    let model = Model::open(&*origin.source)?;
    let name = arguments.common.model_name(&origin.name, &model.config)?;
    interrupt::listen()?;
    match arguments.ple {
        Form::Raw => write_folder(&arguments.common, &model, &name)?,
        Form::Safetensors => write_file(&arguments.common, &model, &name)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn write_folder(common: &Common, model: &Model<'_>, name: &ModelName) -> anyhow::Result<()> {
    let plan = TablesPlan::new(&model.config, &model.checkpoint)?;
    let name = name.tables();
    let options = Options::from([("--ple".to_owned(), stage::typed(&Form::Raw))]);
    let targets = [(name.clone(), common.outputs([]).folder(ManifestKind::Tables))];
    let mut stage = Stage::open(common, &name, &targets, model.source, options)?;
    if stage.is_finished() {
        stage.commit()?;
        return published::print(common, &targets).map(drop);
    }
    match fill(&mut stage, common, model, &plan, &name) {
        Ok(finished) => {
            stage.commit()?;
            Ok(print(&finished, common.json)?)
        }
        Err(error) => Err(stage.end(error)),
    }
}

fn fill(
    stage: &mut Stage,
    common: &Common,
    model: &Model<'_>,
    plan: &TablesPlan,
    name: &str,
) -> anyhow::Result<FinishedTables> {
    let needed = plan.bytes().saturating_sub(stage.held());
    outputs::check_space(&common.output, needed)?;
    let Stage { folders, journal, .. } = stage;
    let [folder] = &folders[..] else { bail!("a run of tables has one folder") };
    let progress = Progress::new(plan.input_bytes(), common.json);
    let (source, path, threads) = (model.source, folder.path(), common.threads());
    let written =
        converter::tables::write(source, &model.checkpoint, plan, path, threads, &progress, journal);
    progress.finish();
    let written = written?;
    source.verify_unchanged()?;
    finish(folder, &written, name, source)
}

fn write_file(common: &Common, model: &Model<'_>, name: &ModelName) -> anyhow::Result<()> {
    if common.resume {
        bail!("--resume is for the folder of raw tables: a safetensors file is made anew");
    }
    let output = common.outputs([]).file(FileKind::Safetensors);
    let file = StagedFile::new(&common.output.join(name.table_file()), output)?;
    outputs::check_space(&common.output, safetensors::bytes(&model.config))?;
    let progress = Progress::new(safetensors::input_bytes(&model.config), common.json);
    let threads = common.threads();
    let written =
        safetensors::write(model.source, &model.config, &model.checkpoint, file.file(), threads, &progress);
    progress.finish();
    written?;
    model.source.verify_unchanged()?;
    let bytes = file.file().metadata()?.len();
    let path = file.commit()?;
    let mut out = terminal::out();
    if common.json {
        terminal::print_json(&json!({"event": "done", "file": {"path": path, "bytes": bytes}}))?;
    } else {
        writeln!(out, "{}  per-layer table, {}", path.display(), digits::bytes(bytes))?;
    }
    Ok(())
}

fn print(finished: &FinishedTables, as_json: bool) -> io::Result<()> {
    let mut out = terminal::out();
    if as_json {
        return terminal::print_json(&json!({"event": "done", "tables": finished}));
    }
    writeln!(out, "{}  tables, {}", finished.path.display(), digits::bytes(finished.bytes))?;
    writeln!(out, "stamp {}", finished.stamp)
}

/// Adds the manifest to a folder of tables.
pub(crate) fn finish(
    folder: &StagedDirectory,
    written: &WrittenTables,
    name: &str,
    source: &dyn Source,
) -> anyhow::Result<FinishedTables> {
    let known: Vec<FileRecord> = written
        .files
        .iter()
        .map(|(path, file)| FileRecord { path: path.clone(), size: file.bytes, sha256: file.digest })
        .collect();
    let provenance = Provenance {
        tool: outputs::tool(),
        source: Some(bundle::source_record(source)?),
        conversion: Value::Null,
        tables_digest: None,
        compiled_from: None,
        gate: Value::Null,
    };
    let manifest = manifest::seal(folder.path(), ManifestKind::Tables, name, provenance, &known)?;
    let stamp = manifest.tables_digest.context("the tables' manifest got no stamp")?;
    let bytes = manifest.files.iter().map(|file| file.size).sum();
    Ok(FinishedTables { path: folder.target().to_owned(), bytes, stamp })
}

/// The stamp of tables that were made before.
pub(crate) fn stamp_of(folder: &Path) -> anyhow::Result<Digest> {
    let manifest = Manifest::read(folder)?;
    match (manifest.kind, manifest.tables_digest) {
        (ManifestKind::Tables, Some(stamp)) => Ok(stamp),
        _ => bail!(
            "{}: its manifest is not that of a table folder; make one with `coreai-bundle tables`",
            folder.display()
        ),
    }
}
