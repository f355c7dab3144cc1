//! The page.

use minijinja::value::Serde;
use minijinja::{Environment, Error};
use serde::Serialize;

use crate::bars::{self, Bars};
use crate::digits::{self, EXACT};
use crate::evaluations::{EvaluationView, evaluations};
use crate::facts::{CacheMemory, Download, FunctionWork, Group, Memory, Report, RuleOutcome};
use crate::gates::{GateView, gates};
use crate::heat::{self, Heat};
use crate::slots::{Slots, slots};
use crate::story::{self, Sentence, story};
use crate::tensor::{Recovery, Tensor, Worst};
use crate::words::counted;

/// Its name makes the renderer escape everything for HTML.
const NAME: &str = "page.html";
const TEMPLATE: &str = include_str!("page.html.jinja");
const STYLE: &str = include_str!("page.css");

/// Memory of machines, in GB of 2^30 bytes as they are sold.
const MACHINES: [u64; 4] = [16, 24, 32, 64];

/// Rows of the lists of worst blocks and of inexact matrices.
const LISTED: usize = 12;

/// Everything that the page shows.
#[derive(Debug, Serialize)]
struct Page<'r> {
    downloads: Vec<DownloadRow<'r>>,
    style: &'static str,
    report: &'r Report,
    story: Vec<Sentence>,
    headline: Vec<Fact>,
    legend: Vec<Legend>,
    groups: Bars,
    layers: Bars,
    exact: Option<Heat>,
    errors: Option<Heat>,
    outside: Vec<Outside>,
    inexact: Vec<String>,
    more_inexact: usize,
    codes: Option<Bars>,
    codes_of_extrema: bool,
    scales: Option<Bars>,
    rules: Vec<RuleRow<'r>>,
    /// Weights of the sample that the rules were tried on.
    sampled: String,
    worst: Vec<WorstRow>,
    slots: Option<Slots>,
    memory: Vec<MemoryColumn<'r>>,
    max_context: String,
    machines: [String; MACHINES.len()],
    functions: Vec<FunctionRow<'r>>,
    stages: Bars,
    stretches: Bars,
    gates: Vec<GateView<'r>>,
    evaluations: Vec<EvaluationView<'r>>,
}

/// One of the most important numbers.
#[derive(Debug, Serialize)]
struct Fact {
    value: String,
    label: String,
    /// `good`, `bad` or nothing.
    class: &'static str,
}

#[derive(Debug, Serialize)]
struct Legend {
    color: usize,
    label: &'static str,
}

/// A matrix that belongs to no layer.
#[derive(Debug, Serialize)]
struct Outside {
    name: String,
    format: String,
    /// The share of blocks on a lattice, of 4-bit matrices.
    lattice: String,
    exact: String,
    error: String,
}

#[derive(Debug, Serialize)]
struct WorstRow {
    tensor: String,
    row: u64,
    block: u64,
    error: String,
    command: String,
}

/// A form of the caches, and which machines hold it beside the graph.
#[derive(Debug, Serialize)]
struct MemoryColumn<'r> {
    form: &'r str,
    is_used: bool,
    /// Bytes of a thousand positions.
    thousand: String,
    /// Bytes of graph and caches at the longest context.
    whole: String,
    fits: [bool; MACHINES.len()],
}

#[derive(Debug, Serialize)]
struct FunctionRow<'r> {
    name: &'r str,
    tokens: String,
    multiply_adds: String,
    weights: String,
}

#[derive(Debug, Serialize)]
struct DownloadRow<'r> {
    variant: &'r str,
    graph: String,
    tables: String,
    other: String,
    whole: String,
    checkpoint: String,
}

/// A 4-bit rule on the sample.
#[derive(Debug, Serialize)]
struct RuleRow<'r> {
    rule: &'r str,
    is_used: bool,
    exact: String,
    error: String,
}

/// Renders a report as one HTML file that needs nothing else.
///
/// # Errors
/// If the template has a fault, which is a bug.
pub fn render(report: &Report) -> Result<String, Error> {
    let mut environment = Environment::new();
    environment.add_template(NAME, TEMPLATE)?;
    environment.get_template(NAME)?.render(Serde(page(report)))
}

