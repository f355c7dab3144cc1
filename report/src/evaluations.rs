//! How far bundles are from their checkpoint on a text.

use serde::Serialize;

use crate::digits;
use crate::facts::{CurvePart, Evaluation, Report};
use crate::merged::merged;
use crate::words::{counted, list};

/// An evaluation in words, and all bundles with the same figures.
#[derive(Debug, Serialize)]
pub(crate) struct EvaluationView<'r> {
    bundles: String,
    text: &'r str,
    positions: String,
    window: String,
    mean_kl: String,
    max_kl: String,
    agreement: String,
    interval: String,
    sure: String,
    perplexity: String,
    reference_perplexity: String,
    curve: Vec<[String; 4]>,
}

/// Figures that are equal are shown once.
pub(crate) fn evaluations(report: &Report) -> Vec<EvaluationView<'_>> {
    merged(&report.evaluations).into_iter().map(|(bundles, found)| view(&bundles, found)).collect()
}

fn view<'r>(bundles: &[&str], evaluation: &'r Evaluation) -> EvaluationView<'r> {
    let Evaluation { agreement, sure, .. } = evaluation;
    let part = |part: &CurvePart| {
        [
            format!("{} to {}", digits::grouped(part.first), digits::grouped(part.last)),
            digits::grouped(part.positions),
            digits::nats(part.mean_kl),
            format!("{:.2} %", 100.0 * part.agreement),
        ]
    };
    EvaluationView {
        bundles: list(bundles),
        text: &evaluation.text,
        positions: counted(evaluation.positions, "token"),
        window: digits::grouped(evaluation.window),
        mean_kl: digits::nats(evaluation.mean_kl),
        max_kl: digits::nats(evaluation.max_kl),
        agreement: digits::percent(agreement.agreed, agreement.of),
        interval: format!("{:.2} to {:.2} %", 100.0 * agreement.low, 100.0 * agreement.high),
        sure: format!("{} of {}", digits::grouped(sure.agreed), digits::grouped(sure.of)),
        perplexity: digits::perplexity(evaluation.perplexity),
        reference_perplexity: digits::perplexity(evaluation.reference_perplexity),
        curve: evaluation.curve.iter().map(part).collect(),
    }
}
