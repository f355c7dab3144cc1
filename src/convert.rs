//! `coreai-bundle convert`: a checkpoint becomes bundles and tables.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use ::oracle::gate::GateReport;
use ::oracle::interpreter::Session;
use ::oracle::reference::Reference;
use ::oracle::stepper::Stepper;
use ::oracle::tables::Tables;
use aimodel::package::PackageMetadata;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use converter::decoder::Variant;
use converter::journal::Journal;
use converter::name::ModelName;
use converter::{Model, Plan, Request, Written};
use output::{Digest, StagedDirectory};
use packer::manifest::ManifestKind;
use packer::replace::Outputs;
use packer::tokenizer::PreparedTokenizer;
use report::Timing;
use serde_json::json;

use crate::bundle::{self, BundleFacts, FinishedBundle};
use crate::cli::{Rule, Weights};
use crate::origin::Origin;
use crate::outputs::Common;
use crate::progress::Progress;
use crate::prompts::Prompts;
use crate::reporting::{self, Clock, Facts, Timeline};
use crate::stage::{Options, Stage, Target};
use crate::{
    digits, gate, interrupt, oracle, origin, outputs, plan_text, published, stage, tables, terminal,
};

/// Convert a checkpoint into bundles
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle convert gemma-4-E4B-it-qat --dry-run
  coreai-bundle convert gemma-4-E4B-it-qat -o out --variant both")]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Where the graph gets its per-layer rows from
    #[arg(long, value_enum, default_value_t = VariantChoice::Provider)]
    variant: VariantChoice,
    #[command(flatten)]
    prompts: Prompts,
    /// Format of projections
    #[arg(long, value_enum, default_value_t = Weights::Int4)]
    weights: Weights,
    /// Format of the head; auto decides from a sample of its blocks
    #[arg(long, value_enum, default_value_t = Head::Auto)]
    head: Head,
    /// Rule for 4-bit codes
    #[arg(long, value_enum, default_value_t = Rule::Lattice)]
    rule: Rule,
    /// Positions the cache may grow to: 256, 512, 1024, ...
    #[arg(long, value_name = "N", default_value_t = 4096)]
    max_context: u64,
    /// Use these tables, made before from the same checkpoint, instead of making them
    #[arg(long, value_name = "DIR", conflicts_with = "no_tables")]
    tables: Option<PathBuf>,
    /// Make no tables, and leave the bundle without their stamp
    #[arg(long)]
    no_tables: bool,
    /// Hold every bundle against the checkpoint in fp32, and put the report into its manifest; bundles that fail replace nothing
    #[arg(long, conflicts_with_all = ["no_tables", "dry_run"])]
    gate: bool,
    /// Write no report beside the bundles
    #[arg(long)]
    no_report: bool,
    /// Accept a checkpoint without a chat template
    #[arg(long)]
    no_chat_template: bool,
    /// Say what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// Graphs to make, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum VariantChoice {
    /// The host gives the row at each step
    Provider,
    /// The tables are inputs, bound once
    Tbl,
    /// Provider and tbl, sharing one folder of tables
    Both,
    /// The tables are in the graph; Apple's unpatched engine runs it
    Stock,
}

impl VariantChoice {
    fn variants(self) -> Vec<Variant> {
        match self {
            VariantChoice::Provider => vec![Variant::Provider],
            VariantChoice::Tbl => vec![Variant::Table],
            VariantChoice::Both => vec![Variant::Provider, Variant::Table],
            VariantChoice::Stock => vec![Variant::Stock],
        }
    }
}

/// Format of the head, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Head {
    /// int4 if it lies on the lattice, int8 if only the rest does
    Auto,
    /// 4-bit codes
    Int4,
    /// 8-bit codes
    Int8,
    /// Half precision
    F16,
}

impl Head {
    /// The format that was asked for, if one was.
    fn weights(self) -> Option<Weights> {
        match self {
            Head::Auto => None,
            Head::Int4 => Some(Weights::Int4),
            Head::Int8 => Some(Weights::Int8),
            Head::F16 => Some(Weights::F16),
        }
    }
}

