//! Faults of functions that read prompts, planted in the facts of a good graph, and in the metadata that goes with it.

use packer::check::facts::{FunctionFacts, GraphFacts, PortFacts};
use serde_json::{Value, json};

use crate::check::fixture::{PROVIDER, Release, Stock, TBL, assert_found};

/// The note about every bundle whose per-layer table is in the graph.
const NOTE: &str = "graph.stock-not-run";

macro_rules! stock_faults {
    ($($name:ident: $plant:expr => [$($id:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let plant: fn(&mut GraphFacts) = $plant;
            assert_found(&Stock::new().bundle.check_graph(plant), &[NOTE, $($id),*]);
        })*
    };
}

macro_rules! key_faults {
    ($($name:ident: $plant:expr => [$($id:literal),*];)*) => {
        $(#[test]
        fn $name() {
            let stock = Stock::new();
            let plant: fn(&mut Value) = $plant;
            stock.bundle.metadata(plant);
            stock.bundle.seal();
            assert_found(&stock.bundle.check(), &[NOTE, $($id),*]);
        })*
    };
}

fn main_of(facts: &mut GraphFacts) -> &mut FunctionFacts {
    &mut facts.functions[0]
}

fn prefill_of(facts: &mut GraphFacts) -> &mut FunctionFacts {
    &mut facts.functions[1]
}

/// Makes the ids of a function this wide.
fn widen(function: &mut FunctionFacts, tokens: Option<u64>) {
    function.inputs[0].shape[1] = tokens;
}

fn logits(tokens: Option<u64>) -> PortFacts {
    PortFacts { name: "logits".into(), element: "f16".into(), shape: vec![Some(1), tokens, Some(512)] }
}

stock_faults! {
    prefill_with_inputs_in_another_order: |g| prefill_of(g).inputs.reverse() => ["graph.prefill-inputs"];
    prefill_with_an_input_of_another_name: |g| prefill_of(g).inputs[1].name = "positions".into() =>
        ["graph.prefill-inputs"];
    prefill_without_positions: |g| { prefill_of(g).inputs.pop(); } => ["graph.prefill-inputs"];
    prefill_without_a_state: |g| { prefill_of(g).states.pop(); } => ["graph.prefill-states"];
    prefill_with_a_state_of_another_shape: |g| prefill_of(g).states[0].shape[0] = Some(6) =>
        ["graph.prefill-states"];
    prefill_with_logits: |g| prefill_of(g).outputs.push(logits(None)) => ["graph.prefill-outputs"];
    prefill_of_fixed_width: |g| widen(prefill_of(g), Some(64)) =>
        ["graph.prefill-width", "metadata.query-length", "metadata.prefill-chunk", "metadata.prefill-chunk"];
    prefill_of_another_name: |g| prefill_of(g).name = "prompt".into() =>
        ["graph.other-function", "metadata.query-length"];
    no_prefill: |g| { g.functions.pop(); } => ["metadata.query-length"];
    dynamic_main_with_logits_of_one_position: |g| main_of(g).outputs[0].shape[1] = Some(1) => ["graph.logits"];
    static_main_that_the_metadata_calls_dynamic: |g| {
        widen(main_of(g), Some(1));
        main_of(g).outputs[0].shape[1] = Some(1);
    } => ["metadata.query-length"];
    main_of_eight_tokens: |g| widen(main_of(g), Some(8)) => ["graph.input-ids", "graph.logits"];
}

key_faults! {
    threshold_beside_a_dynamic_prefill: |m| m["language"]["prefill_chunk_threshold"] = json!(1) =>
        ["metadata.prefill-chunk"];
    chunks_of_one_token: |m| m["language"]["prefill_chunk_size"] = json!(1) => ["metadata.prefill-chunk-one"];
    chunks_of_no_token: |m| m["language"]["prefill_chunk_size"] = json!(0) => ["metadata.prefill-chunk"];
    chunk_size_as_text: |m| m["language"]["prefill_chunk_size"] = json!("512") => ["metadata.prefill-chunk"];
    query_length_of_another_graph: |m| m["user_data"]["query_length"] = json!("1") => ["metadata.query-length"];
    prefill_of_another_graph: |m| m["user_data"]["prefill_query_length"] = json!("64") =>
        ["metadata.query-length"];
}

#[test]
fn functions_that_suit_apples_engine_pass() {
    let stock = Stock::new();
    assert_found(&stock.bundle.check(), &[NOTE]);
    // The engine has defaults for the size, and states may come in any order.
    stock.bundle.language(|language| {
        language.as_object_mut().unwrap().remove("prefill_chunk_size");
    });
    stock.bundle.seal();
    assert_found(&stock.bundle.check_graph(|g| prefill_of(g).states.reverse()), &[NOTE]);
}

#[test]
fn graphs_that_are_filled_at_every_step_take_one_token() {
    let release = Release::new();
    let with_prefill = |g: &mut GraphFacts| {
        let mut prefill = main_of(g).clone();
        prefill.name = "prefill".into();
        g.functions.push(prefill);
    };
    assert_found(&release.bundle(PROVIDER).check_graph(with_prefill), &["graph.per-token-query"]);
    let dynamic = |g: &mut GraphFacts| {
        widen(main_of(g), None);
        main_of(g).outputs[0].shape[1] = None;
    };
    let expected = [
        "graph.per-token-query",
        "metadata.query-length",
        "metadata.prefill-chunk",
        "metadata.prefill-chunk-one",
    ];
    assert_found(&release.bundle(PROVIDER).check_graph(dynamic), &expected);
}

/// The community's engine for gather tables wants what Apple's refuses.
mod tbl {
    use super::*;

    /// Adds a prefill of this width with these outputs to the graph, and the matching keys to the metadata.
    fn check(tokens: Option<u64>, outputs: &[PortFacts], expected: &[&str]) {
        let release = Release::new();
        let bundle = release.bundle(TBL);
        bundle.metadata(|metadata| {
            metadata["user_data"]["prefill_query_length"] = json!("64");
            metadata["language"]["prefill_chunk_size"] = json!(64);
            metadata["language"]["prefill_chunk_threshold"] = json!(64);
        });
        bundle.seal();
        let report = bundle.check_graph(|g| {
            let mut prefill = main_of(g).clone();
            prefill.name = "prefill".into();
            prefill.outputs = outputs.to_vec();
            widen(&mut prefill, tokens);
            g.functions.push(prefill);
        });
        assert_found(&report, expected);
    }

    #[test]
    fn fixed_width_with_logits_passes() {
        check(Some(64), &[logits(Some(64))], &[]);
    }

    #[test]
    fn prefill_without_logits_is_ignored() {
        check(Some(64), &[], &["graph.prefill-ignored"]);
    }

    #[test]
    fn logits_of_one_position_are_found() {
        check(Some(64), &[logits(Some(1))], &["graph.logits"]);
    }

    #[test]
    fn another_width_than_the_metadata_says_is_found() {
        let keys = ["metadata.query-length", "metadata.prefill-chunk", "metadata.prefill-chunk"];
        check(Some(32), &[logits(Some(32))], &keys);
    }

    #[test]
    fn dynamic_width_is_found() {
        let expected = ["graph.prefill-width", "metadata.query-length", "metadata.prefill-chunk"];
        check(None, &[logits(None)], &expected);
    }
}
