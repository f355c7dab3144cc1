//! What gates found: verdicts, exact weights, other tokens, curves.

use serde::Serialize;
use text::{bounds, terminal};

use crate::digits;
use crate::facts::{Exactness, Flip, Gate, Report, Token};
use crate::merged::merged;
use crate::plot::{self, Plot};
use crate::words::list;

/// Rows of the list of other tokens.
const LISTED: usize = 12;
/// Characters of a prompt.
const LONGEST_PROMPT: usize = 60;

/// A gate, and all bundles with the same result.
#[derive(Debug, Serialize)]
pub(crate) struct GateView<'r> {
    bundles: String,
    gate: &'r Gate,
    mean_kl: String,
    max_kl: String,
    exactness: Vec<ExactnessRow<'r>>,
    flips: Vec<FlipRow>,
    more_flips: usize,
    cosine: Option<Plot>,
    margin: Option<Plot>,
}

#[derive(Debug, Serialize)]
struct ExactnessRow<'r> {
    part: &'r str,
    weights: String,
    share: String,
}

#[derive(Debug, Serialize)]
struct FlipRow {
    prompt: String,
    position: String,
    expected: String,
    found: String,
    margin: String,
    lead: String,
    is_tie: bool,
}

/// Results that are equal are shown once.
pub(crate) fn gates(report: &Report) -> Vec<GateView<'_>> {
    merged(&report.gates).into_iter().map(|(bundles, gate)| view(&bundles, gate)).collect()
}

fn view<'r>(bundles: &[&str], gate: &'r Gate) -> GateView<'r> {
    GateView {
        bundles: list(bundles),
        gate,
        mean_kl: gate.distances.map(|found| digits::nats(found.mean_kl)).unwrap_or_default(),
        max_kl: gate.distances.map(|found| digits::nats(found.max_kl)).unwrap_or_default(),
        exactness: exactness(gate),
        flips: flips(gate),
        more_flips: gate.flips.len().saturating_sub(LISTED),
        cosine: plot::cosine(gate),
        margin: plot::margin(gate),
    }
}

/// A token by its text, if that is known, and its number.
pub(crate) fn token(token: &Token) -> String {
    match &token.text {
        Some(text) => format!("\u{201c}{}\u{201d} ({})", terminal::word(text), token.id),
        None => format!("token {}", token.id),
    }
}

/// The surest ones first.
fn flips(gate: &Gate) -> Vec<FlipRow> {
    let mut found: Vec<&Flip> = gate.flips.iter().collect();
    let sureness = |flip: &Flip| (flip.qualified, flip.margin.unwrap_or(f32::NEG_INFINITY));
    found.sort_by(|a, b| {
        let ((a_counts, a_margin), (b_counts, b_margin)) = (sureness(a), sureness(b));
        b_counts.cmp(&a_counts).then(b_margin.total_cmp(&a_margin))
    });
    found.into_iter().take(LISTED).map(flip).collect()
}

fn flip(flip: &Flip) -> FlipRow {
    let logits = |value: Option<f32>| value.map_or("not finite".to_owned(), |value| format!("{value:.2}"));
    let prompt = bounds::shortened(&flip.prompt, LONGEST_PROMPT);
    FlipRow {
        prompt: terminal::line(&prompt).into_owned(),
        position: digits::grouped(flip.position),
        expected: token(&flip.expected),
        found: token(&flip.found),
        margin: logits(flip.margin),
        lead: logits(flip.lead),
        is_tie: !flip.qualified,
    }
}

/// All parts together: weights, and those that are exact.
pub(crate) fn total<'e>(parts: impl Iterator<Item = &'e Exactness> + Clone) -> (u64, u64) {
    let sum = |count: fn(&Exactness) -> u64| parts.clone().map(count).fold(0, u64::saturating_add);
    (sum(|found| found.weights), sum(|found| found.weights_exact))
}

/// Part by part, and all of them together.
fn exactness(gate: &Gate) -> Vec<ExactnessRow<'_>> {
    let row = |part, (weights, exact)| ExactnessRow {
        part,
        weights: digits::grouped(weights),
        share: digits::exact(exact, weights),
    };
    let mut rows: Vec<_> =
        gate.exactness.iter().map(|found| row(&found.part, (found.weights, found.weights_exact))).collect();
    if !rows.is_empty() {
        rows.push(row("together", total(gate.exactness.iter())));
    }
    rows
}
