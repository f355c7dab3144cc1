//! Packages of two functions: a token has the same results alone, in any chunk, and through `prefill`.

use std::num::NonZeroUsize;

use crate::support::{
    Case, Counting, arg_max, cases, checkpoint, oracle_of, package, prefill_stepper, stepper,
};
use aimodel::Element;
use checkpoint::source::LocalSource;
use fixtures::data::PrefillReference;
use interpreter::{Rounding, Tensor};
use oracle::feeding::{Feeding, chunks};
use oracle::gate;
use oracle::generate::{Limits, generate};
use oracle::reference::Reference;
use oracle::sampling::{Sampler, Sampling};
use oracle::score::QUALIFYING_MARGIN;
use oracle::stepper::{StepError, Stepper};
use oracle::text::Text;
use progress::Silent;
use serde_json::json;

fn width(tokens: usize) -> NonZeroUsize {
    NonZeroUsize::new(tokens).unwrap()
}

/// A sequence much longer than the window, and longer than the initial capacity of the caches.
fn long_sequence() -> Case {
    cases("oracle-long.json").remove(0)
}

/// Logits of all positions, fed through `main` in chunks of at most `most` tokens.
fn through_main(stepper: &mut Stepper, tokens: &[u32], most: usize) -> Vec<Vec<f32>> {
    stepper.reset().unwrap();
    let mut logits = Vec::new();
    for chunk in chunks(tokens, width(most)) {
        let outputs = stepper.feed_chunk(chunk).unwrap();
        logits.extend((0..chunk.len()).map(|at| outputs.logits(at).unwrap()));
    }
    logits
}

/// Contents of the states up to the last position.
fn contents(stepper: &Stepper) -> Vec<Vec<f32>> {
    let session = stepper.session();
    let contents = |at| session.state(at, stepper.positions()).unwrap().to_floats().unwrap();
    (0..session.states().count()).map(contents).collect()
}

fn flips(case: &Case, logits: &[Vec<f32>]) -> usize {
    let differs = |at: &usize| arg_max(&logits[*at]) != case.teacher_forced_argmax[*at] as usize;
    let qualified = |at: &usize| case.teacher_forced_margins[*at] >= QUALIFYING_MARGIN;
    (0..logits.len()).filter(qualified).filter(differs).count()
}

#[track_caller]
fn assert_same_bits(found: &[f32], expected: &[f32], what: &str) {
    let same = found.iter().map(|value| value.to_bits()).eq(expected.iter().map(|value| value.to_bits()));
    assert!(same, "{what}");
}

/// Checks that every way of feeding gives the same bits, at all positions and in the caches. Returns the number of qualified
/// positions with another winner than the oracle.
fn feedings_agree(package: PrefillReference, sequences: &[Case]) -> usize {
    let mut stepper = prefill_stepper(package);
    let mut flipped = 0;
    for case in sequences {
        let tokens = case.ids();
        let expected = through_main(&mut stepper, &tokens, 1);
        let kept = contents(&stepper);
        flipped += flips(case, &expected);
        for most in [3, 7, 16, 64] {
            let found = through_main(&mut stepper, &tokens, most);
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                assert_same_bits(found, expected, &format!("{:?}, {at}, chunks of {most}", case.prompt));
            }
            assert_eq!(contents(&stepper), kept, "{:?}, chunks of {most}", case.prompt);
        }
        for most in [4, 7, 16, 64, 512] {
            let what = format!("{:?}, prefill of {most}", case.prompt);
            stepper.set_feeding(Feeding::Prefill(width(most))).unwrap();
            stepper.reset().unwrap();
            let mut found = vec![stepper.read_prompt(&case.prompt_ids).unwrap().unwrap()];
            let outputs = stepper.feed_chunk(&case.generated_ids).unwrap();
            found.extend((0..case.generated_ids.len()).map(|at| outputs.logits(at).unwrap()));
            for (found, expected) in found.iter().zip(&expected[case.prompt_ids.len() - 1..]) {
                assert_same_bits(found, expected, &what);
            }
            assert_eq!(contents(&stepper), kept, "{what}");
        }
    }
    flipped
}