impl Arguments {
    /// Options that the outputs depend on.
    fn options(&self) -> Options {
        let tables = self.tables.as_deref().map_or("none".to_owned(), |path| path.display().to_string());
        let options = [
            ("--variant", stage::typed(&self.variant)),
            ("--weights", stage::typed(&self.weights)),
            ("--head", stage::typed(&self.head)),
            ("--rule", stage::typed(&self.rule)),
            ("--max-context", self.max_context.to_string()),
            ("--main", stage::typed(&self.prompts.main)),
            ("--prefill", self.prompts.prefill.to_string()),
            ("--prefill-chunk", self.prompts.chunk.to_string()),
            ("--tables", tables),
            ("--no-tables", self.no_tables.to_string()),
        ];
        options.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// Outputs of this run, which reads the checkpoint and perhaps tables.
    fn outputs(&self) -> Outputs {
        self.common.outputs(self.tables.as_deref())
    }

    /// A gate computes the checkpoint many times over, so it is then kept.
    fn open(&self) -> anyhow::Result<Origin> {
        let Common { source, access, .. } = &self.common;
        if self.gate {
            return origin::open_kept(source, access.revision.as_deref());
        }
        origin::open(source, access)
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let origin = arguments.open()?;
    let model = Model::open(&*origin.source)?;
    check_context(arguments.max_context, model.config.max_positions as u64)?;
    let name = arguments.common.model_name(&origin.name, &model.config)?;
    let graphs = arguments.prompts.graphs(&arguments.variant.variants())?;
    let wants_tables = arguments.variant != VariantChoice::Stock;
    let request = Request {
        tables: wants_tables && !arguments.no_tables && arguments.tables.is_none(),
        projections: arguments.weights.treatment(arguments.rule),
        head: arguments.head.weights().map(|head| head.treatment(arguments.rule)),
        graphs,
    };
    let stamp = match &arguments.tables {
        Some(folder) if wants_tables => Some(tables::stamp_of(folder)?),
        _ => None,
    };
    let plan = model.plan(&request)?;
    if arguments.dry_run {
        return plan_text::print(&plan, &name, arguments.common.json);
    }
    warn(&plan, arguments);
    let job = Job { arguments, model: &model, plan: &plan, name: &name, stamp };
    let Some(finished) = job.run()? else {
        return published::print(&arguments.common, &job.targets());
    };
    let report = job.report();
    if let Some(report) = &report {
        let note = "the outputs are complete, but their report could not be written";
        job.write_report(&finished, report).context(note)?;
    }
    job.print(&finished, report.as_ref())?;
    Ok(finished.exit_code())
}

/// Refuses bundles that failed their gate where something would be replaced: who has a good bundle keeps it.
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
            "--max-context {max_context}: the engine doubles its caches from 256 on; give 256, 512, 1024, ..."
        );
    }
    if max_context > model {
        bail!("--max-context {max_context}: the model was made for {model} positions at most");
    }
    Ok(())
}

fn warn(plan: &Plan, arguments: &Arguments) {
    if arguments.common.json {
        return;
    }
    let head = &plan.head;
    terminal::tell(format_args!("head: {}, {}", head.treatment.format(), head.reason));
    if head.off_lattice {
        terminal::tell("warning: int4 will lose accuracy; consider --weights int8");
    }
}

/// A stage that has just ended.
fn timing(stage: &str, started: Instant, bytes: Option<u64>) -> Timing {
    Timing { stage: stage.to_owned(), seconds: started.elapsed().as_secs_f64(), bytes }
}

/// A conversion that is to be carried out.
struct Job<'a> {
    arguments: &'a Arguments,
    model: &'a Model<'a>,
    plan: &'a Plan,
    name: &'a ModelName,
    /// Stamp of tables that exist already.
    stamp: Option<Digest>,
}

/// What a conversion left behind.
struct Finished {
    bundles: Vec<FinishedBundle>,
    tables: Option<tables::FinishedTables>,
    written: Written,
    timings: Vec<Timing>,
    timeline: Timeline,
}

