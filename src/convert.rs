//! `coreai-bundle convert`: a checkpoint becomes bundles and tables.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};
use coreai_bundle::build::for_iphone;
use coreai_bundle::convert::{ConversionOptions, Finished, Job, Watchers};
use coreai_bundle::gate::verdict;
use coreai_bundle::options::{
    DEFAULT_CONTEXT, Embedding, Formats, GraphChoice, Head, PerLayer, TensorFormat, Weights, as_options,
};
use coreai_bundle::oracle::GivenPrompts;
use coreai_bundle::origin::{Access, Opened};
use coreai_bundle::parts::checkpoint::config::DecoderConfig;
use coreai_bundle::parts::converter::decoder::{CacheForm, Variant};
use coreai_bundle::parts::converter::{Model, Plan};
use coreai_bundle::parts::oracle::gate::GateReport;
use coreai_bundle::parts::text::shell::quoted;
use coreai_bundle::parts::text::terminal::word;
use coreai_bundle::reporting::ReportFiles;
use coreai_bundle::source::SourceSpec;
use coreai_bundle::stage::RunOutcome;
use serde_json::json;

use crate::cli::Rule;
use crate::outputs::{Common, typed};
use crate::progress::Bar;
use crate::prompts::Prompts;
use crate::{digits, interrupt, origin, plan_text, published, template, terminal};

/// Convert a checkpoint into bundles
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle convert gemma-4-E4B-it-qat --dry-run
  coreai-bundle convert gemma-4-E4B-it-qat -o out --variant both
  coreai-bundle convert gemma-4-31B-it-qat -o out --cache split")]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    /// Where the graph gets its per-layer rows from [default: provider; stock for models without such rows]
    #[arg(long, value_enum)]
    variant: Option<VariantChoice>,
    /// Caches of keys and values
    #[arg(long, value_enum, default_value_t = Caches::Padded)]
    cache: Caches,
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
    /// Format of some of the projections or of the head, instead: head, attention, mlp, per-layer, or a name with wildcards, and int4,
    /// int8, f16, or int4:RULE. May be repeated; the first that matches counts
    #[arg(long = "format", value_name = "PATTERN=FORMAT")]
    formats: Vec<TensorFormat>,
    /// How tokens are looked up [default: f16; auto for stock]
    #[arg(long, value_enum)]
    embedding: Option<Embedding>,
    /// Format of the per-layer table of a stock graph; auto decides from a sample of its blocks [default: auto]
    #[arg(long, value_enum)]
    per_layer: Option<PerLayer>,
    /// Positions the cache may grow to: 256, 512, 1024, ...
    #[arg(long, value_name = "N", default_value_t = DEFAULT_CONTEXT)]
    max_context: u64,
    /// Use these tables, which were made from the same checkpoint, instead of making them
    #[arg(long, value_name = "DIR", conflicts_with = "no_tables")]
    tables: Option<PathBuf>,
    /// Make no tables, and put no stamp of them into the bundle
    #[arg(long)]
    no_tables: bool,
    /// Compare every bundle with the checkpoint in fp32, and put the report into its manifest; bundles that fail replace nothing
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
    /// The host provides the row at each step
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

/// Caches of keys and values, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Caches {
    /// One pair for all layers, as wide as full layers need it
    Padded,
    /// A pair for sliding layers and one for full ones, less than half as large; only for models without per-layer rows
    Split,
}

impl From<Caches> for CacheForm {
    fn from(typed: Caches) -> Self {
        match typed {
            Caches::Padded => CacheForm::Padded,
            Caches::Split => CacheForm::Split,
        }
    }
}

impl Arguments {
    fn formats(&self) -> Formats {
        Formats {
            weights: self.weights,
            rule: self.rule.into(),
            head: self.head,
            embedding: self.embedding,
            per_layer: self.per_layer,
            overrides: self.formats.clone(),
        }
    }

    fn graphs(&self) -> GraphChoice {
        GraphChoice {
            variants: self.variant.map(VariantChoice::variants).unwrap_or_default(),
            caches: self.cache.into(),
            main: self.prompts.main,
            prefill: self.prompts.prefill,
            chunk: self.prompts.chunk,
            max_context: self.max_context,
        }
    }