#[test]
fn short_sequences_have_the_same_logits_however_they_are_fed() {
    assert_eq!(feedings_agree(PrefillReference::F16, &cases("oracle.json")), 0);
}

#[test]
fn a_long_sequence_has_the_same_logits_however_it_is_fed() {
    assert_eq!(feedings_agree(PrefillReference::F16, &[long_sequence()]), 0);
}

/// int4 codes off the lattice change as many winners as in the packages of one function.
#[test]
fn int4_has_the_same_logits_however_it_is_fed() {
    assert_eq!(feedings_agree(PrefillReference::Int4, &cases("oracle.json")), 11);
}

/// Chunks that end at the window's edge, before and after it, and one or two windows later.
#[test]
fn chunks_may_end_anywhere_around_the_window() {
    let tokens = &long_sequence().ids()[..52];
    let mut stepper = prefill_stepper(PrefillReference::F16);
    let expected = through_main(&mut stepper, tokens, 1);
    for end in [14, 15, 16, 17, 18, 31, 32, 33, 47, 48, 49] {
        for function in ["main", "prefill"] {
            stepper.reset().unwrap();
            match function {
                "main" => stepper.feed_chunk(&tokens[..end]).unwrap(),
                _ => stepper.prefill(&tokens[..end]).unwrap(),
            };
            let outputs = stepper.feed_chunk(&tokens[end..]).unwrap();
            for (at, expected) in expected[end..].iter().enumerate() {
                let found = outputs.logits(at).unwrap();
                assert_same_bits(&found, expected, &format!("{function} to {end}, {at} after it"));
            }
        }
    }
}

/// Fills the caches beyond the last position with NaN.
fn spoil(stepper: &mut Stepper) {
    let past = stepper.positions();
    let session = stepper.session_mut();
    for at in 0..session.states().count() {
        let state = session.state(at, session.capacity()).unwrap();
        let shape = state.shape().to_vec();
        let (positions, width) = (shape[3], shape[4]);
        let mut values = state.to_floats().unwrap();
        for (row, values) in values.chunks_exact_mut(width).enumerate() {
            if row % positions >= past {
                values.fill(f32::NAN);
            }
        }
        session.set_state(at, Tensor::from_floats(Element::F16, &shape, values).unwrap()).unwrap();
    }
}

#[test]
fn cache_contents_beyond_the_last_position_do_not_matter() {
    let tokens = &long_sequence().ids()[..60];
    let mut stepper = prefill_stepper(PrefillReference::F16);
    let expected = through_main(&mut stepper, tokens, 1);
    stepper.reset().unwrap();
    spoil(&mut stepper);
    stepper.prefill(&tokens[..13]).unwrap();
    spoil(&mut stepper);
    stepper.prefill(&tokens[13..29]).unwrap();
    spoil(&mut stepper);
    let outputs = stepper.feed_chunk(&tokens[29..59]).unwrap();
    for (at, expected) in expected[29..59].iter().enumerate() {
        assert_same_bits(&outputs.logits(at).unwrap(), expected, &format!("{at} after the second chunk"));
    }
    spoil(&mut stepper);
    assert_same_bits(&stepper.feed(tokens[59]).unwrap(), &expected[59], "the last one");
}

/// With the rounding of Apple's runtime, too, a token has the same results in any chunk.
#[test]
fn rounding_each_step_does_not_depend_on_the_chunk() {
    let tokens = long_sequence().ids()[..40].to_vec();
    let mut stepper = prefill_stepper(PrefillReference::Int4);
    stepper.set_rounding(Rounding::EachStep);
    let expected = through_main(&mut stepper, &tokens, 1);
    for (found, expected) in through_main(&mut stepper, &tokens, 16).iter().zip(&expected) {
        assert_same_bits(found, expected, "chunks of 16");
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let tokens = long_sequence().ids()[..48].to_vec();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| through_main(&mut prefill_stepper(PrefillReference::Int4), &tokens, 24))
    };
    let (one, three) = (run(1), run(3));
    assert_eq!(one, three);
}

