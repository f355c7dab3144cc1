//! Two programs: their graphs and their weights.

use std::collections::HashMap;
use std::path::Path;

use aimodel::align::Graph;
use aimodel::package::Package;
use serde::Serialize;

use super::graph::{self, GraphDifference};
use super::weights::{self, WeightsDifference};

/// Graphs and weights of two programs.
#[derive(Debug, Serialize)]
pub struct ProgramDifference {
    /// Graphs that only the left program has, by name.
    pub only_left: Vec<String>,
    /// Graphs that only the right program has.
    pub only_right: Vec<String>,
    /// Graphs of both, those that are equal included.
    pub graphs: Vec<GraphDifference>,
    /// Weights of all graphs.
    pub weights: WeightsDifference,
}

/// Graphs by their names; the first of several with one name.
fn by_name<'g, 'm>(graphs: &'g [Graph<'m>]) -> HashMap<&'g str, &'g Graph<'m>> {
    graphs.iter().rev().map(|graph| (graph.name(), graph)).collect()
}

/// Compares the programs of two packages: their graphs op by op, and their weights by content. Numbering, keys and places of constants
/// are ignored. `None` if they are equal.
///
/// # Errors
/// If one cannot be read.
pub fn compare_packages(left: &Path, right: &Path) -> anyhow::Result<Option<ProgramDifference>> {
    let (left, right) = (Package::open(left)?, Package::open(right)?);
    let (ours, theirs) = (Graph::all(&left.bytecode.module), Graph::all(&right.bytecode.module));
    let lacking = |graphs: &[Graph<'_>], others: &[Graph<'_>]| -> Vec<String> {
        let others = by_name(others);
        let absent = |graph: &&Graph<'_>| !others.contains_key(graph.name());
        graphs.iter().filter(absent).map(|graph| graph.name().to_owned()).collect()
    };
    let (only_left, only_right) = (lacking(&ours, &theirs), lacking(&theirs, &ours));
    let theirs = by_name(&theirs);
    let mut pairs = weights::Pairs::default();
    let mut graphs = Vec::new();
    for graph in &ours {
        let Some(other) = theirs.get(graph.name()) else { continue };
        let steps = aimodel::align::align(graph, other);
        pairs.add(graph, &left, &right, &steps);
        graphs.push(graph::describe(graph, other, &steps));
    }
    let weights = weights::compare(&left, &right, pairs)?;
    let equal = only_left.is_empty() && only_right.is_empty() && weights.is_equal();
    if equal && graphs.iter().all(GraphDifference::is_equal) {
        return Ok(None);
    }
    Ok(Some(ProgramDifference { only_left, only_right, graphs, weights }))
}
