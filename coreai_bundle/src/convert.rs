//! A checkpoint becomes bundles and tables.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ::oracle::gate::GateReport;
use ::oracle::reference::Reference;
use ::oracle::stepper::Stepper;
use ::oracle::tables::Tables;
use aimodel::package::PackageMetadata;
use anyhow::bail;
use converter::decoder::Variant;
use converter::journal::Journal;
use converter::name::ModelName;
use converter::{Model, Plan, Request, Written};
use interpreter::Session;
use output::{Digest, StagedDirectory};
use packer::TOOL;
use packer::manifest::ManifestKind;
use packer::replace::Outputs;
use packer::template::{Conversation, Renderer};
use packer::tokenizer::PreparedTokenizer;
use progress::Progress;
use report::{FunctionWork, Timing};

use crate::bundle::{self, BundleInputs, FinishedBundle};
use crate::gate;
use crate::options::{Formats, GraphChoice, as_options};
use crate::oracle::{self, GivenPrompts};
use crate::origin::{Access, Opener};
use crate::outputs::{RunOptions, creation_date, model_name};
use crate::reporting::{self, Clock, Facts, ReportFiles, Timeline};
use crate::source::SourceSpec;
use crate::stage::{RunOutcome, Stage, Target};
use crate::tables::{self, FinishedTables};

/// What to make from a checkpoint.
#[derive(Debug)]
pub struct ConversionOptions {
    /// Where to put it, and how.
    pub run: RunOptions,
    /// What to convert into. Whether tables are made follows from this and what is below.
    pub request: Request,
    /// Positions that the cache may grow to.
    pub max_context: u64,
    /// Tokens of a prompt that the engine should read at a time, where a function takes any number.
    pub prompt_chunk: NonZeroUsize,
    /// Existing tables, made from the same checkpoint.
    pub tables: Option<PathBuf>,
    /// Prompts by which every bundle is compared with the checkpoint, if that is wanted.
    pub gate: Option<GivenPrompts>,
    /// Whether a report is written beside the bundles.
    pub has_report: bool,
    /// Whether the checkpoint may be without a chat template.
    pub allow_no_template: bool,
}

/// A conversion of which everything except the weights is known.
pub struct Job<'a> {
    conversion: &'a ConversionOptions,
    model: &'a Model<'a>,
    /// Every byte of the outputs.
    pub plan: Plan,
    /// Stamp of tables that exist already.
    stamp: Option<Digest>,
}

/// What a conversion produced.
pub struct Finished {
    /// The bundles.
    pub bundles: Vec<FinishedBundle>,
    /// The tables, if some were made.
    pub tables: Option<FinishedTables>,
    /// What was written, with the statistics of all weights.
    pub written: Written,
    /// Functions of the first bundle.
    functions: Vec<FunctionWork>,
    timings: Vec<Timing>,
    timeline: Timeline,
}

impl Finished {
    /// What took how long.
    pub fn timings(&self) -> &[Timing] {
        &self.timings
    }
}

/// What a conversion reports to, and what renders its chat template.
#[derive(Clone, Copy)]
pub struct Watchers<'a> {
    /// Receives the progress in bytes of the checkpoint.
    pub bytes: &'a dyn Progress,
    /// Receives the progress of the gate in positions.
    pub positions: &'a dyn Progress,
    /// Renders chat templates.
    pub render: Renderer<'a>,
}

/// Refuses bundles that failed their gate if something would be replaced: a good bundle must not be lost.
fn refuse_failed<'f>(
    names: &[String],
    gates: &[GateReport],
    mut folders: impl Iterator<Item = &'f StagedDirectory>,
) -> anyhow::Result<()> {
    if gates.iter().all(|report| report.passed) || !folders.any(StagedDirectory::replaces) {
        return Ok(());
    }
    let mut text = "a bundle failed its gate, so nothing was replaced".to_owned();
    for (name, report) in names.iter().zip(gates) {
        text.push_str(&format!("\n  {name}: {}", gate::verdict(report)));
        report.causes.iter().for_each(|cause| text.push_str(&format!("\n    cause: {cause}")));
    }
    text.push_str("\nto look at the bundles, convert into another folder with -o");
    bail!(text)
}

