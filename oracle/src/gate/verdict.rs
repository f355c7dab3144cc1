//! The bounds that a bundle must meet to pass, and those that it does not meet.

use std::fmt;

use aimodel::{Element, Opcode};
use serde::{Serialize, Serializer};

use super::GateReport;
use super::structure::Graph;
use crate::score::QUALIFYING_MARGIN;

/// Near-ties with another winner that pass even if there are few near-ties: rounding decides some by chance.
const FEW_TIES: usize = 3;

/// What a bundle must meet, besides choosing the oracle's token at every qualified position.
///
/// The distances were measured on the tiny checkpoint with the default prompts and the stored oracles; `docs/oracle.md` has the
/// results. Each bound leaves room for deeper models, whose rounding adds up over more layers, and fails int4 off the lattice.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Bounds {
    /// Fewest qualified positions, each context counted once. A bundle that is wrong at 1 position in 20, as int4 off the lattice
    /// is, gets through 64 of them 4 times in 100.
    pub min_positions: usize,
    /// Least cosine of the logits at any position.
    pub min_cosine: f64,
    /// Least mean cosine of the logits.
    pub min_mean_cosine: f64,
    /// Largest mean Kullback-Leibler divergence, in nats.
    pub max_mean_kl: f64,
    /// Largest mean relative difference of the norms in a sequence. A missing soft cap changes the norms, but no winner.
    pub max_norm_difference: f64,
}

impl Bounds {
    /// Half precision, and int4 with the checkpoint's own codes and scales: only the rounding of activations differs.
    /// Measured: mean KL up to 2e-5, cosine at least 0.9998. int4 off the lattice: mean KL 1e-2, cosine down to 0.81.
    pub const LOSSLESS: Bounds = Bounds {
        min_positions: 64,
        min_cosine: 0.995,
        min_mean_cosine: 0.9995,
        max_mean_kl: 1e-3,
        max_norm_difference: 0.03,
    };

    /// int8 rounds weights by 0.5 %. Measured: mean KL up to 1e-4, cosine at least 0.9993.
    pub const EIGHT_BITS: Bounds =
        Bounds { min_cosine: 0.99, min_mean_cosine: 0.999, max_mean_kl: 4e-3, ..Bounds::LOSSLESS };

    /// Bounds for a graph, by the formats of its weights. int4 has no separate bounds: on the lattice it loses nothing, and off
    /// the lattice it does not predict what the checkpoint predicts.
    pub(super) fn of(graph: &Graph<'_>) -> Bounds {
        let eight_bits = graph.ops(Opcode::BlockwiseShiftScale).any(|op| {
            let codes = op.operands.first().and_then(|codes| graph.module().tensor(*codes));
            codes.is_some_and(|codes| codes.element == Element::Si8)
        });
        if eight_bits { Bounds::EIGHT_BITS } else { Bounds::LOSSLESS }
    }
}

