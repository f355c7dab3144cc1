//! Rules of the graph: signature, weights, rotary positions, locations.

use std::collections::BTreeMap;

use aimodel::package::PROGRAM;

use super::context::{Context, Folder};
use super::facts::{FunctionFacts, GraphFacts, INPUT_IDS, PortFacts, WeightFacts};
use super::{functions, rules};
use crate::metadata::QueryLength;

/// Weights along the input axis that share a scale.
const BLOCK: u64 = 32;
/// Maximum number of inputs that the engine's per-token patch fills.
const MOST_PER_TOKEN: usize = 2;
/// Maximum number of inputs that the engine's static patch binds.
const MOST_STATIC: usize = 4;

/// The input that holds the positions of all tokens so far.
const POSITION_IDS: &str = "position_ids";
/// The states, in the engine's order: one pair of caches, or two.
const STATES: [&str; 4] = ["keyCache", "valueCache", "keyCacheFull", "valueCacheFull"];

/// The input that a host fills with per-layer rows at every step.
pub(super) const PLE_TOKENS: &str = "ple_tokens";
/// The table that a host binds once.
pub(super) const PLE_TABLE: &str = "ple_table";
/// The row scales that a host binds once.
pub(super) const PLE_SCALE: &str = "ple_scale";

/// Checks everything that depends on the graph alone.
pub(super) fn check(context: &mut Context<'_>, folder: &Folder, facts: &GraphFacts) {
    match facts.main() {
        Some(main) => {
            check_token_inputs(context, folder, main);
            check_further_inputs(context, folder, main);
            check_states(context, folder, main);
            check_engine(context, folder, main, facts);
            check_logits(context, folder, main);
            functions::check(context, folder, main, facts);
        }
        None => {
            let names: Vec<&str> = facts.functions.iter().map(|function| function.name.as_str()).collect();
            let what = format!("no function main, only: {}", names.join(", "));
            context.report(&rules::GRAPH_FUNCTION, folder, PROGRAM, what);
        }
    }
    check_weights(context, folder, &facts.weights);
    check_program(context, folder, facts);
}

fn check_token_inputs(context: &mut Context<'_>, folder: &Folder, main: &FunctionFacts) {
    let inputs = [
        (INPUT_IDS, [Some(1), queries(main)], &rules::GRAPH_INPUT_IDS),
        (POSITION_IDS, [Some(1), None], &rules::GRAPH_POSITION_IDS),
    ];
    for (name, shape, rule) in inputs {
        match main.input(name) {
            Some(port) if port.is("si32", &shape) => {}
            Some(port) => context.report(rule, folder, PROGRAM, format!("the input is {port}")),
            None => context.report(rule, folder, PROGRAM, format!("there is no input {name}")),
        }
    }
}

/// Extent that `main` must have along the axis of its tokens: one, or any number.
fn queries(main: &FunctionFacts) -> Option<u64> {
    if main.query_length() == Some(QueryLength::Dynamic) { None } else { Some(1) }
}

fn check_further_inputs(context: &mut Context<'_>, folder: &Folder, main: &FunctionFacts) {
    let (mut per_token, mut bound) = (0, 0);
    for port in &main.inputs {
        let fits = match port.name.as_str() {
            INPUT_IDS | POSITION_IDS => continue,
            PLE_TOKENS => {
                per_token += 1;
                port.element == "f16" && matches!(port.shape[..], [Some(1), Some(1), Some(_), Some(_)])
            }
            PLE_TABLE => {
                bound += 1;
                port.element == "si8" && matches!(port.shape[..], [Some(_), Some(_)])
            }
            PLE_SCALE => {
                bound += 1;
                port.element == "f32" && matches!(port.shape[..], [Some(_)])
            }
            _ => {
                per_token += 1;
                context.report(&rules::GRAPH_UNKNOWN_INPUT, folder, PROGRAM, format!("an input {port}"));
                !port.shape.contains(&None)
            }
        };
        if !fits {
            context.report(&rules::GRAPH_EXTRA_INPUT, folder, PROGRAM, format!("the input is {port}"));
        }
    }
    if per_token > MOST_PER_TOKEN || bound > MOST_STATIC {
        let what = format!("{per_token} inputs per token and {bound} bound once");
        context.report(&rules::GRAPH_EXTRA_INPUT, folder, PROGRAM, what);
    }
    if main.input(PLE_TABLE).is_some() != main.input(PLE_SCALE).is_some() {
        let what = format!("{PLE_TABLE} and {PLE_SCALE} belong together, but one is missing");
        context.report(&rules::GRAPH_EXTRA_INPUT, folder, PROGRAM, what);
    }
}

/// What Apple's unpatched engine has not been seen to run.
fn check_engine(context: &mut Context<'_>, folder: &Folder, main: &FunctionFacts, facts: &GraphFacts) {
    if takes_tokens_alone(main) && facts.holds_table {
        let what = "the per-layer table is a constant of the graph";
        context.report(&rules::GRAPH_STOCK, folder, PROGRAM, what);
    }
    if facts.gathers_bytes {
        context.report(&rules::GRAPH_BYTE_TABLE, folder, PROGRAM, "rows of a constant are gathered as bytes");
    }
    if main.states.len() == STATES.len() {
        let what = format!("the states are {}", listed(&main.states));
        context.report(&rules::GRAPH_SPLIT_CACHES, folder, PROGRAM, what);
    }
}