impl Finished {
    /// 1 if a bundle failed its gate.
    fn exit_code(&self) -> ExitCode {
        let reports = self.bundles.iter().filter_map(|bundle| bundle.gate.as_ref());
        ExitCode::from(reports.map(GateReport::exit_code).max().unwrap_or(0))
    }
}

impl Job<'_> {
    /// The outputs: the bundles, then the tables, if there are any.
    fn targets(&self) -> Vec<Target> {
        let outputs = self.arguments.outputs();
        let (bundle, tables) = (outputs.folder(ManifestKind::Bundle), outputs.folder(ManifestKind::Tables));
        let bundles =
            self.plan.graphs.iter().map(|graph| self.name.bundle(graph.variant, graph.recipe.projections));
        let bundles = bundles.map(|name| (name, bundle.clone()));
        bundles.chain(self.plan.tables.as_ref().map(|_| (self.name.tables(), tables))).collect()
    }

    /// Nothing is left behind by a run that only publishes what an earlier one had finished.
    fn run(&self) -> anyhow::Result<Option<Finished>> {
        let common = &self.arguments.common;
        interrupt::listen()?;
        let tokenizer = bundle::tokenizer(self.model, self.arguments.no_chat_template)?;
        if let Some(report) = self.report() {
            report.check(&self.arguments.outputs())?;
        }
        let targets = self.targets();
        let names: Vec<String> = targets.iter().map(|(name, _)| name.clone()).collect();
        let mut stage =
            Stage::open(common, &names[0], &targets, self.model.source, self.arguments.options())?;
        if stage.is_finished() {
            stage.commit()?;
            return Ok(None);
        }
        match self.fill(&mut stage, &names[..self.plan.graphs.len()], &tokenizer) {
            Ok(mut finished) => {
                let started = Instant::now();
                stage.commit()?;
                finished.timings.push(timing("syncing and publishing", started, None));
                Ok(Some(finished))
            }
            Err(error) => Err(stage.end(error)),
        }
    }

    /// Makes everything that is to be published; the tables' folder, if there is one, is the last.
    fn fill(
        &self,
        stage: &mut Stage,
        names: &[String],
        tokenizer: &PreparedTokenizer,
    ) -> anyhow::Result<Finished> {
        let arguments = self.arguments;
        let needed = self.plan.bytes().saturating_sub(stage.held());
        outputs::check_space(&arguments.common.output, needed)?;
        let work = stage.work();
        let Stage { folders, journal, .. } = stage;
        let (folders, table_folder) = folders.split_at(names.len());
        let table_folder = table_folder.first();

        let started = Instant::now();
        let (written, timeline) = self.write(names, folders, table_folder, &work, journal)?;
        let bytes = self.plan.input_bytes() + self.plan.bytes();
        let mut timings = vec![timing("reading, quantizing, writing", started, Some(bytes))];
        let started = Instant::now();
        let gates = self.gate(names, folders, table_folder)?;
        if arguments.gate {
            timings.push(timing("gate", started, None));
        }
        refuse_failed(names, &gates, folders.iter().chain(table_folder))?;
        let mut gates = gates.into_iter();
        let tables = match (table_folder, &written.tables) {
            (Some(folder), Some(written)) => {
                Some(tables::finish(folder, written, &self.name.tables(), self.model.source)?)
            }
            _ => None,
        };
        let stamp = tables.as_ref().map(|tables| tables.stamp).or(self.stamp);
        let bundles = folders.iter().enumerate().map(|(at, folder)| {
            let facts = BundleFacts {
                name: &names[at],
                graph: &self.plan.graphs[at],
                package: &written.packages[at],
                model: self.model,
                plan: self.plan,
                statistics: &written.statistics,
                max_context: arguments.max_context,
                chunk: arguments.prompts.chunk.get(),
                stamp,
                gate: gates.next(),
            };
            bundle::assemble(folder, &facts, tokenizer)
        });
        let bundles = bundles.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Finished { bundles, tables, written, timings, timeline })
    }

    /// Holds the packages against the checkpoint, if that was asked.
    fn gate(
        &self,
        names: &[String],
        folders: &[StagedDirectory],
        made: Option<&StagedDirectory>,
    ) -> anyhow::Result<Vec<GateReport>> {
        if !self.arguments.gate {
            return Ok(Vec::new());
        }
        let mut reference = Reference::open(self.model.source)?;
        let oracle = oracle::by_default(self.model.source, &mut reference)?;
        let tables = made.map(StagedDirectory::path).or(self.arguments.tables.as_deref());
        let reports = folders.iter().zip(names).map(|(folder, name)| {
            let session = Session::open(&folder.path().join(bundle::asset_name(name)))?;
            let mut stepper = Stepper::new(session, tables.map(Tables::open).transpose()?)?;
            gate::measure(&mut stepper, &oracle, Some(&mut reference), false)
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
    ) -> anyhow::Result<(Written, Timeline)> {
        let packages: Vec<PathBuf> = folders
            .iter()
            .zip(names)
            .map(|(folder, name)| folder.path().join(bundle::asset_name(name)))
            .collect();
        let metadata = PackageMetadata::new(&outputs::tool(), &outputs::creation_date()?);
        let progress = Progress::new(self.plan.input_bytes(), self.arguments.common.json);
        let clock = Clock::new(&progress);
        let places = converter::Outputs {
            packages: &packages,
            tables: tables.map(StagedDirectory::path),
            scratch: work,
            metadata: &metadata,
        };
        let threads = self.arguments.common.threads();
        let written = self.model.write(self.plan, &places, threads, &clock, journal);
        progress.finish();
        Ok((written?, clock.finish()))
    }

    /// Name of the first bundle, which is the report's too.
    fn first_name(&self) -> String {
        let name =
            self.plan.graphs.first().map(|graph| self.name.bundle(graph.variant, graph.recipe.projections));
        name.unwrap_or_default()
    }

    /// The report's files, if one is wanted.
    fn report(&self) -> Option<reporting::Written> {
        let is_wanted = !self.arguments.no_report;
        is_wanted.then(|| reporting::Written::at(&self.arguments.common.output, &self.first_name()))
    }

    fn write_report(&self, finished: &Finished, files: &reporting::Written) -> anyhow::Result<()> {
        let gates = finished.bundles.iter().filter_map(|bundle| Some((bundle.name(), bundle.gate.as_ref()?)));
        let report = reporting::of_conversion(&Facts {
            name: &self.first_name(),
            source: &self.arguments.common.source,
            model: self.model,
            plan: self.plan,
            statistics: &finished.written.statistics,
            gates: gates.collect(),
            timings: &finished.timings,
            timeline: &finished.timeline,
        });
        files.write(&report, &self.arguments.outputs())
    }

    fn print(&self, finished: &Finished, report: Option<&reporting::Written>) -> anyhow::Result<()> {
        let mut out = terminal::out();
        let totals = finished.written.statistics.totals();
        if self.arguments.common.json {
            let result = json!({
                "event": "done",
                "bundles": finished.bundles,
                "tables": finished.tables,
                "head": self.plan.head,
                "weights": totals,
                "report": report,
            });
            terminal::print_json(&result)?;
            return Ok(());
        }
        for bundle in &finished.bundles {
            writeln!(out, "{}  {}, {}", bundle.path.display(), bundle.variant, digits::bytes(bundle.bytes))?;
            bundle.repairs.iter().try_for_each(|repair| writeln!(out, "  {repair}"))?;
            if let Some(report) = &bundle.gate {
                writeln!(out, "  {}", gate::verdict(report))?;
                report.reasons().try_for_each(|reason| writeln!(out, "  {reason}"))?;
            }
        }
        if let Some(tables) = &finished.tables {
            writeln!(out, "{}  tables, {}", tables.path.display(), digits::bytes(tables.bytes))?;
        }
        for total in totals {
            writeln!(out, "{}", plan_text::total_line(&total))?;
        }
        if let Some(report) = report {
            writeln!(out, "{}  report", report.html.display())?;
        }
        Ok(())
    }
}
