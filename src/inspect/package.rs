//! A package for people.

use coreai_bundle::inspect::{GraphSummary, PackageSummary};
use coreai_bundle::parts::report::FunctionWork;

use super::{Lines, weights};
use crate::columns::Columns;
use crate::{digits, terminal};

pub(super) fn add(facts: &PackageSummary, blobs: bool, lines: &mut Lines) {
    lines.title(format_args!("package {}", facts.path.display()));
    lines.field("producer", facts.producer.as_deref().unwrap_or("not stated"));
    lines.field("program", digits::bytes(facts.bytes));
    facts.graphs.iter().flatten().for_each(|graph| add_graph(graph, lines));
    lines.field("blobs", format!("{}, {}", facts.blobs.len(), digits::bytes(facts.blob_bytes)));
    if blobs {
        let mut columns = Columns::new(&["blob", "bytes", "offset"]);
        for blob in &facts.blobs {
            columns.row(vec![blob.key.clone(), digits::grouped(blob.bytes), digits::grouped(blob.offset)]);
        }
        lines.0.push_str(&columns.text(terminal::width()));
    }
    facts.listing.iter().flatten().for_each(|line| lines.add(line));
    if let Some(facts) = &facts.weights {
        lines.0.push_str(&weights::text(facts));
    }
}

fn add_graph(graph: &GraphSummary, lines: &mut Lines) {
    let ops: u64 = graph.ops.values().sum();
    lines.field("graph", format!("{}: {ops} ops, {} constants", graph.work.name, graph.constants));
    let FunctionWork { multiply_adds, weight_bytes, tokens, .. } = graph.work;
    let (adds, weights) = (digits::grouped(multiply_adds), digits::bytes(weight_bytes));
    let calls = if tokens == 1 { "one at a time".to_owned() } else { format!("in calls of {tokens}") };
    lines.field("a token", format!("{adds} multiply-adds, {weights} of weights, {calls}"));
    for (what, ports) in [("in", &graph.inputs), ("out", &graph.outputs)] {
        ports.iter().for_each(|port| lines.field(what, format!("{}: {}", port.name, port.ty)));
    }
}
