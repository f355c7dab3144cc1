//! Counts and sums over the positions of a sequence.

use super::{CaseReport, Distances, Flip, PositionReport};
use crate::file::Case;
use crate::score::{QUALIFYING_MARGIN, cosine, kl_divergence, norm, winner};

/// The statistics of a sequence while it is compared.
pub(super) struct Tally<'c> {
    case: &'c Case,
    report: CaseReport,
    /// Positions that are in the sums.
    counted: usize,
    norm_differences: f64,
    distances: Sums,
}

impl<'c> Tally<'c> {
    /// Positions before `repeated` were counted with an earlier sequence.
    pub(super) fn new(case: &'c Case, repeated: usize) -> Self {
        let report = CaseReport {
            prompt: case.prompt.clone(),
            positions: case.len(),
            repeated,
            qualified: 0,
            flips: Vec::new(),
            ties: 0,
            ties_differing: 0,
            tie_flips: Vec::new(),
            not_finite: 0,
            first_divergence: None,
            worst_margin_error: 0.0,
            norm_difference: 0.0,
            distances: None,
            track: Vec::new(),
        };
        Tally { case, report, counted: 0, norm_differences: 0.0, distances: Sums::default() }
    }

    /// The sequence.
    pub(super) fn case(&self) -> &'c Case {
        self.case
    }

    /// Whether any of its positions was not counted with an earlier sequence.
    pub(super) fn adds_positions(&self) -> bool {
        self.report.repeated < self.case.len()
    }

    /// Adds the bundle's logits at a position, and the reference's if there are any.
    pub(super) fn add(&mut self, position: usize, found: &[f32], expected: Option<&[f32]>) {
        let best = winner(found);
        // `Oracle::read` checks that each token has a winner and a margin.
        let wanted = self.case.teacher_forced_argmax.get(position).copied().unwrap_or(best.id);
        let margin = self.case.teacher_forced_margins.get(position).copied().unwrap_or_default();
        let finite = found.iter().all(|logit| logit.is_finite());
        let agrees = finite && best.id == wanted;
        let cosine = expected.map(|expected| cosine(found, expected));
        let qualified = self.case.qualifies(position);
        let found_margin = if best.margin.is_finite() { best.margin } else { 0.0 };
        self.report.track.push(PositionReport {
            expected_margin: margin,
            margin: found_margin,
            cosine,
            qualified,
            agrees,
        });
        if position < self.report.repeated {
            return;
        }
        if !agrees && self.report.first_divergence.is_none() {
            self.report.first_divergence = Some(position);
        }
        let of_wanted = found.get(wanted as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let lead = found.get(best.id as usize).map_or(f32::INFINITY, |best| best - of_wanted);
        let flip = Flip { position, expected: wanted, found: best.id, margin, lead };
        if qualified {
            self.report.qualified += 1;
            self.report.worst_margin_error =
                self.report.worst_margin_error.max((found_margin - margin).abs());
            self.report.flips.extend((!agrees).then_some(flip));
        } else {
            self.report.ties += 1;
            self.report.ties_differing += usize::from(!agrees);
            // Between the two tokens, the difference of the bundle's logits is off by at least margin plus lead.
            let clear = !agrees && margin + lead >= QUALIFYING_MARGIN;
            self.report.tie_flips.extend(clear.then_some(flip));
        }
        if finite {
            self.measure(position, found, expected.zip(cosine));
        } else {
            self.report.not_finite += 1;
        }
    }

    /// Adds the differences of finite logits to the sums.
    fn measure(&mut self, position: usize, found: &[f32], expected: Option<(&[f32], f64)>) {
        self.counted += 1;
        if let Some(expected_norm) = self.case.logit_norms.get(position).copied().map(f64::from) {
            self.norm_differences += (norm(found) / expected_norm - 1.0).abs();
        }
        if let Some((expected, cosine)) = expected {
            self.distances.add(cosine, kl_divergence(expected, found));
        }
    }

    /// The sequence's report, and the sums of its distances.
    pub(super) fn finish(mut self) -> (CaseReport, Sums) {
        self.report.norm_difference = self.norm_differences / self.counted.max(1) as f64;
        self.report.distances = self.distances.distances();
        (self.report, self.distances)
    }
}

/// Sums of the distances of positions.
#[derive(Clone, Copy)]
pub(super) struct Sums {
    positions: usize,
    min_cosine: f64,
    cosines: f64,
    max_kl: f64,
    divergences: f64,
}

impl Default for Sums {
    fn default() -> Self {
        Sums { positions: 0, min_cosine: f64::INFINITY, cosines: 0.0, max_kl: 0.0, divergences: 0.0 }
    }
}

impl Sums {
    fn add(&mut self, cosine: f64, divergence: f64) {
        self.positions += 1;
        self.min_cosine = self.min_cosine.min(cosine);
        self.cosines += cosine;
        self.max_kl = self.max_kl.max(divergence);
        self.divergences += divergence;
    }

    /// The sums over both sets of positions.
    pub(super) fn joined(self, other: Sums) -> Sums {
        Sums {
            positions: self.positions + other.positions,
            min_cosine: self.min_cosine.min(other.min_cosine),
            cosines: self.cosines + other.cosines,
            max_kl: self.max_kl.max(other.max_kl),
            divergences: self.divergences + other.divergences,
        }
    }

    /// The means; `None` without positions.
    pub(super) fn distances(&self) -> Option<Distances> {
        let positions = self.positions as f64;
        (self.positions > 0).then(|| Distances {
            min_cosine: self.min_cosine,
            mean_cosine: self.cosines / positions,
            max_kl: self.max_kl,
            mean_kl: self.divergences / positions,
        })
    }
}
