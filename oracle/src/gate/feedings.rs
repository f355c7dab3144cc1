//! Compares two ways of feeding one bundle, position by position.

use interpreter::InterpretError;
use progress::Progress;
use serde::Serialize;

use super::sequence::Sequence;
use super::{Flip, GateError, step};
use crate::file::{Case, Oracle};
use crate::score::{cosine, winner};
use crate::stepper::{StepError, Stepper};

/// Least cosine of logits between two ways of feeding: they only differ by the rounding of the same sums in another order.
const MIN_LOGITS_COSINE: f64 = 0.99999;
/// Least cosine of the keys or values that a layer keeps for one position.
const MIN_CACHE_COSINE: f64 = 0.999;

/// One state, compared between two ways of feeding after each sequence.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CacheComparison {
    /// Name of the state.
    pub state: String,
    /// Least cosine of the keys or values that one layer keeps for one position in one head.
    pub min_cosine: f64,
    /// Largest difference of two elements.
    pub largest_difference: f32,
}

/// How much two ways of feeding differ.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct FeedingReport {
    /// Whether they agree.
    pub passed: bool,
    /// Positions that have logits in both.
    pub positions: usize,
    /// Least cosine of the logits at these positions; 1 if there are none.
    pub min_cosine: f64,
    /// Positions where the oracle has a clear winner and the two ways choose different ones: `expected` is the first way's.
    pub flips: Vec<Flip>,
    /// Each state, up to the last position.
    pub caches: Vec<CacheComparison>,
}

/// Feeds an oracle's sequences to one bundle in two ways, each as configured in its stepper. Compares the logits at positions
/// where both have them, and the states after each sequence. Progress is advanced by one for every position.
///
/// # Errors
/// If the bundle cannot be run, or `progress` is cancelled.
pub fn compare_feedings(
    one: &mut Stepper,
    other: &mut Stepper,
    oracle: &Oracle,
    progress: &dyn Progress,
) -> Result<FeedingReport, GateError> {
    let named =
        |name: &str| CacheComparison { state: name.to_owned(), min_cosine: 1.0, largest_difference: 0.0 };
    let caches = one.session().states().map(|port| named(&port.name)).collect();
    let mut report =
        FeedingReport { passed: false, positions: 0, min_cosine: 1.0, flips: Vec::new(), caches };
    for case in &oracle.cases {
        compare_case(one, other, case, &mut report, progress)?;
        for (at, cache) in report.caches.iter_mut().enumerate() {
            compare_state(one, other, at, cache)?;
        }
    }
    report.passed = report.flips.is_empty()
        && report.min_cosine >= MIN_LOGITS_COSINE
        && report.caches.iter().all(|cache| cache.min_cosine >= MIN_CACHE_COSINE);
    Ok(report)
}

fn compare_case(
    one: &mut Stepper,
    other: &mut Stepper,
    case: &Case,
    report: &mut FeedingReport,
    progress: &dyn Progress,
) -> Result<(), GateError> {
    let (mut one, mut other) = (Sequence::begin(one, case)?, Sequence::begin(other, case)?);
    for position in 0..case.len() {
        if let (Some(expected), Some(found)) = (one.next()?, other.next()?) {
            report.positions += 1;
            report.min_cosine = report.min_cosine.min(likeness(&expected, &found));
            let (wanted, best) = (winner(&expected), winner(&found));
            if case.qualifies(position) && wanted.id != best.id {
                let of = |token: u32| found.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
                let lead = of(best.id) - of(wanted.id);
                let flip =
                    Flip { position, expected: wanted.id, found: best.id, margin: wanted.margin, lead };
                report.flips.push(flip);
            }
        }
        step(progress)?;
    }
    Ok(())
}

fn compare_state(
    one: &Stepper,
    other: &Stepper,
    at: usize,
    cache: &mut CacheComparison,
) -> Result<(), StepError> {
    let contents = |stepper: &Stepper| {
        let tensor = stepper.session().state(at, stepper.positions())?;
        let width = tensor.shape().last().copied().unwrap_or(1).max(1);
        let values = tensor.to_floats().map_err(InterpretError::Graph)?;
        Ok::<_, StepError>((values, width))
    };
    let ((expected, width), (found, _)) = (contents(one)?, contents(other)?);
    for (expected, found) in expected.chunks_exact(width).zip(found.chunks_exact(width)) {
        let differences = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
        cache.largest_difference = differences.fold(cache.largest_difference, f32::max);
        cache.min_cosine = cache.min_cosine.min(likeness(expected, found));
    }
    Ok(())
}

/// Cosine of two vectors; 1 if they are equal, because the cosine of zeros is undefined.
fn likeness(expected: &[f32], found: &[f32]) -> f64 {
    if expected == found { 1.0 } else { cosine(expected, found) }
}