/// The engine starts caches at 256 positions and doubles them.
fn check_context(max_context: u64, model: u64) -> anyhow::Result<()> {
    if max_context < 256 || !max_context.is_multiple_of(256) || !(max_context / 256).is_power_of_two() {
        bail!(
            "--max-context {max_context}: the engine starts its caches at 256 positions and doubles them; give 256, 512, 1024, ..."
        );
    }
    if max_context > model {
        bail!("--max-context {max_context}: the model was made for {model} positions at most");
    }
    Ok(())
}

/// Names of the outputs of a plan: the bundles, then the tables, if there are any.
pub(crate) fn names(plan: &Plan, name: &ModelName) -> Vec<String> {
    let bundles = plan.graphs.iter().map(|graph| name.bundle(graph));
    bundles.chain(plan.tables.as_ref().map(|_| name.tables())).collect()
}

/// A stage that has just ended.
fn timing(stage: &str, started: Instant, bytes: Option<u64>) -> Timing {
    Timing { stage: stage.to_owned(), seconds: started.elapsed().as_secs_f64(), bytes }
}

impl ConversionOptions {
    /// Outputs of this run, which reads the checkpoint and perhaps tables.
    fn outputs(&self) -> Outputs {
        self.run.outputs(self.tables.as_deref())
    }
}

impl<'a> Job<'a> {
    /// Plans the conversion of an opened checkpoint.
    ///
    /// # Errors
    /// If the checkpoint cannot be converted this way, or the given tables are not tables.
    pub fn new(conversion: &'a ConversionOptions, model: &'a Model<'a>) -> anyhow::Result<Self> {
        Job::of_plan(conversion, model, model.plan(&conversion.request)?)
    }

    /// Prepares a conversion that was planned from the same request.
    pub(crate) fn of_plan(
        conversion: &'a ConversionOptions,
        model: &'a Model<'a>,
        plan: Plan,
    ) -> anyhow::Result<Self> {
        check_context(conversion.max_context, model.config.max_positions as u64)?;
        conversion.run.check_place()?;
        let uses_tables = conversion.request.graphs.iter().any(|(variant, _)| *variant != Variant::Stock);
        let tables = conversion.tables.as_deref().filter(|_| uses_tables);
        let stamp = tables.map(|folder| tables::stamp_of_own(folder, model)).transpose()?;
        Ok(Job { conversion, model, plan, stamp })
    }

    /// Base name of the outputs.
    pub fn name(&self) -> &ModelName {
        &self.conversion.run.name
    }

    /// The outputs: the bundles, then the tables, if there are any.
    fn targets(&self) -> Vec<Target> {
        let outputs = self.conversion.outputs();
        let bundles = self.plan.graphs.len();
        let kind = |at: usize| if at < bundles { ManifestKind::Bundle } else { ManifestKind::Tables };
        let names = names(&self.plan, self.name()).into_iter().enumerate();
        names.map(|(at, name)| (name, outputs.folder(kind(at)))).collect()
    }

    /// Makes and publishes the outputs; publishes only what an earlier run had finished.
    ///
    /// # Errors
    /// If the checkpoint cannot be read, an output must not be replaced or cannot be written, or the run is cancelled.
    pub fn run(&self, watchers: Watchers<'_>) -> anyhow::Result<RunOutcome<Finished>> {
        let run = &self.conversion.run;
        let tokenizer = bundle::tokenizer(self.model, self.conversion.allow_no_template, watchers.render)?;
        if let Some(report) = self.report() {
            report.check(&self.conversion.outputs())?;
        }
        let targets = self.targets();
        let names: Vec<String> = targets.iter().map(|(name, _)| name.clone()).collect();
        let source = self.model.source;
        let mut stage = Stage::open(run, &names[0], &targets, source, watchers.bytes)?;
        if stage.is_finished() {
            return stage.commit_finished(run, &targets).map(RunOutcome::Published);
        }
        match self.fill(&mut stage, &names[..self.plan.graphs.len()], &tokenizer, watchers) {
            Ok(mut finished) => {
                let started = Instant::now();
                stage.commit()?;
                finished.timings.push(timing("syncing and publishing", started, None));
                Ok(RunOutcome::Made(finished))
            }
            Err(error) => Err(stage.end(error)),
        }
    }

