//! The gather tables of a checkpoint.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use checkpoint::source::Source;
use converter::Model;
use converter::tables::{TableDifference, TablesPlan, WrittenTables, safetensors};
use output::{Digest, StagedDirectory, StagedFile};
use packer::TOOL;
use packer::manifest::{self, FileRecord, Manifest, ManifestKind, Provenance};
use packer::replace::FileKind;
use progress::Progress;
use serde::Serialize;
use serde_json::Value;

use crate::bundle;
use crate::outputs::RunOptions;
use crate::stage::{RunOutcome, Stage};

/// A table folder that is complete, under its temporary name until it is published.
#[derive(Debug, Serialize)]
pub struct FinishedTables {
    /// Where the folder will be.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
    /// What bundles that belong to it carry.
    pub stamp: Digest,
}

/// The per-layer table as one file.
#[derive(Debug, Serialize)]
pub struct FinishedFile {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
}

/// Writes a folder of raw tables.
///
/// # Errors
/// If the checkpoint cannot be read, the folder must not be replaced or cannot be written, or the run is cancelled.
pub fn write_folder(
    run: &RunOptions,
    model: &Model<'_>,
    progress: &dyn Progress,
) -> anyhow::Result<RunOutcome<FinishedTables>> {
    run.check_place()?;
    let plan = TablesPlan::new(&model.config, &model.checkpoint)?;
    let name = run.name.tables();
    let targets = [(name.clone(), run.outputs([]).folder(ManifestKind::Tables))];
    let mut stage = Stage::open(run, &name, &targets, model.source, progress)?;
    if stage.is_finished() {
        return stage.commit_finished(run, &targets).map(RunOutcome::Published);
    }
    match fill(&mut stage, run, model, &plan, &name, progress) {
        Ok(finished) => {
            stage.commit()?;
            Ok(RunOutcome::Made(finished))
        }
        Err(error) => Err(stage.end(error)),
    }
}

fn fill(
    stage: &mut Stage<'_>,
    run: &RunOptions,
    model: &Model<'_>,
    plan: &TablesPlan,
    name: &str,
    progress: &dyn Progress,
) -> anyhow::Result<FinishedTables> {
    run.check_space(plan.bytes().saturating_sub(stage.held()))?;
    let Stage { folders, journal, .. } = stage;
    let [folder] = &folders[..] else { bail!("a run of tables has one folder") };
    progress.expect(plan.input_bytes());
    let (source, path) = (model.source, folder.path());
    let written =
        converter::tables::write(source, &model.checkpoint, plan, path, run.threads, progress, journal);
    progress.finish();
    let written = written?;
    source.verify_unchanged()?;
    finish(folder, &written, name, source)
}

/// Writes the per-layer table as one safetensors file.
///
/// # Errors
/// If the checkpoint cannot be read, the file must not be replaced or cannot be written, or the run is cancelled.
pub fn write_file(
    run: &RunOptions,
    model: &Model<'_>,
    progress: &dyn Progress,
) -> anyhow::Result<FinishedFile> {
    if run.resume {
        bail!(
            "--resume is for the folder of raw tables: a safetensors file is always written from the beginning"
        );
    }
    run.check_place()?;
    let output = run.outputs([]).file(FileKind::Safetensors);
    let file = StagedFile::new(&run.output.join(run.name.table_file()), output)?;
    let (config, checkpoint) = (&model.config, &model.checkpoint);
    run.check_space(safetensors::bytes(config))?;
    progress.expect(safetensors::input_bytes(config));
    let written = safetensors::write(model.source, config, checkpoint, file.file(), run.threads, progress);
    progress.finish();
    written?;
    model.source.verify_unchanged()?;
    let bytes = file.file().metadata()?.len();
    Ok(FinishedFile { path: file.commit()?, bytes })
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
        tool: TOOL.to_owned(),
        source: Some(bundle::source_record(source)?),
        conversion: Value::Null,
        tables_digest: None,
        compiled_from: None,
        recipe: Value::Null,
        gate: Value::Null,
        checksums: bundle::in_words(&written.checksums),
    };
    let manifest = manifest::seal(folder.path(), ManifestKind::Tables, name, provenance, &known)?;
    let stamp = manifest.tables_digest.context("the tables' manifest got no stamp")?;
    let bytes = manifest.files.iter().map(|file| file.size).sum();
    Ok(FinishedTables { path: folder.target().to_owned(), bytes, stamp })
}

/// The stamp of existing tables, which must be those of this checkpoint: an engine that is given others notices nothing.
pub(crate) fn stamp_of_own(folder: &Path, model: &Model<'_>) -> anyhow::Result<Digest> {
    let stamp = stamp_of(folder)?;
    let plan = TablesPlan::new(&model.config, &model.checkpoint)?;
    let remedy = "give those that were made from it, or leave --tables out";
    match converter::tables::difference(model.source, &model.checkpoint, &plan, folder)? {
        None => Ok(stamp),
        Some(TableDifference::Size { file, found, expected }) => {
            let found = found.map_or("is missing".to_owned(), |found| format!("has {found} bytes"));
            bail!("--tables: {} {found}, that of this checkpoint has {expected}: {remedy}", file.display())
        }
        Some(TableDifference::Row { file, row, tensor }) => bail!(
            "--tables: row {row} of {} is not that of {tensor} in this checkpoint, though they have the same shape: {remedy}",
            file.display()
        ),
    }
}

/// The stamp of existing tables.
pub(crate) fn stamp_of(folder: &Path) -> anyhow::Result<Digest> {
    let manifest = Manifest::read(folder).with_context(|| {
        format!("{} is not a table folder, such as OUT/NAME_gather_raw", folder.display())
    })?;
    match (manifest.kind, manifest.tables_digest) {
        (ManifestKind::Tables, Some(stamp)) => Ok(stamp),
        _ => bail!(
            "{}: its manifest is not that of a table folder; make one with `coreai-bundle tables`",
            folder.display()
        ),
    }
}
