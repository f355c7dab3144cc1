//! What a conversion reports about itself.

use ::oracle::text::Text;
use checkpoint::config::{DecoderConfig, Layer, LayerKind};

use converter::blob::Blob;
use converter::decoder::Variant;
use converter::plan::GraphPlan;
use converter::recipe::Treatment;
use converter::statistics::{TensorStatistics, WeightStatistics};
use converter::tables::TablesPlan;
use converter::{Model, Plan};
use output::Digest;
use packer::TOOL;
use quantizer::{BLOCK, WorstBlock};
use report::{
    CacheMemory, Codes, Conversion, Download, FunctionWork, Gate, Group, Memory, Origin, Recovery, Report,
    RuleOutcome, Size, Slot, Tensor, Timing, Worst,
};

use super::{Timeline, gate};
use crate::bundle::FinishedBundle;
use crate::origin::folder_name;
use crate::outputs::RunOptions;

/// What a conversion produced.
pub(crate) struct Facts<'a> {
    pub(crate) name: &'a str,
    /// How it was run.
    pub(crate) run: &'a RunOptions,
    /// Whether the bundles were compared with the checkpoint.
    pub(crate) is_gated: bool,
    pub(crate) model: &'a Model<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) statistics: &'a WeightStatistics,
    /// Positions that the caches may grow to.
    pub(crate) max_context: u64,
    /// In the order of the plan's graphs.
    pub(crate) bundles: &'a [FinishedBundle],
    /// Stamp of the tables that belong to them.
    pub(crate) stamp: Option<Digest>,
    pub(crate) functions: Vec<FunctionWork>,
    pub(crate) timings: &'a [Timing],
    pub(crate) timeline: &'a Timeline,
}

/// The report of a conversion.
pub(crate) fn of_conversion(facts: &Facts<'_>) -> Report {
    Report {
        name: facts.name.to_owned(),
        tool: TOOL.to_owned(),
        origin: Some(origin(facts)),
        conversion: conversion(facts),
        options: options(facts.run, facts.is_gated),
        digests: digests(facts),
        downloads: downloads(facts),
        sizes: sizes(facts.plan),
        tensors: facts.statistics.tensors.iter().map(tensor).collect(),
        rules: rules(facts.statistics),
        slots: slots(&facts.model.config),
        memory: memory(facts),
        functions: facts.functions.clone(),
        gates: gates(facts),
        timings: facts.timings.to_vec(),
        stretches: facts.timeline.stretches.clone(),
        ..Report::default()
    }
}

/// Where the weights come from. A folder is called by its own name, and never by its path.
fn origin(facts: &Facts<'_>) -> Origin {
    let source = facts.model.source;
    let identity = source.identity();
    let folder = || facts.run.source.path().and_then(|path| folder_name(path).ok()).unwrap_or_default();
    let bytes = source.tensors().iter().map(|tensor| tensor.range.end.saturating_sub(tensor.range.start));
    Origin {
        name: identity.repository.clone().unwrap_or_else(folder),
        revision: identity.revision.clone(),
        weight_bytes: Some(bytes.fold(0, u64::saturating_add)),
    }
}

/// The options as they were typed, or their defaults. Of a path, the last name is kept.
fn options(run: &RunOptions, is_gated: bool) -> Vec<String> {
    let typed = run.typed.iter().map(|(option, value)| (option.as_str(), value.as_str()));
    let gate = is_gated.then_some(("--gate", "true"));
    let option = |(option, value): (&str, &str)| match value {
        "none" | "false" => None,
        "true" => Some(option.to_owned()),
        value => Some(format!("{option} {}", value.rsplit(['/', '\\']).next().unwrap_or_default())),
    };
    typed.chain(gate).filter_map(option).collect()
}

fn digests(facts: &Facts<'_>) -> Vec<report::Digest> {
    let program = |bundle: &FinishedBundle| report::Digest {
        of: format!("program of {}", bundle.name()),
        sha256: bundle.program_sha256.clone(),
    };
    let stamp = facts
        .stamp
        .map(|stamp| report::Digest { of: "stamp of the tables".to_owned(), sha256: stamp.to_string() });
    facts.bundles.iter().map(program).chain(stamp).collect()
}

fn gates(facts: &Facts<'_>) -> Vec<Gate> {
    let found = |bundle: &FinishedBundle| gate::of_report(&bundle.name(), bundle.gate.as_ref()?);
    let mut gates: Vec<Gate> = facts.bundles.iter().filter_map(found).collect();
    gate::name_tokens(&mut gates, || Text::of_checkpoint(facts.model.source).ok());
    gates
}

fn rules(statistics: &WeightStatistics) -> Vec<RuleOutcome> {
    let sample = statistics.sample();
    let outcomes = sample.rules().map(|(rule, kept, relative_error)| RuleOutcome {
        rule: rule.name().to_owned(),
        weights: sample.weights,
        weights_exact: kept.weights_exact,
        relative_error,
    });
    outcomes.filter(|outcome| outcome.weights > 0).collect()
}