    /// Makes everything that will be published; the tables' folder, if there is one, is the last.
    fn fill(
        &self,
        stage: &mut Stage<'_>,
        names: &[String],
        tokenizer: &PreparedTokenizer,
        watchers: Watchers<'_>,
    ) -> anyhow::Result<Finished> {
        let conversion = self.conversion;
        conversion.run.check_space(self.plan.bytes().saturating_sub(stage.held()))?;
        let work = stage.work();
        let Stage { folders, journal, .. } = stage;
        let (folders, table_folder) = folders.split_at(names.len());
        let table_folder = table_folder.first();

        let started = Instant::now();
        let (written, timeline) = self.write(names, folders, table_folder, &work, journal, watchers.bytes)?;
        let bytes = self.plan.input_bytes() + self.plan.bytes();
        let mut timings = vec![timing("reading, quantizing, writing", started, Some(bytes))];
        let started = Instant::now();
        let gates = self.gate(names, folders, table_folder, watchers)?;
        if conversion.gate.is_some() {
            timings.push(timing("gate", started, None));
        }
        refuse_failed(names, &gates, folders.iter().chain(table_folder))?;
        let mut gates = gates.into_iter();
        let tables = match (table_folder, &written.tables) {
            (Some(folder), Some(written)) => {
                Some(tables::finish(folder, written, &self.name().tables(), self.model.source)?)
            }
            _ => None,
        };
        let stamp = tables.as_ref().map(|tables| tables.stamp).or(self.stamp);
        let bundles = folders.iter().enumerate().map(|(at, folder)| {
            let facts = BundleInputs {
                name: &names[at],
                graph: &self.plan.graphs[at],
                package: &written.packages[at],
                model: self.model,
                plan: &self.plan,
                statistics: &written.statistics,
                checksums: &written.checksums,
                max_context: conversion.max_context,
                prompt_chunk: conversion.prompt_chunk.get() as u64,
                stamp,
                gate: gates.next(),
            };
            bundle::assemble(folder, &facts, tokenizer)
        });
        let bundles = bundles.collect::<anyhow::Result<Vec<_>>>()?;
        let functions = bundles.first().map(|bundle| bundle.functions.clone()).unwrap_or_default();
        Ok(Finished { bundles, tables, written, functions, timings, timeline })
    }

    /// Compares the packages with the checkpoint, if that was asked for.
    fn gate(
        &self,
        names: &[String],
        folders: &[StagedDirectory],
        made: Option<&StagedDirectory>,
        watchers: Watchers<'_>,
    ) -> anyhow::Result<Vec<GateReport>> {
        let Some(prompts) = &self.conversion.gate else { return Ok(Vec::new()) };
        let mut reference = Reference::open(self.model.source)?;
        let source = self.model.source;
        let oracle = oracle::of_prompts(source, &reference, prompts, watchers.render, watchers.positions)?;
        let tables = made.map(StagedDirectory::path).or(self.conversion.tables.as_deref());
        let reports = folders.iter().zip(names).map(|(folder, name)| {
            let session = Session::open(&folder.path().join(bundle::asset_name(name)))?;
            let mut stepper = Stepper::new(session, tables.map(Tables::open).transpose()?)?;
            stepper.set_feeding(stepper.feeding_of_engine(self.conversion.prompt_chunk))?;
            gate::measure(&mut stepper, &oracle, Some(&mut reference), false, watchers.positions)
        });
        reports.collect()
    }

    fn write(
        &self,
        names: &[String],
        folders: &[StagedDirectory],
        tables: Option<&StagedDirectory>,
        work: &Path,
        journal: &mut Journal,
        progress: &dyn Progress,
    ) -> anyhow::Result<(Written, Timeline)> {
        let packages: Vec<PathBuf> = folders
            .iter()
            .zip(names)
            .map(|(folder, name)| folder.path().join(bundle::asset_name(name)))
            .collect();
        let metadata = PackageMetadata::new(TOOL, &creation_date()?);
        progress.expect(self.plan.input_bytes());
        let clock = Clock::new(progress);
        let places = converter::Outputs {
            packages: &packages,
            tables: tables.map(StagedDirectory::path),
            scratch: work,
            metadata: &metadata,
        };
        let threads = self.conversion.run.threads;
        let written = self.model.write(&self.plan, &places, threads, &clock, journal);
        progress.finish();
        Ok((written?, clock.finish()))
    }

