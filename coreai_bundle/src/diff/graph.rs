//! What alignment found in two graphs, in words.

use std::collections::HashMap;

use aimodel::align::{Change, Graph, GraphPort, Step, compare_declarations};
use serde::Serialize;

/// Differences of two graphs of one name.
#[derive(Debug, Serialize)]
pub struct GraphDifference {
    /// Their name.
    pub name: String,
    /// Ops that are the same in both.
    pub same: usize,
    /// Inputs, states and outputs.
    pub ports: Vec<LineDifference>,
    /// Ops, in the order of both graphs.
    pub ops: Vec<LineDifference>,
}

/// One op, input or output.
#[derive(Debug, Serialize)]
pub struct LineDifference {
    /// Whether it was added, removed or changed.
    pub change: ChangeKind,
    /// As a line of the left graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// As a line of the right graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<String>,
    /// What is changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Change>,
}

/// What happened on the way from left to right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Only the right graph has it.
    Added,
    /// Only the left graph has it.
    Removed,
    /// Both have it, with differences.
    Changed,
}

impl GraphDifference {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.ports.is_empty() && self.ops.is_empty()
    }

    /// Number of ops of a kind.
    pub fn count(&self, kind: ChangeKind) -> usize {
        self.ops.iter().filter(|line| line.change == kind).count()
    }
}

/// Puts an alignment into words.
pub(super) fn describe(left: &Graph<'_>, right: &Graph<'_>, steps: &[Step]) -> GraphDifference {
    let mut ports = Vec::new();
    let inputs = |graph: &Graph<'_>| graph.inputs().map(|(port, _)| port.clone()).collect::<Vec<_>>();
    let kind = |port: &GraphPort| if port.is_state { "state" } else { "input" };
    compare_ports(&inputs(left), &inputs(right), &kind, &mut ports);
    compare_ports(left.outputs(), right.outputs(), &|_| "output", &mut ports);
    if ports.is_empty() {
        let details = compare_declarations(left, right);
        let graph = || Some("graph".to_owned());
        let line =
            |details| LineDifference { change: ChangeKind::Changed, left: graph(), right: graph(), details };
        ports.extend(Some(details).filter(|details| !details.is_empty()).map(line));
    }
    let mut difference = GraphDifference { name: left.name().to_owned(), same: 0, ports, ops: Vec::new() };
    for step in steps {
        let line = |change, ours: Option<String>, theirs| LineDifference {
            change,
            left: ours,
            right: theirs,
            details: Vec::new(),
        };
        match step {
            Step::Left(op) => difference.ops.push(line(ChangeKind::Removed, Some(left.line(*op)), None)),
            Step::Right(op) => difference.ops.push(line(ChangeKind::Added, None, Some(right.line(*op)))),
            Step::Both { changes, .. } if changes.is_empty() => difference.same += 1,
            Step::Both { left: ours, right: theirs, changes } => {
                let changed = line(ChangeKind::Changed, Some(left.line(*ours)), Some(right.line(*theirs)));
                difference.ops.push(LineDifference { details: changes.clone(), ..changed });
            }
        }
    }
    difference
}

fn compare_ports<'p>(
    left: &'p [GraphPort],
    right: &'p [GraphPort],
    kind: &dyn Fn(&GraphPort) -> &'static str,
    lines: &mut Vec<LineDifference>,
) {
    let text = |port: &GraphPort| format!("{} {} : {}", kind(port), port.name, port.ty);
    // The first of several with one name, as in every search by name.
    let by_name = |ports: &'p [GraphPort]| -> HashMap<&'p str, &'p GraphPort> {
        ports.iter().rev().map(|port| (port.name.as_str(), port)).collect()
    };
    let (ours, theirs) = (by_name(left), by_name(right));
    for port in left {
        let found = theirs.get(port.name.as_str()).copied();
        if found != Some(port) {
            let change = if found.is_some() { ChangeKind::Changed } else { ChangeKind::Removed };
            lines.push(LineDifference {
                change,
                left: Some(text(port)),
                right: found.map(text),
                details: Vec::new(),
            });
        }
    }
    for port in right.iter().filter(|port| !ours.contains_key(port.name.as_str())) {
        lines.push(LineDifference {
            change: ChangeKind::Added,
            left: None,
            right: Some(text(port)),
            details: Vec::new(),
        });
    }
}