/// What running the largest graph takes, with the forms of the caches that its model can have.
fn memory(facts: &Facts<'_>) -> Option<Memory> {
    let config = &facts.model.config;
    let largest = facts.plan.graphs.iter().max_by_key(|graph| graph.bytes())?;
    let caches = GraphPlan::cache_forms(config).iter().map(|form| CacheMemory {
        form: form.name().to_owned(),
        position_bytes: config.cache_position_bytes(*form),
        is_used: *form == largest.caches,
    });
    Some(Memory { graph_bytes: largest.bytes(), max_context: facts.max_context, caches: caches.collect() })
}

fn conversion(facts: &Facts<'_>) -> Option<Conversion> {
    let graph = facts.plan.graphs.first()?;
    let head = &facts.plan.head;
    Some(Conversion {
        variants: facts.plan.graphs.iter().map(|graph| graph.variant.name().to_owned()).collect(),
        rule: match graph.recipe.projections {
            Treatment::Int4(rule) => rule.name().to_owned(),
            Treatment::Int8 | Treatment::F16 => "absmax".to_owned(),
        },
        weights: graph.recipe.projections.format().to_owned(),
        head: head.treatment.format().to_owned(),
        head_reason: head.reason.clone(),
        resumed: facts.timeline.resumed,
    })
}

/// What a device downloads. Only the stock graph and models without tables need nothing beside it.
fn downloads(facts: &Facts<'_>) -> Vec<Download> {
    let plan = facts.plan;
    // They are needed even if an earlier run made them.
    let planned = || TablesPlan::new(&facts.model.config, &facts.model.checkpoint).ok();
    let tables = plan.tables.clone().or_else(planned).map_or(0, |tables| tables.bytes());
    let of = |(graph, bundle): (&GraphPlan, &FinishedBundle)| Download {
        variant: graph.variant.name().to_owned(),
        graph_bytes: graph.bytes(),
        tables_bytes: if graph.variant == Variant::Stock { 0 } else { tables },
        other_bytes: bundle.bytes.saturating_sub(graph.bytes()),
        checkpoint_bytes: plan.input_bytes(),
    };
    plan.graphs.iter().zip(facts.bundles).map(of).collect()
}

/// Bytes of graphs and tables.
fn sizes(plan: &Plan) -> Vec<Size> {
    let mut sizes = Vec::new();
    for graph in &plan.graphs {
        add_graph(&mut sizes, graph);
    }
    if let Some(tables) = &plan.tables {
        add(&mut sizes, Group::Tables, None, tables.bytes());
    }
    sizes
}

fn add_graph(sizes: &mut Vec<Size>, graph: &GraphPlan) {
    let blobs: u64 = graph.blobs.iter().map(Blob::bytes).sum();
    for blob in &graph.blobs {
        add(sizes, Group::of(&blob.key), blob.layer(), blob.bytes());
    }
    add(sizes, Group::Program, None, graph.bytes().saturating_sub(blobs));
}

fn add(sizes: &mut Vec<Size>, group: Group, layer: Option<usize>, bytes: u64) {
    match sizes.iter_mut().find(|size| size.group == group && size.layer == layer) {
        Some(size) => size.bytes += bytes,
        None => sizes.push(Size { group, layer, bytes }),
    }
}

fn tensor(tensor: &TensorStatistics) -> Tensor {
    let statistics = &tensor.statistics;
    let code_bits = tensor.treatment.element().bits();
    Tensor {
        name: tensor.name.clone(),
        source: Some(tensor.tensor.clone()),
        format: tensor.treatment.format().to_owned(),
        shape: tensor.shape.clone(),
        bytes: statistics.weights * code_bits / 8 + 2 * statistics.blocks,
        recovery: Some(Recovery {
            blocks: statistics.blocks,
            blocks_on_lattice: statistics.blocks_on_lattice,
            blocks_exact: statistics.blocks_exact,
            weights: statistics.weights,
            weights_exact: statistics.weights_exact,
            relative_error: statistics.relative_error(),
            worst: statistics.worst.map(|worst| place(worst, &tensor.shape)),
        }),
        codes: (code_bits == 4).then_some(Codes::OfExtrema(statistics.extremum_codes)),
        scale_exponents: statistics.scale_exponents,
    }
}

/// Blocks are counted row after row.
fn place(worst: WorstBlock, shape: &[u64]) -> Worst {
    let blocks_a_row = shape.last().map_or(1, |columns| columns / BLOCK as u64).max(1);
    Worst {
        row: worst.block / blocks_a_row,
        block: worst.block % blocks_a_row,
        relative_error: worst.relative_error,
    }
}

fn slots(config: &DecoderConfig) -> Vec<Slot> {
    let slot = |layer: &Layer| Slot {
        layer: layer.index,
        slot: layer.slot,
        writes: layer.owns_slot(),
        full: layer.kind == LayerKind::Full,
        head_dim: layer.head_dim,
    };
    config.layers.iter().map(slot).collect()
}