    /// Name of the first bundle, which is also the report's.
    fn first_name(&self) -> String {
        self.plan.graphs.first().map(|graph| self.name().bundle(graph)).unwrap_or_default()
    }

    /// The report's files, if one is requested.
    fn report(&self) -> Option<ReportFiles> {
        let is_wanted = self.conversion.has_report;
        is_wanted.then(|| ReportFiles::at(&self.conversion.run.output, &self.first_name()))
    }

    /// Writes the report, if one is requested; returns its files.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn write_report(&self, finished: &Finished) -> anyhow::Result<Option<ReportFiles>> {
        let Some(files) = self.report() else { return Ok(None) };
        let report = reporting::of_conversion(&Facts {
            name: &self.first_name(),
            run: &self.conversion.run,
            is_gated: self.conversion.gate.is_some(),
            model: self.model,
            plan: &self.plan,
            statistics: &finished.written.statistics,
            max_context: self.conversion.max_context,
            bundles: &finished.bundles,
            stamp: finished.tables.as_ref().map(|tables| tables.stamp).or(self.stamp),
            functions: finished.functions.clone(),
            timings: &finished.timings,
            timeline: &finished.timeline,
        });
        files.write(&report, &self.conversion.outputs())?;
        Ok(Some(files))
    }
}

/// A conversion in one call, with the choices that most programs have; [`Job`] has all of them.
#[derive(Clone, Debug)]
pub struct ConvertRequest {
    /// Folder of the checkpoint, or its repository on the Hub, by name or address.
    pub source: String,
    /// Branch, tag or commit of a repository; `main` otherwise.
    pub revision: Option<String>,
    /// Folder for the outputs.
    pub output: PathBuf,
    /// How the weights are stored.
    pub formats: Formats,
    /// Which graphs are made. Those that need tables get new ones.
    pub graphs: GraphChoice,
    /// Prompts by which every bundle is compared with the checkpoint, if that is wanted; the default ones if the value is empty.
    pub gate: Option<GivenPrompts>,
    /// Whether to replace outputs of this tool that exist.
    pub force: bool,
}

impl ConvertRequest {
    /// A request with the defaults of the command.
    pub fn new(source: impl Into<String>, output: impl Into<PathBuf>) -> Self {
        ConvertRequest {
            source: source.into(),
            revision: None,
            output: output.into(),
            formats: Formats::default(),
            graphs: GraphChoice::default(),
            gate: None,
            force: false,
        }
    }
}

/// Converts a checkpoint into bundles and tables.
///
/// # Errors
/// If the checkpoint cannot be read or converted this way, an output must not be replaced or cannot be written, or the run is
/// cancelled.
pub fn convert(request: &ConvertRequest, progress: &dyn Progress) -> anyhow::Result<Finished> {
    let opener = Opener { cancelled: || false, progress };
    let source = SourceSpec::parse(&request.source, request.revision.as_deref())?;
    // A gate reads the checkpoint many times.
    let access = if request.gate.is_some() { Access::kept(&source) } else { Access::default() };
    let opened = opener.open(&source, access)?;
    let model = Model::open(&*opened.source)?;
    let conversion = ConversionOptions {
        run: RunOptions {
            source,
            output: request.output.clone(),
            name: model_name(None, &opened.name, &model.config)?,
            resume: false,
            force: request.force,
            threads: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            typed: as_options(
                &request.formats,
                &request.graphs,
                &request.graphs.variant_names(&model.config),
            ),
        },
        request: request.formats.request(&request.graphs, &model.config, true)?,
        max_context: request.graphs.max_context,
        prompt_chunk: request.graphs.chunk,
        tables: None,
        gate: request.gate.clone(),
        has_report: true,
        allow_no_template: false,
    };
    let job = Job::new(&conversion, &model)?;
    let render = Conversation::render;
    match job.run(Watchers { bytes: progress, positions: progress, render: &render })? {
        RunOutcome::Made(finished) => {
            job.write_report(&finished)?;
            Ok(finished)
        }
        RunOutcome::Published(_) => bail!("the run was not resumed, but found finished outputs"),
    }
}
