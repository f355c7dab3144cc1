//! Sequences in lockstep have the bits of sequences that are fed alone.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use crate::support::{Case, cases, package, prefill_stepper, stepper};
use fixtures::data::PrefillReference;
use interpreter::{InterpretError, Rounding};
use oracle::lockstep::Lockstep;
use oracle::stepper::{StepError, Stepper};
use progress::{Progress, Silent};

/// Tokens of each sequence: longer than the window of the tiny checkpoint.
const LONGEST: usize = 24;

/// Sequences of several lengths, the longest one first.
fn sequences(count: usize) -> Vec<Vec<u32>> {
    let mut sequences: Vec<Vec<u32>> = cases("oracle.json").iter().map(Case::ids).take(count).collect();
    for (at, sequence) in sequences.iter_mut().enumerate() {
        sequence.truncate(LONGEST - 3 * at);
    }
    sequences.sort_by_key(|sequence| std::cmp::Reverse(sequence.len()));
    sequences
}

fn bits(logits: Vec<f32>) -> Vec<u32> {
    logits.into_iter().map(f32::to_bits).collect()
}

fn assert_same_as_alone(open: impl Fn() -> Stepper, count: usize) {
    let sequences = sequences(count);
    assert_eq!(sequences.len(), count);
    let mut together = Lockstep::new(open(), NonZeroUsize::new(count).unwrap()).unwrap();
    let mut alone = open();
    for round in 0..2 {
        together.reset().unwrap();
        let mut found = vec![Vec::new(); count];
        for at in 0..LONGEST {
            let tokens: Vec<u32> = sequences.iter().map_while(|tokens| tokens.get(at).copied()).collect();
            let logits = together.feed(&tokens, &Silent).unwrap();
            assert_eq!(logits.len(), tokens.len());
            found.iter_mut().zip(logits).for_each(|(found, logits)| found.push(bits(logits)));
        }
        for (sequence, found) in sequences.iter().zip(&found) {
            alone.reset().unwrap();
            let expected: Vec<Vec<u32>> =
                sequence.iter().map(|token| bits(alone.feed(*token).unwrap())).collect();
            assert!(*found == expected, "round {round}, a sequence of {}", sequence.len());
        }
    }
}

#[test]
fn int4_and_int8_have_the_same_bits_in_lockstep() {
    for name in ["provider.int4-symmetric", "provider.int8-symmetric", "tbl.int4-symmetric"] {
        assert_same_as_alone(|| stepper(&package(name)), 5);
    }
}

#[test]
fn f16_has_the_same_bits_in_lockstep() {
    assert_same_as_alone(|| stepper(&package("provider.f16")), 3);
    assert_same_as_alone(|| prefill_stepper(PrefillReference::F16), 2);
}

#[test]
fn a_single_sequence_is_a_lockstep_too() {
    assert_same_as_alone(|| stepper(&package("provider.int4-symmetric")), 1);
}

#[test]
fn apples_rounding_has_the_same_bits_in_lockstep() {
    let open = || {
        let mut stepper = stepper(&package("provider.int4-symmetric"));
        stepper.set_rounding(Rounding::EachStep);
        stepper
    };
    assert_same_as_alone(open, 2);
}

#[test]
#[should_panic(expected = "more tokens than sequences")]
fn more_tokens_than_sequences_are_refused() {
    let mut sequences = Lockstep::new(stepper(&package("provider.f16")), NonZeroUsize::MIN).unwrap();
    let _ = sequences.feed(&[1, 2], &Silent);
}

/// Cancelled when it is asked for this many times more.
struct Patience(AtomicUsize);

impl Progress for Patience {
    fn cancelled(&self) -> bool {
        self.0.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_err()
    }
}

#[test]
fn a_step_stops_between_its_products() {
    let mut sequences =
        Lockstep::new(stepper(&package("provider.f16")), NonZeroUsize::new(2).unwrap()).unwrap();
    for products in [0, 3] {
        let stopped = sequences.feed(&[5, 6], &Patience(AtomicUsize::new(products)));
        assert!(matches!(stopped, Err(StepError::Interpret(InterpretError::Stopped))), "{products}");
        sequences.reset().unwrap();
    }
    let expected = stepper(&package("provider.f16")).feed(5).unwrap();
    assert_eq!(bits(sequences.feed(&[5, 6], &Silent).unwrap().swap_remove(0)), bits(expected));
}