fn page(report: &Report) -> Page<'_> {
    let codes = bars::codes(report);
    let inexact = inexact(report);
    Page {
        style: STYLE,
        report,
        story: story(report),
        headline: headline(report),
        legend: legend(report),
        downloads: report.downloads.iter().map(download).collect(),
        groups: bars::groups(report),
        layers: bars::layers(report),
        exact: heat::exact(report),
        errors: heat::errors(report),
        outside: outside(report),
        more_inexact: inexact.len().saturating_sub(LISTED),
        inexact: inexact.into_iter().take(LISTED).collect(),
        codes_of_extrema: codes.as_ref().is_some_and(|(_, of_extrema)| *of_extrema),
        codes: codes.map(|(bars, _)| bars),
        scales: bars::scales(report),
        rules: rules(report),
        sampled: report.rules.first().map(|found| counted(found.weights, "weight")).unwrap_or_default(),
        worst: worst(report),
        slots: slots(report),
        memory: report.memory.as_ref().map(memory).unwrap_or_default(),
        max_context: report
            .memory
            .as_ref()
            .map(|memory| digits::grouped(memory.max_context))
            .unwrap_or_default(),
        machines: MACHINES.map(|size| format!("{size} GB")),
        functions: functions(report),
        stages: bars::stages(report),
        stretches: bars::stretches(report),
        gates: gates(report),
        evaluations: evaluations(report),
    }
}

/// Matrices with what quantization did to them, where that is known.
pub(crate) fn recovered(report: &Report) -> impl Iterator<Item = (&Tensor, &Recovery)> {
    report.tensors.iter().filter_map(|tensor| Some((tensor, tensor.recovery.as_ref()?)))
}

fn headline(report: &Report) -> Vec<Fact> {
    let fact = |value: String, label: &str, class| Fact { value, label: label.to_owned(), class };
    let bytes: u64 = report.sizes.iter().map(|size| size.bytes).sum();
    let mut facts = Vec::new();
    if bytes > 0 {
        facts.push(fact(digits::bytes(bytes), "of graphs and tables", ""));
    }
    let four_bit = || recovered(report).filter(|(tensor, _)| tensor.has_4_bit_codes());
    let blocks: u64 = four_bit().map(|(_, recovery)| recovery.blocks).sum();
    if blocks > 0 {
        let on_lattice: u64 = four_bit().map(|(_, recovery)| recovery.blocks_on_lattice).sum();
        let class = if on_lattice == blocks { "good" } else { "" };
        facts.push(fact(digits::percent(on_lattice, blocks), "of 4-bit blocks on the lattice", class));
    }
    let weights: u64 = recovered(report).map(|(_, recovery)| recovery.weights).sum();
    if weights > 0 {
        let exact: u64 = recovered(report).map(|(_, recovery)| recovery.weights_exact).sum();
        let class = if exact == weights { "good" } else { "" };
        facts.push(fact(digits::percent(exact, weights), "of quantized weights byte-exact", class));
    }
    if !report.gates.is_empty() {
        let passed = report.gates.iter().all(|gate| gate.passed);
        let (value, class) = if passed { ("passed", "good") } else { ("FAILED", "bad") };
        facts.push(fact(value.to_owned(), "gate against the checkpoint", class));
    }
    let seconds: f64 = report.timings.iter().map(|timing| timing.seconds).sum();
    if seconds > 0.0 {
        facts.push(fact(format!("{seconds:.1} s"), "for the whole run", ""));
    }
    facts
}

fn legend(report: &Report) -> Vec<Legend> {
    let is_in_layers =
        |group: Group| report.sizes.iter().any(|size| size.layer.is_some() && size.group == group);
    let groups = Group::ALL.into_iter().enumerate().filter(|(_, group)| is_in_layers(*group));
    groups.map(|(color, group)| Legend { color, label: group.title() }).collect()
}

