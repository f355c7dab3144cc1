//! No bundle passes without a sufficient comparison: unusable oracle files, too few positions, repeated positions, near-ties.

use std::fs;
use std::path::Path;

use crate::support::{Counting, checkpoint, oracle_of, package, stepper};
use checkpoint::source::LocalSource;
use oracle::file::Oracle;
use oracle::gate::{self, Bounds, Failure, GateError, GateReport};
use oracle::reference::Reference;
use serde_json::{Value, json};

const F16: &str = "provider.f16";

/// Gates the f16 package without the checkpoint. Returns the report and the number of tokens that were fed.
fn gated(oracle: &Oracle) -> (GateReport, u64) {
    let fed = Counting::default();
    let report = gate::run(&mut stepper(&package(F16)), oracle, None, false, &fed);
    (report.unwrap(), fed.done())
}

/// In the reference, before any position of the bundle is run, and between two of these.
#[test]
fn a_gate_stops_where_it_is_told_to() {
    let source = LocalSource::open(&checkpoint()).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let mut stepper = stepper(&package(F16));
    for positions in [0, 5] {
        let stopping = Counting::stopping_after(positions);
        let stopped = gate::run(&mut stepper, &oracle_of(2), Some(&mut reference), false, &stopping);
        assert!(matches!(stopped, Err(GateError::Stopped)), "{stopped:?}");
        assert_eq!(stopping.done(), positions);
    }
}

/// Changes the stored oracle and returns the error with which the file is refused.
fn refused(change: impl FnOnce(&mut Value)) -> String {
    let mut json: Value =
        serde_json::from_slice(&fs::read(checkpoint().join("oracle.json")).unwrap()).unwrap();
    change(&mut json);
    refused_text(&json.to_string())
}

fn refused_text(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("oracle.json");
    fs::write(&path, text).unwrap();
    let said = Oracle::read(&path).unwrap_err().to_string();
    assert!(said.contains("oracle.json") && said.len() < 600, "{said}");
    said
}

#[test]
fn oracle_files_with_unusable_contents_are_refused() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 12] = [
        ("\"cases\" is empty", |json| json["cases"] = json!([])),
        ("cases[1] has no tokens", |json| {
            for list in [
                "prompt_ids",
                "generated_ids",
                "teacher_forced_argmax",
                "teacher_forced_margins",
                "logit_norms",
            ] {
                json["cases"][1][list] = json!([]);
            }
        }),
        ("cases[0].teacher_forced_argmax has 0 entries for 34 tokens", |json| {
            json["cases"][0]["teacher_forced_argmax"] = json!([]);
        }),
        ("cases[0].teacher_forced_margins[3] is -1", |json| {
            json["cases"][0]["teacher_forced_margins"][3] = json!(-1);
        }),
        ("number out of range", |json| json["cases"][2]["teacher_forced_margins"][0] = json!(1e39)),
        ("number out of range", |json| json["cases"][0]["logit_norms"][5] = json!(1e300)),
        ("cases[0].logit_norms[5] is 0", |json| json["cases"][0]["logit_norms"][5] = json!(0)),
        ("invalid type: null, expected f32", |json| json["cases"][0]["logit_norms"][5] = Value::Null),
        ("invalid type: null", |json| json["cases"][0]["teacher_forced_argmax"] = Value::Null),
        ("expected u32", |json| json["cases"][0]["prompt_ids"][0] = json!(4_294_967_296_u64)),
        ("expected u32", |json| json["cases"][0]["generated_ids"][0] = json!(-7)),
        ("cases[6].teacher_forced_argmax[0] is 9, but an earlier case", |json| {
            let mut case = json["cases"][0].clone();
            (case["teacher_forced_argmax"][0], case["teacher_forced_margins"][0]) = (json!(9), json!(3.5));
            json["cases"].as_array_mut().unwrap().push(case);
        }),
    ];
    for (expected, change) in cases {
        let said = refused(change);
        assert!(said.contains(expected), "{said}");
    }
    refused(|json| json["cases"] = json!({}));
    refused(|json| json["cases"][0]["prompt_ids"] = json!("x".repeat(100_000)));
    for text in ["", "{\"cases\": []}", "null", &"[".repeat(100_000), &"{\"cases\":".repeat(10_000)] {
        refused_text(text);
    }
    let out_of_range = serde_json::to_string(&oracle_of(1)).unwrap().replacen(
        "\"logit_norms\":[",
        "\"logit_norms\":[1e999,",
        1,
    );
    assert!(refused_text(&out_of_range).contains("out of range"));
}