    fn conversion(
        &self,
        source: (&SourceSpec, &Opened),
        model: &Model<'_>,
    ) -> anyhow::Result<ConversionOptions> {
        let (formats, graphs) = (self.formats(), self.graphs());
        let variants = graphs.variants(&model.config);
        let variant = self.variant.map_or_else(|| variants[0].name().to_owned(), |choice| typed(&choice));
        let mut options = as_options(&formats, &graphs, &variant);
        let tables = self.tables.as_deref().map_or("none".to_owned(), |path| path.display().to_string());
        options.insert("--tables".to_owned(), tables);
        options.insert("--no-tables".to_owned(), self.no_tables.to_string());
        Ok(ConversionOptions {
            run: self.common.run_options(source, &model.config, options)?,
            request: formats.request(&graphs, &model.config, !self.no_tables && self.tables.is_none())?,
            max_context: self.max_context,
            prompt_chunk: self.prompts.chunk,
            tables: self.tables.clone(),
            gate: self.gate.then(GivenPrompts::default),
            has_report: !self.no_report,
            allow_no_template: self.no_chat_template,
        })
    }

    /// A gate reads the checkpoint many times, so it is kept then.
    fn access(&self, source: &SourceSpec) -> Access {
        let access = self.common.access.access();
        if self.gate { Access { verify: access.verify, ..Access::kept(source) } } else { access }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    let source = common.access.source(&common.source)?;
    let opened = origin::open(&source, arguments.access(&source))?;
    let model = Model::open(&*opened.source)?;
    let conversion = arguments.conversion((&source, &opened), &model)?;
    let job = Job::new(&conversion, &model)?;
    if arguments.dry_run {
        return plan_text::print(&job.plan, job.name());
    }
    warn(&job.plan);
    interrupt::listen()?;
    let (bytes, positions) = (Bar::or_events("tensor"), Bar::of_positions());
    let watchers = Watchers { bytes: &bytes, positions: &positions, render: &template::render };
    let finished = match job.run(watchers)? {
        RunOutcome::Made(finished) => finished,
        RunOutcome::Published(manifests) => {
            return published::print(&conversion.run.output, &manifests);
        }
    };
    let note = "the outputs are complete, but their report could not be written";
    let report = job.write_report(&finished).context(note)?;
    print(&job.plan, &finished, report.as_ref())?;
    if !terminal::is_json() && !terminal::is_quiet() {
        advise(arguments.max_context, &model.config, &conversion.run.output, &finished)?;
    }
    let gates = finished.bundles.iter().filter_map(|bundle| bundle.gate.as_ref());
    Ok(ExitCode::from(gates.map(GateReport::exit_code).max().unwrap_or(0)))
}

fn warn(plan: &Plan) {
    if terminal::is_json() {
        return;
    }
    let head = &plan.head;
    terminal::tell(format_args!("head: {}, {}", head.treatment.format(), head.reason));
    plan_text::table_lines(plan).for_each(terminal::tell);
    if head.off_lattice {
        terminal::tell("warning: int4 will lose accuracy; consider --weights int8");
    }
}

fn print(plan: &Plan, finished: &Finished, report: Option<&ReportFiles>) -> anyhow::Result<()> {
    let mut out = terminal::out();
    let totals = finished.written.statistics.totals();
    if terminal::is_json() {
        let result = json!({
            "event": "done",
            "bundles": finished.bundles,
            "tables": finished.tables,
            "head": plan.head,
            "table_forms": plan.table_forms,
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
            writeln!(out, "  {}", verdict(report))?;
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

/// What users do next, and what they find out late.
fn advise(max_context: u64, config: &DecoderConfig, folder: &Path, finished: &Finished) -> io::Result<()> {
    for stage in finished.timings() {
        terminal::tell_more(format_args!("{}: {:.1} s", stage.stage, stage.seconds));
    }
    let shown = |path: &Path| word(&quoted(path)).to_string();
    let bundles = finished.bundles.iter();
    let for_phones = bundles.clone().find(|bundle| bundle.variant != Variant::Table.name());
    let mut out = terminal::out();
    if let Some((bundle, what)) = for_phones.zip(for_iphone(max_context, config)) {
        let path = shown(&bundle.path);
        writeln!(out, "note: {what}, with `coreai-bundle aotc {path} --arch h18p`")?;
    }
    let members = bundles.map(|bundle| &bundle.path).chain(finished.tables.iter().map(|tables| &tables.path));
    let members: Vec<String> = members.map(|path| shown(path)).collect();
    if !members.is_empty() {
        writeln!(
            out,
            "next: coreai-bundle release {} -o {}",
            members.join(" "),
            shown(&folder.join("release"))
        )?;
    }
    Ok(())
}
