//! Compares the fp32 reference with results of `transformers` for the tiny checkpoint.

use std::path::Path;

use crate::support::{Case, cases, checkpoint, read_cases};
use checkpoint::source::LocalSource;
use fixtures::{Shape, SyntheticCheckpoint, data};
use oracle::file::{Prompt, make_cases};
use oracle::reference::Reference;
use progress::Silent;

fn compare(checkpoint: &Path, cases: Vec<Case>) {
    let source = LocalSource::open(checkpoint).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let prompt = |case: &Case| Prompt { text: case.prompt.clone(), ids: case.prompt_ids.clone() };
    let prompts: Vec<Prompt> = cases.iter().map(prompt).collect();
    let generated = cases[0].generated_ids.len();
    let made = make_cases(&reference, &prompts, generated, &|_| String::new(), &Silent).unwrap();
    assert_eq!(made.len(), cases.len());
    for (made, expected) in made.into_iter().zip(cases) {
        assert_eq!(made.generated_ids, expected.generated_ids, "{:?}", expected.prompt);
        assert_eq!(made.teacher_forced_argmax, expected.teacher_forced_argmax, "{:?}", expected.prompt);
        close(&made.margins, &expected.margins, 1e-3);
        close(&made.teacher_forced_margins, &expected.teacher_forced_margins, 1e-3);
        close(&made.last_logits_head, &expected.last_logits_head, 1e-3);
        close(&made.logit_norms, &expected.logit_norms, 2e-3);
        teacher_forced_together(&mut reference, &expected);
    }
}

/// Checks that tokens fed together have the same margins as tokens fed one by one.
fn teacher_forced_together(reference: &mut Reference<'_>, expected: &Case) {
    reference.reset();
    let hidden = reference.feed(&expected.ids(), &mut |_, _| {}).unwrap();
    let mut margins = Vec::new();
    reference
        .logits(&hidden, &Silent, &mut |_, logits| margins.push(oracle::score::winner(logits).margin))
        .unwrap();
    close(&margins, &expected.teacher_forced_margins, 1e-3);
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{at}: {found} instead of {expected}");
    }
}

/// Prompts of different lengths, some longer than the window of 16 positions, see as little of each other's continuations as alone. The
/// last bits of few tokens depend on how many there are.
#[test]
fn prompts_are_continued_together_as_alone() {
    for folder in [checkpoint(), data::tiny_dense_checkpoint()] {
        let source = LocalSource::open(&folder).unwrap();
        let reference = Reference::open(&source).unwrap();
        let ids = |length: u32| (0..length).map(|at| 1 + (at * at * 37 + at * 11 + length) % 90).collect();
        let prompts = [1, 23, 15, 40, 2].map(|length| Prompt { text: length.to_string(), ids: ids(length) });
        let make = |prompts: &[Prompt]| {
            make_cases(&reference, prompts, 5, &|ids| format!("{ids:?}"), &Silent).unwrap()
        };
        let together = make(&prompts);
        assert_eq!(make(&prompts), together, "the same bits every time");
        for (prompt, case) in prompts.iter().zip(&together) {
            let alone = make(std::slice::from_ref(prompt)).remove(0);
            assert_eq!((&alone.text, &alone.generated_ids), (&case.text, &case.generated_ids));
            assert_eq!((case.generated_ids.len(), case.logit_digests.len()), (5, case.len()));
            close(&alone.teacher_forced_margins, &case.teacher_forced_margins, 1e-3);
            close(&alone.logit_norms, &case.logit_norms, 1e-3);
        }
        assert_eq!(make(&[]), []);
    }
}

#[test]
fn short_sequences_equal_those_of_transformers() {
    compare(&checkpoint(), cases("oracle.json"));
}

#[test]
fn sequences_much_longer_than_the_window_equal_those_of_transformers() {
    compare(&checkpoint(), cases("oracle-long.json"));
}

/// No per-layer embeddings, full layers whose values are their keys, with one KV head.
#[test]
fn dense_sequences_equal_those_of_transformers() {
    for (checkpoint, file) in [
        (data::tiny_dense_checkpoint(), "oracle.json"),
        (data::tiny_dense_checkpoint(), "oracle-long.json"),
        (data::probe_checkpoint(), "oracle.json"),
    ] {
        compare(&checkpoint, read_cases(&checkpoint.join(file)));
    }
}

/// One KV head, double-wide feed-forward on shared layers, full attention every fifth layer. The golden was made by
/// `xtask/judges/transformers_golden.py`.
#[test]
fn the_structure_of_e2b_equals_that_of_transformers() {
    let dir = tempfile::tempdir().unwrap();
    let checkpoint = dir.path().join("e2b-like");
    SyntheticCheckpoint::new(Shape::e2b_like()).write(&checkpoint).unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/e2b-like.json");
    compare(&checkpoint, read_cases(&golden));
}