#[test]
fn oversized_and_special_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("oracle.json");
    fs::File::create(&path).unwrap().set_len((64 << 20) + 1).unwrap();
    assert!(Oracle::read(&path).unwrap_err().to_string().contains("at most 67108864 are read"));
    assert!(Oracle::read(Path::new("/dev/zero")).unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn oracles_of_other_models_are_refused_before_anything_runs() {
    let source = LocalSource::open(&checkpoint()).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let mut stepper = stepper(&package(F16));
    let mut refused = |oracle: &Oracle, reference: Option<&mut Reference<'_>>| {
        let fed = Counting::default();
        let error = gate::run(&mut stepper, oracle, reference, false, &fed).unwrap_err();
        assert_eq!(fed.done(), 0);
        error
    };
    let mut foreign = oracle_of(2);
    foreign.cases[1].teacher_forced_argmax[4] = 512;
    assert!(matches!(refused(&foreign, None), GateError::Token { case: 1, token: 512, vocab: 512 }));
    let mut foreign = oracle_of(2);
    foreign.cases[0].prompt_ids[0] = u32::MAX;
    assert!(matches!(refused(&foreign, None), GateError::Token { case: 0, token: u32::MAX, vocab: 512 }));
    let mut long = oracle_of(1);
    long.cases[0].prompt_ids.resize(4096, 7);
    assert!(matches!(
        refused(&long, Some(&mut reference)),
        GateError::Length { case: 0, tokens: 4120, limit: 4096 }
    ));
}

#[test]
fn positions_of_the_same_context_count_once_and_repeated_sequences_are_not_run() {
    let once = oracle_of(1);
    let mut often = once.clone();
    often.cases = vec![once.cases[0].clone(); 5];
    // The sixth sequence differs after 20 tokens.
    let mut branch = once.cases[0].clone();
    branch.generated_ids[10] = 3;
    branch.teacher_forced_margins[20..].fill(0.0);
    branch.teacher_forced_argmax[20..].fill(3);
    often.cases.push(branch);
    let (alone, fed_alone) = gated(&once);
    let (repeated, fed) = gated(&often);
    assert_eq!(fed_alone, 34);
    assert_eq!(fed, 34 + 34, "the branch is fed from its beginning, the copies are not");
    assert_eq!((alone.qualified, repeated.qualified), (33, 33));
    assert_eq!(often.qualified(), 33);
    let counted: Vec<usize> = repeated.cases.iter().map(|case| case.repeated).collect();
    assert_eq!(counted, [0, 34, 34, 34, 34, 20]);
    assert_eq!(repeated.failures.first(), Some(&Failure::Positions { found: 33, needed: 64 }));
    assert_eq!(alone.failures, [Failure::Positions { found: 33, needed: 64 }]);
    assert_eq!((alone.passed, alone.exit_code()), (false, 1));
    assert_eq!(
        alone.reasons().collect::<Vec<_>>(),
        ["failed: 33 distinct qualified positions, at least 64 are needed: give more or longer prompts to \
          `coreai-bundle oracle`"]
    );
    let bounds = Bounds { min_positions: 33, ..alone.bounds };
    assert!(alone.judged_by(bounds).passed);
}

/// Half of the norms are too large and half too small, so their average is right.
#[test]
fn norms_are_bounded_position_by_position() {
    let mut oracle = oracle_of(3);
    for case in &mut oracle.cases {
        for (at, norm) in case.logit_norms.iter_mut().enumerate() {
            *norm /= if at % 2 == 0 { 0.5 } else { 1.5 };
        }
    }
    let (report, _) = gated(&oracle);
    assert!(report.norm_difference() > 0.4, "{}", report.norm_difference());
    assert!(!report.passed);
}

/// Near-ties do not qualify, but a bundle fails if it prefers other tokens there by more than rounding explains.
#[test]
fn near_ties_alone_do_not_pass_and_wrong_ones_fail() {
    let mut thin = oracle_of(3);
    for case in &mut thin.cases {
        case.teacher_forced_margins.fill(0.05);
    }
    let (report, _) = gated(&thin);
    assert_eq!(report.failures, [Failure::Positions { found: 0, needed: 64 }]);

    let mut wrong = oracle_of(6);
    for case in &mut wrong.cases[3..] {
        case.teacher_forced_margins.fill(0.05);
        case.teacher_forced_argmax.iter_mut().for_each(|winner| *winner = (*winner + 1) % 512);
    }
    let (report, _) = gated(&wrong);
    assert!(report.qualified >= 64 && report.agreed == report.qualified, "{report:?}");
    assert!(matches!(report.failures[..], [Failure::TieFlips { flips: 80.., .. }]), "{:?}", report.failures);
    assert!(!report.passed);
}
