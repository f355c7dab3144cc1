//! `coreai-bundle convert`: a checkpoint becomes bundles and tables.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ::oracle::gate::GateReport;
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use converter::decoder::{CacheForm, Variant};
use converter::embedding::TableForms;
use converter::recipe::{EmbeddingForm, PerLayerForm};
use converter::{Model, Plan, Request};
use serde_json::json;
use workflow::convert::{ConversionOptions, Finished, Job, Watchers};
use workflow::gate::verdict;
use workflow::origin::Access;
use workflow::reporting::ReportFiles;
use workflow::stage::RunOutcome;

use crate::cli::{Rule, Weights};
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
    /// How tokens are looked up [default: f16; auto for stock]
    #[arg(long, value_enum)]
    embedding: Option<Embedding>,
    /// Format of the per-layer table of a stock graph; auto decides from a sample of its blocks [default: auto]
    #[arg(long, value_enum)]
    per_layer: Option<PerLayer>,
    /// Positions the cache may grow to: 256, 512, 1024, ...
    #[arg(long, value_name = "N", default_value_t = 4096)]
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

/// How tokens are looked up, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Embedding {
    /// shared if a sample of the table lies on the lattice and the head has codes, else f16
    Auto,
    /// In the head's codes, through a table of bytes: exact, and nothing is stored twice
    Shared,
    /// In the head, dequantized as a whole
    Dequantized,
    /// In the head's codes, as numbers of 4 bits
    Si4,
    /// In a table of half-precision numbers, as in the published bundles
    F16,
}

impl Embedding {
    /// The form that was asked for, if one was.
    fn form(self) -> Option<EmbeddingForm> {
        match self {
            Embedding::Auto => None,
            Embedding::Shared => Some(EmbeddingForm::Shared),
            Embedding::Dequantized => Some(EmbeddingForm::Dequantized),
            Embedding::Si4 => Some(EmbeddingForm::Si4),
            Embedding::F16 => Some(EmbeddingForm::F16),
        }
    }
}

/// Format of the per-layer table, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum PerLayer {
    /// int4 if a sample of the table lies on the lattice, else int8
    Auto,
    /// 4-bit codes with a scale for each block of 32: exact on the lattice
    Int4,
    /// 8-bit codes with a scale for each row
    Int8,
}

impl Arguments {
    /// Options that the outputs depend on.
    fn typed(&self, variant: VariantChoice) -> BTreeMap<String, String> {
        let tables = self.tables.as_deref().map_or("none".to_owned(), |path| path.display().to_string());
        let options = [
            ("--variant", typed(&variant)),
            ("--weights", typed(&self.weights)),
            ("--head", typed(&self.head)),
            ("--rule", typed(&self.rule)),
            ("--max-context", self.max_context.to_string()),
            ("--main", typed(&self.prompts.main)),
            ("--prefill", self.prompts.prefill.to_string()),
            ("--prefill-chunk", self.prompts.chunk.to_string()),
            ("--tables", tables),
            ("--no-tables", self.no_tables.to_string()),
        ];
        let caches = (self.cache != Caches::Padded).then(|| ("--cache", typed(&self.cache)));
        let embedding = self.embedding.map(|form| ("--embedding", typed(&form)));
        let per_layer = self.per_layer.map(|form| ("--per-layer", typed(&form)));
        options
            .into_iter()
            .chain(caches)
            .chain(embedding)
            .chain(per_layer)
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }

    fn conversion(&self, model: &Model<'_>) -> anyhow::Result<ConversionOptions> {
        let has_rows = model.config.per_layer.is_some();
        let default = if has_rows { VariantChoice::Provider } else { VariantChoice::Stock };
        let variant = self.variant.unwrap_or(default);
        let wants_tables = variant != VariantChoice::Stock;
        if self.per_layer.is_some() && (wants_tables || !has_rows) {
            bail!(
                "--per-layer is for --variant stock of models with per-layer rows: no other graph holds their table"
            );
        }
        Ok(ConversionOptions {
            run: self.common.run_options(self.typed(variant)),
            request: Request {
                graphs: self.prompts.graphs(&variant.variants())?,
                caches: self.cache.into(),
                tables: wants_tables && !self.no_tables && self.tables.is_none(),
                projections: self.weights.treatment(self.rule),
                head: self.head.weights().map(|head| head.treatment(self.rule)),
                table_forms: self.table_forms(variant),
            },
            max_context: self.max_context,
            prompt_chunk: self.prompts.chunk,
            tables: self.tables.clone(),
            is_gated: self.gate,
            has_report: !self.no_report,
            allow_no_template: self.no_chat_template,
        })
    }

    /// Published bundles are the default where there are some.
    fn table_forms(&self, variant: VariantChoice) -> TableForms {
        let default = if variant == VariantChoice::Stock { Embedding::Auto } else { Embedding::F16 };
        let per_layer = match self.per_layer.unwrap_or(PerLayer::Auto) {
            PerLayer::Auto => None,
            PerLayer::Int4 => Some(PerLayerForm::Int4(self.rule.into())),
            PerLayer::Int8 => Some(PerLayerForm::Int8),
        };
        TableForms { embedding: self.embedding.unwrap_or(default).form(), per_layer }
    }

    /// A gate reads the checkpoint many times, so it is kept then.
    fn access(&self) -> Access {
        let Common { source, access, .. } = &self.common;
        if self.gate {
            Access { verify: access.verify, ..Access::kept(source, access.revision.as_deref()) }
        } else {
            access.access()
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let common = &arguments.common;
    let opened = origin::open(&common.source, &arguments.access())?;
    let model = Model::open(&*opened.source)?;
    let conversion = arguments.conversion(&model)?;
    let job = Job::new(&conversion, &model, &opened.name)?;
    if arguments.dry_run {
        return plan_text::print(&job.plan, &job.name, common.json);
    }
    warn(&job.plan, arguments);
    interrupt::listen()?;
    let (bytes, positions) = (Bar::or_events("tensor", common.json), Bar::of_positions());
    let watchers = Watchers { bytes: &bytes, positions: &positions, render: &template::render };
    let finished = match job.run(watchers)? {
        RunOutcome::Made(finished) => finished,
        RunOutcome::Published(manifests) => return published::print(common, &manifests),
    };
    let note = "the outputs are complete, but their report could not be written";
    let report = job.write_report(&finished).context(note)?;
    print(arguments, &job.plan, &finished, report.as_ref())?;
    let gates = finished.bundles.iter().filter_map(|bundle| bundle.gate.as_ref());
    Ok(ExitCode::from(gates.map(GateReport::exit_code).max().unwrap_or(0)))
}

fn warn(plan: &Plan, arguments: &Arguments) {
    if arguments.common.json {
        return;
    }
    let head = &plan.head;
    terminal::tell(format_args!("head: {}, {}", head.treatment.format(), head.reason));
    plan_text::table_lines(plan).for_each(terminal::tell);
    if head.off_lattice {
        terminal::tell("warning: int4 will lose accuracy; consider --weights int8");
    }
}

fn print(
    arguments: &Arguments,
    plan: &Plan,
    finished: &Finished,
    report: Option<&ReportFiles>,
) -> anyhow::Result<()> {
    let mut out = terminal::out();
    let totals = finished.written.statistics.totals();
    if arguments.common.json {
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
