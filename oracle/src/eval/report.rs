//! What the results of all positions say.

use serde::Serialize;

use super::bundle::Found;
use super::logits::{Comparison, LogitsError, LogitsFile};
use super::share::Share;
use crate::file::CheckpointIdentity;
use crate::score::QUALIFYING_MARGIN;

/// Positions of the first part of a curve; each part after it is as long as all before.
const FIRST_PART: usize = 16;

/// The checkpoint on a text.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct ReferenceFigures {
    /// The checkpoint.
    pub checkpoint: CheckpointIdentity,
    /// Digest of the text's tokens.
    pub tokens_sha256: output::Digest,
    /// Positions that were scored.
    pub positions: usize,
    /// Tokens of a window.
    pub window: usize,
    /// From window to window.
    pub stride: usize,
    /// Mean negative log-likelihood of the next token, in nats.
    pub mean_nll: f64,
    /// `exp` of it.
    pub perplexity: f64,
    /// Positions where the checkpoint's winner leads by the qualifying margin or more.
    pub sure: usize,
}

/// A bundle on the same text.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct BundleFigures {
    /// Mean negative log-likelihood of the next token, in nats.
    pub mean_nll: f64,
    /// `exp` of it.
    pub perplexity: f64,
    /// Mean of KL(checkpoint || bundle), in nats.
    pub mean_kl: f64,
    /// Largest of a position.
    pub max_kl: f64,
    /// That position in the text.
    pub max_kl_position: usize,
    /// Positions where both have the same winner.
    pub agreement: Share,
    /// The same where the checkpoint is sure.
    pub sure: Share,
    /// Positions where the bundle's logits are infinite or NaN. They agree with nothing and are in no mean.
    pub not_finite: usize,
    /// The same by the position in the window.
    pub curve: Vec<CurvePart>,
}

/// Positions by the number of tokens before them in their window.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CurvePart {
    /// The first.
    pub first: usize,
    /// The last.
    pub last: usize,
    /// Scored positions there.
    pub positions: usize,
    /// Mean divergence.
    pub mean_kl: f64,
    /// Share of positions with the same winner.
    pub agreement: f64,
}

/// Sums over positions.
#[derive(Clone, Copy, Default)]
struct Sums {
    positions: usize,
    finite: usize,
    agreed: usize,
    nll: f64,
    kl: f64,
}

impl Sums {
    fn add(&mut self, found: &Found) {
        self.positions += 1;
        if let Some(Comparison { nll, kl, agrees }) = found {
            self.finite += 1;
            self.agreed += usize::from(*agrees);
            self.nll += nll;
            self.kl += kl;
        }
    }

    fn mean(&self, sum: f64) -> f64 {
        sum / self.finite.max(1) as f64
    }
}

/// What a logits file says about the checkpoint.
///
/// # Errors
/// If it cannot be read.
pub fn of_reference(logits: &LogitsFile) -> Result<ReferenceFigures, LogitsError> {
    let subject = logits.subject();
    let positions = subject.windows.positions();
    let (mut sum, mut sure) = (0.0, 0);
    for position in 0..positions {
        let (margin, nll) = logits.numbers(position)?;
        sum += nll;
        sure += usize::from(margin >= QUALIFYING_MARGIN);
    }
    let mean_nll = sum / positions as f64;
    let shape = subject.windows.shape();
    Ok(ReferenceFigures {
        checkpoint: subject.checkpoint.clone(),
        tokens_sha256: subject.windows.digest(),
        positions,
        window: shape.window,
        stride: shape.stride,
        mean_nll,
        perplexity: mean_nll.exp(),
        sure,
    })
}

/// What a bundle's results say: one for each position of the text, in order.
///
/// # Errors
/// If the checkpoint's margins cannot be read.
pub fn of_bundle(logits: &LogitsFile, results: &[Found]) -> Result<BundleFigures, LogitsError> {
    let (mut all, mut sure) = (Sums::default(), Sums::default());
    let mut parts: Vec<Sums> = Vec::new();
    let (mut max_kl, mut max_kl_position) = (0.0, 0);
    for window in logits.subject().windows.iter() {
        let end = window.first + window.targets.len();
        for (position, before) in (window.first..end).zip(window.context..) {
            let found = results.get(position).copied().flatten();
            all.add(&found);
            let (margin, _) = logits.numbers(position)?;
            if margin >= QUALIFYING_MARGIN {
                sure.add(&found);
            }
            let part = part_of(before);
            parts.resize(parts.len().max(part + 1), Sums::default());
            parts[part].add(&found);
            if let Some(found) = found.filter(|found| found.kl > max_kl) {
                (max_kl, max_kl_position) = (found.kl, position);
            }
        }
    }
    let mean_nll = all.mean(all.nll);
    Ok(BundleFigures {
        mean_nll,
        perplexity: mean_nll.exp(),
        mean_kl: all.mean(all.kl),
        max_kl,
        max_kl_position,
        agreement: Share::new(all.agreed, all.positions),
        sure: Share::new(sure.agreed, sure.positions),
        not_finite: all.positions - all.finite,
        curve: parts.iter().enumerate().filter(|(_, sums)| sums.positions > 0).map(curve_part).collect(),
    })
}

/// Part of the curve of a position with this many tokens before it.
fn part_of(before: usize) -> usize {
    (before / FIRST_PART).checked_ilog2().map_or(0, |power| power as usize + 1)
}

fn curve_part((part, sums): (usize, &Sums)) -> CurvePart {
    let first = if part == 0 { 0 } else { FIRST_PART << (part - 1) };
    CurvePart {
        first,
        last: (FIRST_PART << part) - 1,
        positions: sums.positions,
        mean_kl: sums.mean(sums.kl),
        agreement: sums.agreed as f64 / sums.positions as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_curve_double() {
        for (before, part) in [(0, 0), (15, 0), (16, 1), (31, 1), (32, 2), (63, 2), (64, 3), (511, 5)] {
            assert_eq!(part_of(before), part, "{before}");
            let CurvePart { first, last, .. } = curve_part((part, &Sums { positions: 1, ..Sums::default() }));
            assert!((first..=last).contains(&before), "{before} is not in {first} to {last}");
        }
    }
}
