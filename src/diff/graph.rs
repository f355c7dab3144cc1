//! What alignment found in two graphs, in words.

use std::collections::HashMap;

use aimodel::align::{Graph, Port, Step};
use serde::Serialize;

/// Differences of two graphs of one name.
#[derive(Debug, Serialize)]
pub(super) struct GraphDifference {
    pub(super) name: String,
    /// Ops that are the same in both.
    pub(super) same: usize,
    /// Inputs, states and outputs.
    pub(super) ports: Vec<Line>,
    /// Ops, in the order of both graphs.
    pub(super) ops: Vec<Line>,
}

/// One op, input or output.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) change: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) left: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) right: Option<String>,
    /// What is changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) details: Vec<Detail>,
}

/// Part of an op.
#[derive(Debug, Serialize)]
pub(super) struct Detail {
    pub(super) what: String,
    pub(super) left: String,
    pub(super) right: String,
}

/// What happened on the way from left to right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Added,
    Removed,
    Changed,
}

impl GraphDifference {
    pub(super) fn is_equal(&self) -> bool {
        self.ports.is_empty() && self.ops.is_empty()
    }

    /// Number of ops of a kind.
    pub(super) fn count(&self, kind: Kind) -> usize {
        self.ops.iter().filter(|line| line.change == kind).count()
    }
}

/// Puts an alignment into words.
pub(super) fn describe(left: &Graph<'_>, right: &Graph<'_>, steps: &[Step]) -> GraphDifference {
    let mut ports = Vec::new();
    let inputs = |graph: &Graph<'_>| graph.inputs().map(|(port, _)| port.clone()).collect::<Vec<_>>();
    let kind = |port: &Port| if port.is_state { "state" } else { "input" };
    compare_ports(&inputs(left), &inputs(right), &kind, &mut ports);
    compare_ports(left.outputs(), right.outputs(), &|_| "output", &mut ports);
    let mut difference = GraphDifference { name: left.name().to_owned(), same: 0, ports, ops: Vec::new() };
    for step in steps {
        let line = |change, ours: Option<String>, theirs| Line {
            change,
            left: ours,
            right: theirs,
            details: Vec::new(),
        };
        match step {
            Step::Left(op) => difference.ops.push(line(Kind::Removed, Some(left.line(*op)), None)),
            Step::Right(op) => difference.ops.push(line(Kind::Added, None, Some(right.line(*op)))),
            Step::Both { changes, .. } if changes.is_empty() => difference.same += 1,
            Step::Both { left: ours, right: theirs, changes } => {
                let details = changes
                    .iter()
                    .map(|change| Detail {
                        what: change.what.clone(),
                        left: change.left.clone(),
                        right: change.right.clone(),
                    })
                    .collect();
                let changed = line(Kind::Changed, Some(left.line(*ours)), Some(right.line(*theirs)));
                difference.ops.push(Line { details, ..changed });
            }
        }
    }
    difference
}

fn compare_ports<'p>(
    left: &'p [Port],
    right: &'p [Port],
    kind: &dyn Fn(&Port) -> &'static str,
    lines: &mut Vec<Line>,
) {
    let text = |port: &Port| format!("{} {} : {}", kind(port), port.name, port.ty);
    // The first of several with one name, as in every search by name.
    let by_name = |ports: &'p [Port]| -> HashMap<&'p str, &'p Port> {
        ports.iter().rev().map(|port| (port.name.as_str(), port)).collect()
    };
    let (ours, theirs) = (by_name(left), by_name(right));
    for port in left {
        let found = theirs.get(port.name.as_str()).copied();
        if found != Some(port) {
            let change = if found.is_some() { Kind::Changed } else { Kind::Removed };
            lines.push(Line { change, left: Some(text(port)), right: found.map(text), details: Vec::new() });
        }
    }
    for port in right.iter().filter(|port| !ours.contains_key(port.name.as_str())) {
        lines.push(Line { change: Kind::Added, left: None, right: Some(text(port)), details: Vec::new() });
    }
}