fn outside(report: &Report) -> Vec<Outside> {
    let found = recovered(report).filter(|(tensor, _)| tensor.layer().is_none());
    let row = |(tensor, recovery): (&Tensor, &Recovery)| Outside {
        name: tensor.name.clone(),
        format: tensor.format.clone(),
        lattice: if tensor.has_4_bit_codes() {
            digits::percent(recovery.blocks_on_lattice, recovery.blocks)
        } else {
            String::new()
        },
        exact: digits::exact(recovery.weights_exact, recovery.weights),
        error: if recovery.is_exact() {
            EXACT.to_owned()
        } else {
            format!("{:.2e}", recovery.relative_error)
        },
    };
    found.map(row).collect()
}

/// A graph fits if it takes at most three quarters with its caches: the system, and what else runs, need the rest.
fn memory(Memory { graph_bytes, max_context, caches }: &Memory) -> Vec<MemoryColumn<'_>> {
    let mut columns = Vec::new();
    for CacheMemory { form, position_bytes, is_used } in caches {
        let whole = graph_bytes.saturating_add(position_bytes.saturating_mul(*max_context));
        columns.push(MemoryColumn {
            form,
            is_used: *is_used,
            thousand: digits::bytes(position_bytes.saturating_mul(1000)),
            whole: digits::bytes(whole),
            fits: MACHINES.map(|size| whole <= (size << 30) / 4 * 3),
        });
    }
    columns
}

fn download(download: &Download) -> DownloadRow<'_> {
    let some = |bytes: u64| if bytes == 0 { String::new() } else { digits::bytes(bytes) };
    DownloadRow {
        variant: &download.variant,
        graph: digits::bytes(download.graph_bytes),
        tables: some(download.tables_bytes),
        other: some(download.other_bytes),
        whole: digits::bytes(download.bytes()),
        checkpoint: digits::bytes(download.checkpoint_bytes),
    }
}

fn rules(report: &Report) -> Vec<RuleRow<'_>> {
    let used = report.conversion.as_ref().and_then(|conversion| story::used_rule(report, conversion));
    let mut rows = Vec::new();
    for RuleOutcome { rule, weights, weights_exact, relative_error } in &report.rules {
        let exact = digits::exact(*weights_exact, *weights);
        let error = if exact == EXACT { exact.clone() } else { format!("{relative_error:.2e}") };
        rows.push(RuleRow { rule, is_used: used.is_some_and(|used| used.rule == *rule), exact, error });
    }
    rows
}

fn functions(report: &Report) -> Vec<FunctionRow<'_>> {
    let mut rows = Vec::new();
    for FunctionWork { name, tokens, multiply_adds, weight_bytes } in &report.functions {
        let (tokens, multiply_adds) = (digits::grouped(*tokens), digits::grouped(*multiply_adds));
        rows.push(FunctionRow { name, tokens, multiply_adds, weights: digits::bytes(*weight_bytes) });
    }
    rows
}

fn inexact(report: &Report) -> Vec<String> {
    let mut found: Vec<(&Tensor, &Recovery)> =
        recovered(report).filter(|(_, recovery)| !recovery.is_exact()).collect();
    found.sort_by(|(_, a), (_, b)| b.relative_error.total_cmp(&a.relative_error));
    found.into_iter().map(|(tensor, recovery)| heat::title(tensor, recovery)).collect()
}

/// The worst block of each matrix that is not exact, worst first.
fn worst(report: &Report) -> Vec<WorstRow> {
    let inexact = recovered(report).filter(|(_, recovery)| !recovery.is_exact());
    let mut found: Vec<(&Tensor, Worst)> =
        inexact.filter_map(|(tensor, recovery)| Some((tensor, recovery.worst?))).collect();
    found.sort_by(|(_, a), (_, b)| b.relative_error.total_cmp(&a.relative_error));
    let checkpoint = story::checkpoint(report);
    let row = |(tensor, worst): (&Tensor, Worst)| WorstRow {
        tensor: tensor.name.clone(),
        row: worst.row,
        block: worst.block,
        error: format!("{:.2e}", worst.relative_error),
        command: format!(
            "coreai-bundle explain {checkpoint} {} --row {} --block {}",
            tensor.name, worst.row, worst.block
        ),
    };
    found.into_iter().take(LISTED).map(row).collect()
}