/// A bound that a bundle does not meet.
#[derive(Clone, PartialEq, Debug)]
pub enum Failure {
    /// Too few positions were compared.
    Positions {
        /// Qualified positions, each context counted once.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The bundle chooses other tokens than the checkpoint.
    Flips {
        /// Qualified positions with another winner.
        flips: usize,
        /// Qualified positions.
        of: usize,
    },
    /// The checkpoint has no clear winner, but the bundle clearly prefers another token.
    TieFlips {
        /// Near-ties where the bundle clearly prefers another token.
        flips: usize,
        /// Near-ties.
        of: usize,
    },
    /// More near-ties have another winner than chance explains.
    Ties {
        /// Near-ties with another winner.
        differing: usize,
        /// Near-ties.
        of: usize,
    },
    /// Logits are infinite or NaN.
    NotFinite {
        /// Positions with such logits.
        positions: usize,
    },
    /// The norms of the logits differ.
    Norms {
        /// Mean relative difference in the worst sequence.
        found: f64,
        /// The largest that passes.
        limit: f64,
    },
    /// The logits of some position have another direction.
    MinCosine {
        /// The least cosine.
        found: f64,
        /// The least that passes.
        limit: f64,
    },
    /// The logits have another direction on average.
    MeanCosine {
        /// The mean cosine.
        found: f64,
        /// The least that passes.
        limit: f64,
    },
    /// The probabilities differ.
    MeanKl {
        /// The mean divergence, in nats.
        found: f64,
        /// The largest that passes.
        limit: f64,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Positions { found, needed } => write!(
                f,
                "{found} distinct qualified position{}, at least {needed} are needed: give more or longer prompts to \
                 `coreai-bundle oracle`",
                if *found == 1 { "" } else { "s" }
            ),
            Failure::Flips { flips, of } => {
                write!(f, "the bundle chooses another token at {flips} of {of} qualified positions")
            }
            Failure::TieFlips { flips, of } => write!(
                f,
                "at {flips} of {of} positions below the margin the bundle prefers another token by more than \
                 {QUALIFYING_MARGIN} logits, which is more than rounding explains"
            ),
            Failure::Ties { differing, of } => write!(
                f,
                "the bundle chooses another token at {differing} of {of} positions below the margin, which is more than \
                 rounding explains"
            ),
            Failure::NotFinite { positions } => {
                write!(
                    f,
                    "the bundle's logits are infinite or NaN at {}",
                    text::counted(*positions, "position")
                )
            }
            Failure::Norms { found, limit } => write!(
                f,
                "the norms of the logits differ by {:.2} % in one sequence, more than {:.2} %",
                100.0 * found,
                100.0 * limit
            ),
            Failure::MinCosine { found, limit } => {
                write!(f, "the minimum cosine of the logits is {found:.6}, below {limit}")
            }
            Failure::MeanCosine { found, limit } => {
                write!(f, "the mean cosine of the logits is {found:.6}, below {limit}")
            }
            Failure::MeanKl { found, limit } => {
                write!(f, "the mean KL divergence of the logits is {found:.2e}, above {limit:.2e}")
            }
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The bounds that a report's results do not meet.
pub(super) fn failures(report: &GateReport, bounds: &Bounds) -> Vec<Failure> {
    let sum = |count: fn(&super::CaseReport) -> usize| report.cases.iter().map(count).sum::<usize>();
    let mut failures = Vec::new();
    if report.qualified < bounds.min_positions {
        failures.push(Failure::Positions { found: report.qualified, needed: bounds.min_positions });
    }
    if report.agreed < report.qualified {
        failures.push(Failure::Flips { flips: report.qualified - report.agreed, of: report.qualified });
    }
    let (ties, differing) = (sum(|case| case.ties), sum(|case| case.ties_differing));
    let tie_flips = sum(|case| case.tie_flips.len());
    if tie_flips > 0 {
        failures.push(Failure::TieFlips { flips: tie_flips, of: ties });
    } else if differing > FEW_TIES.max(ties / 2) {
        // Rounding explains another winner at half of the near-ties at most.
        failures.push(Failure::Ties { differing, of: ties });
    }
    let positions = sum(|case| case.not_finite);
    if positions > 0 {
        failures.push(Failure::NotFinite { positions });
    }
    let found = report.norm_difference();
    if found > bounds.max_norm_difference {
        failures.push(Failure::Norms { found, limit: bounds.max_norm_difference });
    }
    failures.extend(report.distances.iter().flat_map(|distances| {
        let (min, mean, kl) = (distances.min_cosine, distances.mean_cosine, distances.mean_kl);
        [
            (min < bounds.min_cosine).then_some(Failure::MinCosine { found: min, limit: bounds.min_cosine }),
            (mean < bounds.min_mean_cosine)
                .then_some(Failure::MeanCosine { found: mean, limit: bounds.min_mean_cosine }),
            (kl > bounds.max_mean_kl).then_some(Failure::MeanKl { found: kl, limit: bounds.max_mean_kl }),
        ]
        .into_iter()
        .flatten()
    }));
    failures
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feeding::Feeding;
    use crate::gate::{CaseReport, Distances};

    /// Failures of a bundle that meets all bounds, except for what `change` does to its only sequence and to its distances.
    fn failing(change: impl FnOnce(&mut CaseReport, &mut Distances)) -> Vec<Failure> {
        let mut case = CaseReport {
            prompt: "Count up:".to_owned(),
            positions: 100,
            repeated: 0,
            qualified: 64,
            flips: Vec::new(),
            ties: 36,
            ties_differing: 0,
            tie_flips: Vec::new(),
            not_finite: 0,
            first_divergence: None,
            worst_margin_error: 0.0,
            norm_difference: 0.0,
            distances: None,
            track: Vec::new(),
        };
        let mut distances = Distances { min_cosine: 1.0, mean_cosine: 1.0, max_kl: 0.0, mean_kl: 0.0 };
        change(&mut case, &mut distances);
        let (qualified, agreed) = (case.qualified, case.qualified - case.flips.len());
        let report = GateReport {
            passed: false,
            reference: String::new(),
            feeding: Feeding::ONE_BY_ONE,
            qualified,
            agreed,
            distances: Some(distances),
            bounds: Bounds::LOSSLESS,
            failures: Vec::new(),
            cases: vec![case],
            layers: None,
            causes: Vec::new(),
            exactness: Vec::new(),
        };
        let judged = report.judged_by(Bounds::LOSSLESS);
        assert_eq!(judged.passed, judged.failures.is_empty());
        judged.failures
    }

    #[test]
    fn each_missed_bound_is_the_only_failure() {
        assert_eq!(failing(|_, _| {}), []);
        assert_eq!(failing(|case, _| case.qualified = 63), [Failure::Positions { found: 63, needed: 64 }]);
        assert_eq!(failing(|case, _| case.not_finite = 1), [Failure::NotFinite { positions: 1 }]);
        let found = 0.031;
        assert_eq!(failing(|case, _| case.norm_difference = found), [Failure::Norms { found, limit: 0.03 }]);
        let found = 0.994;
        assert_eq!(
            failing(|_, distances| distances.min_cosine = found),
            [Failure::MinCosine { found, limit: 0.995 }]
        );
        let found = 0.9994;
        assert_eq!(
            failing(|_, distances| distances.mean_cosine = found),
            [Failure::MeanCosine { found, limit: 0.9995 }]
        );
        let found = 0.0011;
        assert_eq!(
            failing(|_, distances| distances.mean_kl = found),
            [Failure::MeanKl { found, limit: 1e-3 }]
        );
    }

    /// Rounding decides some near-ties, but not most of them.
    #[test]
    fn other_winners_at_more_than_half_of_the_near_ties_fail() {
        for (of, differing, passes) in [
            (0, 0, true),
            (3, 3, true),
            (4, 3, true),
            (4, 4, false),
            (8, 4, true),
            (8, 5, false),
            (40, 21, false),
        ] {
            let failures = failing(|case, _| (case.ties, case.ties_differing) = (of, differing));
            let expected = if passes { Vec::new() } else { vec![Failure::Ties { differing, of }] };
            assert_eq!(failures, expected);
        }
    }
}
