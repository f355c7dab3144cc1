//! Gates as a page shows them, from the record that manifests keep.

use ::oracle::gate::{CaseReport, GateReport, PositionReport};
use ::oracle::text::Text;
use packer::verdict::Verdict;
use report::{Distances, Exactness, Flip, Gate, Position, Sequence, Token};
use serde_json::Value;

use crate::gate;

/// The gate of a bundle that was just measured, with all positions.
pub(super) fn of_report(bundle: &str, report: &GateReport) -> Option<Gate> {
    let record = serde_json::to_value(report).ok()?;
    Some(Gate {
        verdict: gate::verdict(report),
        sequences: report.cases.iter().map(sequence).collect(),
        ..of_record(bundle, &record)?
    })
}

fn sequence(case: &CaseReport) -> Sequence {
    let position = |found: &PositionReport| Position {
        expected_margin: found.expected_margin,
        margin: found.margin,
        cosine: found.cosine,
        qualified: found.qualified,
        agrees: found.agrees,
    };
    Sequence { prompt: case.prompt.clone(), positions: case.track.iter().map(position).collect() }
}

/// The gate that a manifest records. It does not keep positions.
pub(crate) fn of_record(bundle: &str, gate: &Value) -> Option<Gate> {
    let verdict = Verdict::of(gate)?;
    let reasons = ["failures", "causes"].into_iter().zip(["failed", "cause"]);
    Some(Gate {
        bundle: bundle.to_owned(),
        passed: verdict.passed,
        verdict: format!("gate {verdict}"),
        reference: gate["reference"].as_str().unwrap_or("not named").to_owned(),
        qualified: verdict.qualified,
        agreed: verdict.agreed,
        distances: distances(&gate["distances"]),
        causes: reasons.flat_map(|(key, word)| texts(&gate[key], word)).collect(),
        flips: list(&gate["cases"]).flat_map(flips).collect(),
        exactness: list(&gate["exactness"]).filter_map(exactness).collect(),
        sequences: Vec::new(),
    })
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn texts<'v>(value: &'v Value, word: &'static str) -> impl Iterator<Item = String> + 'v {
    list(value).filter_map(Value::as_str).map(move |reason| format!("{word}: {reason}"))
}

fn distances(found: &Value) -> Option<Distances> {
    Some(Distances { mean_kl: found["mean_kl"].as_f64()?, max_kl: found["max_kl"].as_f64()? })
}

/// The weights of a part that were counted.
fn exactness(found: &Value) -> Option<Exactness> {
    let (weights, weights_exact) = (found["weights"].as_u64()?, found["weights_exact"].as_u64()?);
    Some(Exactness { part: found["part"].as_str()?.to_owned(), weights, weights_exact })
}

/// Other tokens of a sequence: those that count, then those of near-ties.
fn flips(case: &Value) -> impl Iterator<Item = Flip> + '_ {
    let of = |key: &str, qualified| list(&case[key]).filter_map(move |found| flip(case, found, qualified));
    of("flips", true).chain(of("tie_flips", false))
}

fn flip(case: &Value, found: &Value, qualified: bool) -> Option<Flip> {
    let token = |key: &str| {
        let id = u32::try_from(found[key].as_u64()?).ok()?;
        Some(Token { id, text: None })
    };
    // Numbers that are not finite are null.
    let logits = |key: &str| found[key].as_f64().map(|value| value as f32);
    Some(Flip {
        prompt: case["prompt"].as_str()?.to_owned(),
        position: found["position"].as_u64()?,
        expected: token("expected")?,
        found: token("found")?,
        margin: logits("margin"),
        lead: logits("lead"),
        qualified,
    })
}

/// Adds the texts of tokens, if there are any to name; a tokenizer that cannot be read leaves their numbers.
pub(crate) fn name_tokens(gates: &mut [Gate], text: impl FnOnce() -> Option<Text>) {
    if gates.iter().all(|gate| gate.flips.is_empty()) {
        return;
    }
    let Some(text) = text() else { return };
    for flip in gates.iter_mut().flat_map(|gate| &mut gate.flips) {
        flip.expected.text = text.token(flip.expected.id);
        flip.found.text = text.token(flip.found.id);
    }
}
