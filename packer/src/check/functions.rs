//! Rules for a graph's functions together: what each engine requires of `prefill`, and of a `main` that takes several tokens.
//!
//! Apple's engine (coreai-models, pull requests 204, 227 and 240) wants a `prefill` of any query length without outputs. The
//! community's engine for gather tables wants one of fixed query length with logits, and ignores others. Its engine for inputs that
//! are filled at every step takes one token at a time.

use aimodel::package::PROGRAM;

use super::context::{Context, Folder};
use super::facts::{FunctionFacts, GraphFacts, INPUT_IDS, PortFacts};
use super::rules;
use crate::metadata::{EngineInputs, MAIN_FUNCTION, PREFILL_FUNCTION, QueryLength};

/// Compares the functions with what the engine for such inputs takes.
pub(super) fn check(context: &mut Context<'_>, folder: &Folder, main: &FunctionFacts, facts: &GraphFacts) {
    let engine = EngineInputs::of_inputs(main.inputs.iter().map(|input| input.name.as_str()));
    for function in &facts.functions {
        if ![MAIN_FUNCTION, PREFILL_FUNCTION].contains(&function.name.as_str()) {
            context.report(
                &rules::GRAPH_OTHER_FUNCTION,
                folder,
                PROGRAM,
                format!("a function {}", function.name),
            );
        }
    }
    if engine == EngineInputs::PerToken {
        check_per_token(context, folder, main, facts.prefill());
        return;
    }
    let Some(prefill) = facts.prefill() else { return };
    check_signature(context, folder, main, prefill);
    match engine {
        EngineInputs::Static => check_fixed(context, folder, main, prefill),
        _ => check_dynamic(context, folder, prefill),
    }
}

fn check_per_token(
    context: &mut Context<'_>,
    folder: &Folder,
    main: &FunctionFacts,
    prefill: Option<&FunctionFacts>,
) {
    if main.query_length() == Some(QueryLength::Dynamic) {
        let what = "main takes any number of tokens, and has inputs that are filled at every step";
        context.report(&rules::GRAPH_PER_TOKEN_QUERY, folder, PROGRAM, what);
    }
    if prefill.is_some() {
        let what = "there is a prefill, but main has inputs that are filled at every step";
        context.report(&rules::GRAPH_PER_TOKEN_QUERY, folder, PROGRAM, what);
    }
}

/// Names of inputs in order, and the states in any order.
fn check_signature(
    context: &mut Context<'_>,
    folder: &Folder,
    main: &FunctionFacts,
    prefill: &FunctionFacts,
) {
    let names = |ports: &[PortFacts]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    let (ours, theirs) = (names(&prefill.inputs), names(&main.inputs));
    if ours != theirs {
        let what = format!("prefill has the inputs {}; main has {}", ours.join(", "), theirs.join(", "));
        context.report(&rules::GRAPH_PREFILL_INPUTS, folder, PROGRAM, what);
    }
    let (mut ours, mut theirs) = (prefill.states.clone(), main.states.clone());
    ours.sort_by(|a, b| a.name.cmp(&b.name));
    theirs.sort_by(|a, b| a.name.cmp(&b.name));
    if ours != theirs {
        let list = |ports: &[PortFacts]| ports.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let what = format!("prefill has the states {}; main has {}", list(&ours), list(&theirs));
        context.report(&rules::GRAPH_PREFILL_STATES, folder, PROGRAM, what);
    }
}

/// What Apple's engine takes.
fn check_dynamic(context: &mut Context<'_>, folder: &Folder, prefill: &FunctionFacts) {
    if !prefill.outputs.is_empty() {
        let what = format!("prefill has the outputs {}", outputs(prefill));
        context.report(&rules::GRAPH_PREFILL_OUTPUTS, folder, PROGRAM, what);
    }
    check_width(context, folder, prefill, prefill.query_length() == Some(QueryLength::Dynamic));
}

/// What the community's engine for gather tables takes.
fn check_fixed(context: &mut Context<'_>, folder: &Folder, main: &FunctionFacts, prefill: &FunctionFacts) {
    let Some(logits) = prefill.output("logits") else {
        let what = format!("prefill has the outputs: {}", outputs(prefill));
        context.report(&rules::GRAPH_PREFILL_IGNORED, folder, PROGRAM, what);
        return;
    };
    let length = prefill.query_length();
    check_width(context, folder, prefill, matches!(length, Some(QueryLength::Fixed(tokens)) if tokens > 1));
    let vocabulary = main.output("logits").and_then(|logits| logits.shape.last().copied()).flatten();
    let tokens = prefill.input(INPUT_IDS).and_then(|ids| ids.shape.get(1).copied()).flatten();
    if !logits.is("f16", &[Some(1), tokens, vocabulary]) {
        context.report(&rules::GRAPH_LOGITS, folder, PROGRAM, format!("the output of prefill is {logits}"));
    }
}

fn check_width(context: &mut Context<'_>, folder: &Folder, prefill: &FunctionFacts, fits: bool) {
    if fits {
        return;
    }
    let ids = prefill.input(INPUT_IDS).map_or("missing".to_owned(), ToString::to_string);
    context.report(&rules::GRAPH_PREFILL_WIDTH, folder, PROGRAM, format!("the input of prefill is {ids}"));
}

fn outputs(function: &FunctionFacts) -> String {
    let names: Vec<&str> = function.outputs.iter().map(|output| output.name.as_str()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
