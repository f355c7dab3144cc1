//! The fp32 reference against what `transformers` recorded for the tiny checkpoint.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

mod support;

use converter::source::LocalSource;
use oracle::file::{Prompt, make_case};
use oracle::reference::Reference;
use support::{Case, cases, checkpoint};

fn compare(file: &str) {
    let source = LocalSource::open(&checkpoint()).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    for expected in cases(file) {
        let prompt = Prompt { text: expected.prompt.clone(), ids: expected.prompt_ids.clone() };
        let made =
            make_case(&mut reference, &prompt, expected.generated_ids.len(), &|_| String::new()).unwrap();
        assert_eq!(made.generated_ids, expected.generated_ids, "{:?}", expected.prompt);
        assert_eq!(made.teacher_forced_argmax, expected.teacher_forced_argmax, "{:?}", expected.prompt);
        close(&made.margins, &expected.margins, 1e-3);
        close(&made.teacher_forced_margins, &expected.teacher_forced_margins, 1e-3);
        close(&made.last_logits_head, &expected.last_logits_head, 1e-3);
        close(&made.logit_norms, &expected.logit_norms, 2e-3);
        teacher_forced_together(&mut reference, &expected);
    }
}

/// All tokens at once give the same winners and margins as one after the other.
fn teacher_forced_together(reference: &mut Reference<'_>, expected: &Case) {
    reference.reset();
    let hidden = reference.feed(&expected.ids(), &mut |_, _| {}).unwrap();
    let mut margins = Vec::new();
    reference.logits(&hidden, &mut |_, logits| margins.push(oracle::score::winner(logits).margin)).unwrap();
    close(&margins, &expected.teacher_forced_margins, 1e-3);
}

fn close(found: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(found.len(), expected.len());
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!((found - expected).abs() <= tolerance, "{at}: {found} instead of {expected}");
    }
}

#[test]
fn short_sequences_equal_those_of_transformers() {
    compare("oracle.json");
}

#[test]
fn sequences_far_beyond_the_window_equal_those_of_transformers() {
    compare("oracle-long.json");
}