#[test]
fn a_package_is_fed_as_the_engine_feeds_it() {
    let mut fixed = stepper(&package("provider.f16"));
    assert_eq!(fixed.feeding_of_engine(width(64)), Feeding::ONE_BY_ONE);
    assert!(matches!(fixed.set_feeding(Feeding::Prefill(width(64))), Err(StepError::NoPrefill)));
    assert!(matches!(fixed.set_feeding(Feeding::Main(width(2))), Err(StepError::OneAtATime { .. })));
    assert_eq!(fixed.feeding(), Feeding::ONE_BY_ONE);
    assert!(fixed.feed_chunk(&[2, 7]).is_err());
    let two = prefill_stepper(PrefillReference::F16);
    assert_eq!(two.feeding_of_engine(width(64)), Feeding::Prefill(width(64)));
}

#[test]
fn a_prompt_through_prefill_has_the_same_continuation() {
    let text = Text::open(&checkpoint()).unwrap();
    let case = &cases("oracle.json")[0];
    let mut stepper = prefill_stepper(PrefillReference::F16);
    stepper.set_feeding(Feeding::Prefill(width(4))).unwrap();
    let (limits, mut sampler) = (Limits::tokens(case.generated_ids.len()), Sampler::new(Sampling::GREEDY));
    let made = generate(&mut stepper, &text, &case.prompt_ids, &limits, &mut sampler, &mut |_| {}).unwrap();
    assert_eq!(made.ids, case.generated_ids);
    let probe = gate::probe(&mut stepper, &case.prompt_ids).unwrap();
    assert_eq!(probe.generated_ids, case.generated_ids);
}

/// Through `main` all positions are compared; through `prefill` the ends of the prompts' quarters and the continuations.
#[test]
fn the_gate_passes_the_package_however_it_is_fed() {
    let source = LocalSource::open(&checkpoint()).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let mut stepper = prefill_stepper(PrefillReference::F16);
    for (feeding, qualified, json) in [
        (Feeding::Main(width(7)), 182, json!({"main": 7})),
        (Feeding::Prefill(width(7)), 159, json!({"prefill": 7})),
    ] {
        stepper.set_feeding(feeding).unwrap();
        let fed = Counting::default();
        let report = gate::run(&mut stepper, &oracle_of(6), Some(&mut reference), false, &fed).unwrap();
        assert_eq!(report.causes, [], "{feeding:?}");
        assert_eq!((report.qualified, report.agreed), (qualified, qualified), "{feeding:?}");
        assert!(report.passed, "{feeding:?}: {:?}", report.failures);
        assert_eq!(serde_json::to_value(&report).unwrap()["feeding"], json, "{feeding:?}");
        assert_eq!(fed.done(), 195, "{feeding:?}");
        let distances = report.distances.unwrap();
        assert!(distances.min_cosine >= 0.999 && distances.mean_cosine >= 0.9999, "{distances:?}");
    }
}

#[test]
fn two_ways_of_feeding_are_compared() {
    let (mut one, mut other) =
        (prefill_stepper(PrefillReference::F16), prefill_stepper(PrefillReference::F16));
    other.set_feeding(Feeding::Prefill(width(5))).unwrap();
    let report = gate::compare_feedings(&mut one, &mut other, &oracle_of(2), &Silent).unwrap();
    assert!(report.passed, "{report:?}");
    // The continuations of 24 tokens, and four beginnings of each prompt.
    assert_eq!((report.positions, report.min_cosine), (2 * (24 + 4), 1.0));
    assert!(report.caches.iter().all(|cache| cache.min_cosine == 1.0 && cache.largest_difference == 0.0));
}