/// Whether `main` has no inputs but ids and positions.
fn takes_tokens_alone(main: &FunctionFacts) -> bool {
    main.inputs.iter().all(|input| [INPUT_IDS, POSITION_IDS].contains(&input.name.as_str()))
}

fn check_states(context: &mut Context<'_>, folder: &Folder, main: &FunctionFacts) {
    let fits = |port: &PortFacts| {
        port.element == "f16" && matches!(port.shape[..], [Some(_), Some(1), Some(_), None, Some(_)])
    };
    let (pairs, rest) = main.states.as_chunks::<2>();
    let expected = STATES.iter().copied();
    let is_named = main.states.iter().map(|state| state.name.as_str()).eq(expected.take(main.states.len()));
    let is_shaped = pairs.iter().all(|[key, value]| fits(key) && fits(value) && key.shape == value.shape);
    let is_taken = !pairs.is_empty() && rest.is_empty() && (pairs.len() == 1 || takes_tokens_alone(main));
    if !(is_named && is_shaped && is_taken) {
        let inputs =
            if takes_tokens_alone(main) { "" } else { ", and there are inputs besides ids and positions" };
        let what = format!("the states are {}{inputs}", listed(&main.states));
        context.report(&rules::GRAPH_STATES, folder, PROGRAM, what);
    }
}

fn listed(ports: &[PortFacts]) -> String {
    let names: Vec<String> = ports.iter().map(ToString::to_string).collect();
    if names.is_empty() { "none".to_owned() } else { names.join("; ") }
}

fn check_logits(context: &mut Context<'_>, folder: &Folder, main: &FunctionFacts) {
    let what = match &main.outputs[..] {
        [logits] if logits.name == "logits" => {
            let queries = queries(main);
            if logits.element == "f16"
                && matches!(logits.shape[..], [Some(1), length, Some(_)] if length == queries)
            {
                return;
            }
            format!("the output is {logits}")
        }
        outputs => {
            let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            format!("the outputs are: {}", names.join(", "))
        }
    };
    context.report(&rules::GRAPH_LOGITS, folder, PROGRAM, what);
}

/// One finding for each kind of fault, with the first weight as the example: a wrong rule hits hundreds.
fn check_weights(context: &mut Context<'_>, folder: &Folder, weights: &[WeightFacts]) {
    let mut faults: BTreeMap<(&str, String), (&super::Rule, &str, usize)> = BTreeMap::new();
    for weight in weights {
        let fault = |rule| move |what: String| (rule, what);
        let found = [
            (!matches!(weight.element.as_str(), "si4" | "si8"))
                .then(|| fault(&rules::GRAPH_WEIGHT_TYPE)(format!("codes of type {}", weight.element))),
            block_fault(weight).map(fault(&rules::GRAPH_BLOCK)),
            weight.shifted.then(|| fault(&rules::GRAPH_OFFSET)("offsets that are not zero".to_owned())),
            (weight.bad_scales > 0)
                .then(|| fault(&rules::GRAPH_SCALE)("scales that are infinite or not a number".to_owned())),
        ];
        for (rule, what) in found.into_iter().flatten() {
            faults.entry((rule.id, what)).or_insert((rule, &weight.name, 0)).2 += 1;
        }
    }
    for ((_, what), (rule, example, count)) in faults {
        context.report(
            rule,
            folder,
            PROGRAM,
            format!("{what}: {example} ({count} of {} weights)", weights.len()),
        );
    }
}

/// What is wrong with the block of a weight, if anything.
fn block_fault(weight: &WeightFacts) -> Option<String> {
    let Some(block) = &weight.block else {
        return Some("scales whose shape does not divide that of the codes".to_owned());
    };
    let (&last, others) = block.split_last()?;
    if others.iter().any(|&extent| extent != 1) {
        return Some(format!("blocks of {block:?}, not along the input axis alone"));
    }
    let per_channel = last != BLOCK && weight.shape.last() == Some(&last);
    match last {
        BLOCK => None,
        _ if per_channel => Some(format!("one scale for each output channel of {last} weights")),
        _ => Some(format!("blocks of {last}")),
    }
}

fn check_program(context: &mut Context<'_>, folder: &Folder, facts: &GraphFacts) {
    for blob in facts.shared_blobs.iter().filter(|blob| !blob.same_rows) {
        let what = format!("the blob {} is read as {}", blob.name, blob.types.join(" and "));
        context.report(&rules::GRAPH_SHARED_BLOB, folder, PROGRAM, what);
    }
    if let Some(broken) = &facts.invalid {
        context.report(&rules::GRAPH_INVALID, folder, PROGRAM, broken);
    }
    for rotation in &facts.rotations {
        if rotation.elements.iter().any(|element| element != "f32") {
            let what = format!("{} is computed from {}", rotation.name, rotation.elements.join(", "));
            context.report(&rules::GRAPH_ROPE, folder, PROGRAM, what);
        }
    }
    if facts.debug_locations > 0 {
        let what = format!("{} operations or arguments carry a source location", facts.debug_locations);
        context.report(&rules::GRAPH_LOCATIONS, folder, PROGRAM, what);
    }
}
