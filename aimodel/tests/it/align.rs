//! Alignment finds what was added, removed or changed, and nothing else.

use std::path::Path;

use crate::common::alignment::assert_aligned;
use crate::common::mutation::{Numbers, edit};
use aimodel::align::{Change, Graph, Step, align};
use aimodel::build::AssetBuilder;
use aimodel::package::Package;
use aimodel::{Element, Module, TensorType};

/// How a graph is made.
#[derive(Clone, Copy)]
struct Plan {
    /// Layers after which there is an extra op.
    extra: Option<usize>,
    /// What the activations of the second layer are multiplied by.
    factor: f32,
    /// Whether weights have names or digests.
    names: bool,
    /// Whether the residual comes from the layer before.
    far_residual: bool,
}

const PLAIN: Plan = Plan { extra: None, factor: 0.5, names: true, far_residual: false };

/// Four equal layers: a matrix, a factor, a residual.
fn module(plan: Plan) -> Module {
    let ty = TensorType::fixed(&[8, 8], Element::F16);
    let mut graph = AssetBuilder::new().function("main");
    let input = graph.input("x", &ty);
    let (mut x, mut before) = (input, input);
    for layer in 0..4 {
        let key = if plan.names { format!("layers.{layer}.w") } else { format!("resource_{}", 77 * layer) };
        let weight = graph.blob(&key, &ty).unwrap();
        let product = graph.matmul(x, weight).unwrap();
        let factor = if layer == 1 { plan.factor } else { 0.5 };
        let bytes = half::f16::from_f32(factor).to_le_bytes().to_vec();
        let factor = graph.elements(&TensorType::fixed(&[], Element::F16), bytes).unwrap();
        let scaled = graph.mul(product, factor).unwrap();
        let residual = if plan.far_residual && layer == 3 { before } else { x };
        before = x;
        x = graph.add(scaled, residual).unwrap();
        if plan.extra == Some(layer) {
            x = graph.tanh(x).unwrap();
        }
    }
    graph.finish(&[], &[("y", x)]).unwrap().finish()
}

/// Ops that differ: `-` and `+` with the op's line, or `~` with its changes.
fn differences(left: Plan, right: Plan) -> Vec<String> {
    let (left, right) = (module(left), module(right));
    let (left, right) = (Graph::all(&left), Graph::all(&right));
    let change = |change: &Change| format!("{}: {} -> {}", change.what, change.left, change.right);
    align(&left[0], &right[0])
        .iter()
        .filter_map(|step| match step {
            Step::Left(op) => Some(format!("- {}", left[0].line(*op))),
            Step::Right(op) => Some(format!("+ {}", right[0].line(*op))),
            Step::Both { changes, .. } if changes.is_empty() => None,
            Step::Both { changes, .. } => {
                Some(format!("~ {}", changes.iter().map(change).collect::<Vec<_>>().join(", ")))
            }
        })
        .collect()
}

#[test]
fn equal_graphs_have_no_differences_whatever_their_weights_are_called() {
    assert!(differences(PLAIN, PLAIN).is_empty());
    assert!(differences(PLAIN, Plan { names: false, ..PLAIN }).is_empty());
}

#[test]
fn one_more_op_among_equal_layers_is_that_op_and_what_uses_it() {
    for layer in 0..4 {
        let found = differences(PLAIN, Plan { extra: Some(layer), ..PLAIN });
        let added: Vec<&String> = found.iter().filter(|line| line.starts_with('+')).collect();
        assert!(added.len() == 1 && added[0].contains("tanh"), "{layer}: {found:#?}");
        assert!(!found.iter().any(|line| line.starts_with('-')), "{found:#?}");
        // The next layer's matrix and residual take the new value; after the last layer, the output does.
        let changed = found.iter().filter(|line| line.starts_with('~')).count();
        assert_eq!(changed, if layer == 3 { 1 } else { 2 }, "{layer}: {found:#?}");
        let taken = differences(Plan { extra: Some(layer), ..PLAIN }, PLAIN);
        assert_eq!(taken.iter().filter(|line| line.starts_with('-')).count(), 1, "{taken:#?}");
    }
}

#[test]
fn a_changed_constant_and_a_changed_operand_are_reported() {
    let found = differences(PLAIN, Plan { factor: 0.25, ..PLAIN });
    assert_eq!(found, ["~ operand 1: 0.5 -> 0.25"]);
    let found = differences(PLAIN, Plan { far_residual: true, ..PLAIN });
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("~ operand 1: %"), "{found:#?}");
}

/// Many ops are alike here, so that there are many ways to pair them.
#[test]
fn a_graph_is_aligned_with_damaged_versions_of_itself() {
    let mut numbers = Numbers(11);
    let original = module(PLAIN);
    let left = Graph::all(&original);
    let all = left[0].code().len();
    assert_eq!(assert_aligned(&left[0], &left[0]), all);
    for round in 0..1500 {
        let mut changed = original.clone();
        (0..=round % 12).for_each(|_| edit(&mut changed, &mut numbers));
        for right in Graph::all(&changed) {
            assert_aligned(&left[0], &right);
            assert_aligned(&right, &left[0]);
        }
    }
}

#[test]
fn published_packages_equal_themselves_and_each_other_except_for_the_lookup() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data/reference");
    let open = |name: &str| Package::open(&data.join(format!("{name}.aimodel"))).unwrap().bytecode.module;
    let (provider, table) = (open("provider.int4-symmetric"), open("tbl.int4-symmetric"));
    let other = open("provider.int8-symmetric");
    let count = |left: &Module, right: &Module| {
        let steps = align(&Graph::all(left)[0], &Graph::all(right)[0]);
        let same = |step: &&Step| matches!(step, Step::Both { changes, .. } if changes.is_empty());
        let lone = |step: &&Step| !matches!(step, Step::Both { .. });
        (steps.iter().filter(same).count(), steps.iter().filter(lone).count(), steps.len())
    };
    assert_eq!(count(&provider, &provider), (1780, 0, 1780));
    assert_eq!(count(&provider, &other), (1780, 0, 1780));
    assert_eq!(count(&provider, &table), (1779, 9, 1789));
}
