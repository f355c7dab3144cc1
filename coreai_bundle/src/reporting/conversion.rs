//! What a conversion reports about itself.

use ::oracle::gate::{CaseReport, GateReport, PartExactness, PositionReport};
use checkpoint::config::{DecoderConfig, Layer, LayerKind};

use converter::blob::Blob;
use converter::decoder::Variant;
use converter::plan::GraphPlan;
use converter::quant::{BLOCK, WorstBlock};
use converter::recipe::Treatment;
use converter::statistics::{TensorStatistics, WeightStatistics};
use converter::tables::TablesPlan;
use converter::{Model, Plan};
use packer::TOOL;
use report::{
    CacheMemory, Codes, Conversion, Download, Exactness, FunctionWork, Gate, Group, Memory, Origin, Position,
    Recovery, Report, Sequence, Size, Slot, Tensor, Timing, Worst,
};

use super::Timeline;
use crate::gate;

/// What a conversion produced.
pub(crate) struct Facts<'a> {
    pub(crate) name: &'a str,
    /// Repository or folder, as typed.
    pub(crate) source: &'a str,
    pub(crate) model: &'a Model<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) statistics: &'a WeightStatistics,
    /// Positions that the caches may grow to.
    pub(crate) max_context: u64,
    /// Names of bundles that were gated, with what was found.
    pub(crate) gates: Vec<(String, &'a GateReport)>,
    pub(crate) functions: Vec<FunctionWork>,
    pub(crate) timings: &'a [Timing],
    pub(crate) timeline: &'a Timeline,
}

/// The report of a conversion.
pub(crate) fn of_conversion(facts: &Facts<'_>) -> Report {
    let unknown = if facts.gates.is_empty() {
        vec!["Whether the bundles agree with the checkpoint: --gate was not given.".to_owned()]
    } else {
        Vec::new()
    };
    Report {
        name: facts.name.to_owned(),
        tool: TOOL.to_owned(),
        origin: Some(Origin {
            name: facts.source.to_owned(),
            revision: facts.model.source.identity().revision.clone(),
        }),
        conversion: conversion(facts),
        downloads: facts.plan.graphs.iter().map(|graph| download(facts.plan, graph)).collect(),
        sizes: sizes(facts.plan),
        tensors: facts.statistics.tensors.iter().map(tensor).collect(),
        slots: slots(&facts.model.config),
        memory: memory(facts),
        functions: facts.functions.clone(),
        gates: facts.gates.iter().map(|(bundle, report)| verdict(bundle, report)).collect(),
        evaluations: Vec::new(),
        timings: facts.timings.to_vec(),
        stretches: facts.timeline.stretches.clone(),
        unknown,
    }
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

/// What a device downloads for a graph. Only the stock graph and models without tables need nothing beside it.
fn download(plan: &Plan, graph: &GraphPlan) -> Download {
    let tables = plan.tables.as_ref().filter(|_| graph.variant != Variant::Stock);
    Download {
        variant: graph.variant.name().to_owned(),
        graph_bytes: graph.bytes(),
        tables_bytes: tables.map_or(0, TablesPlan::bytes),
        checkpoint_bytes: plan.input_bytes(),
    }
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

fn verdict(bundle: &str, report: &GateReport) -> Gate {
    Gate {
        bundle: bundle.to_owned(),
        passed: report.passed,
        verdict: gate::verdict(report),
        reference: report.reference.clone(),
        causes: report.reasons().collect(),
        exactness: report.exactness.iter().map(exactness).collect(),
        sequences: report.cases.iter().map(sequence).collect(),
    }
}

fn exactness(part: &PartExactness) -> Exactness {
    Exactness { part: part.part.to_owned(), weights: part.weights, weights_exact: part.weights_exact }
}

fn sequence(case: &CaseReport) -> Sequence {
    let position = |found: &PositionReport| Position {
        expected_margin: found.expected_margin,
        margin: found.margin,
        cosine: found.cosine,
        qualified: found.qualified,
        agrees: found.agrees,
    };
    Sequence { prompt: case.prompt.clone(), positions: case.track.iter().map(position).collect() }
}
