//! Does a bundle say what its checkpoint says?
//!
//! [`run`] feeds an oracle's sequences to a bundle one token at a time and compares the winner at every position with a clear margin.
//! With the checkpoint at hand it also compares all logits, says which layer departs first, and looks for the cause: the
//! graph's constants are held against the configuration, samples of all matrices and of the tables against the weights.

mod cause;
mod layers;
mod structure;
mod weights;

use std::ops::ControlFlow;

use serde::Serialize;

pub use cause::Cause;
pub use layers::{LayerError, LayerReport};

use crate::file::{Case, Oracle};
use crate::interpreter::InterpretError;
use crate::reference::{Reference, ReferenceError};
use crate::score::{cosine, kl_divergence, norm, winner};
use crate::stepper::{StepError, Stepper};
use crate::tables::TableError;
use structure::Graph;

/// Largest mean difference of the logits' norms that passes, as a share. A missing soft cap moves no winner, but this.
const NORM_DIFFERENCE: f64 = 0.03;
/// Tokens whose rows of the tables are compared.
const TABLE_TOKENS: usize = 64;
/// Tokens of the probe that devices repeat to see whether they compute the same each time.
pub const PROBE_TOKENS: usize = 24;

/// A gate that could not be run. A bundle that fails it is no error.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The bundle cannot be run.
    #[error("the bundle cannot be run: {0}")]
    Step(#[from] StepError),
    /// Its weights cannot be looked at.
    #[error("the bundle cannot be read: {0}")]
    Interpret(#[from] InterpretError),
    /// Its tables cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The checkpoint cannot be computed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The graph does not end its layers as the decoder does.
    #[error(
        "the graph multiplies by {found} layer factors, the checkpoint has {expected} layers: is it of this model?"
    )]
    Layers {
        /// Factors in the graph.
        found: usize,
        /// Layers of the checkpoint.
        expected: usize,
    },
    /// The watcher ended the run.
    #[error("stopped")]
    Stopped,
    /// The oracle has other tokens than the bundle.
    #[error(
        "the oracle's winner is token {token}, the bundle has {vocab} logits: is the oracle of this model?"
    )]
    Vocabulary {
        /// A token.
        token: u32,
        /// Number of logits.
        vocab: usize,
    },
}

/// Called after each token that a bundle computed; may end the run.
pub type Watch<'w> = &'w mut dyn FnMut() -> ControlFlow<()>;

/// A clear winner that the bundle does not choose.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Flip {
    /// Position in the sequence.
    pub position: usize,
    /// The reference's winner.
    pub expected: u32,
    /// The bundle's.
    pub found: u32,
    /// How clear it was.
    pub margin: f32,
}

/// Distances of all logits from the reference's.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Distances {
    /// Smallest cosine of a position.
    pub min_cosine: f64,
    /// Mean cosine.
    pub mean_cosine: f64,
    /// Largest Kullback-Leibler divergence of a position, in nats.
    pub max_kl: f64,
    /// Mean divergence.
    pub mean_kl: f64,
}

/// What was found at one position.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PositionReport {
    /// By how much the oracle's winner leads, in logits.
    pub expected_margin: f32,
    /// By how much the bundle's winner leads.
    pub margin: f32,
    /// Cosine of all logits; only with the checkpoint at hand.
    pub cosine: Option<f64>,
    /// Whether the position gates.
    pub qualified: bool,
    /// Whether the bundle has the oracle's winner.
    pub agrees: bool,
}

/// One sequence's verdict.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CaseReport {
    /// The prompt.
    pub prompt: String,
    /// Tokens fed.
    pub positions: usize,
    /// Positions that gate.
    pub qualified: usize,
    /// Qualified positions with another winner.
    pub flips: Vec<Flip>,
    /// First position with another winner, ties included.
    pub first_divergence: Option<usize>,
    /// Largest difference of a qualified position's margin from the reference's.
    pub worst_margin_error: f32,
    /// Mean difference of the logits' norm from the reference's, as a share.
    pub norm_difference: f64,
    /// Distances of the logits; only with the checkpoint at hand.
    pub distances: Option<Distances>,
    /// Each position, for plots.
    #[serde(skip)]
    pub track: Vec<PositionReport>,
}

/// The verdict.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GateReport {
    /// Whether the bundle passes.
    pub passed: bool,
    /// What computed the oracle.
    pub reference: String,
    /// Qualified positions.
    pub qualified: usize,
    /// Those with the right winner.
    pub agreed: usize,
    /// Each sequence.
    pub cases: Vec<CaseReport>,
    /// Layer by layer, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerReport>,
    /// What was found wrong. Each finding fails the bundle.
    pub causes: Vec<Cause>,
}

impl GateReport {
    /// Exit code of the command: 0 if the bundle passes, 1 if not.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.passed)
    }
}

/// Gates a bundle. With a reference of its checkpoint it also looks for causes, and with `layers` compares layer by layer.
///
/// # Errors
/// [`GateError`] if a side cannot be run; a failing bundle gives a report.
pub fn run(
    stepper: &mut Stepper,
    oracle: &Oracle,
    mut reference: Option<&mut Reference<'_>>,
    layers: bool,
    watch: Watch<'_>,
) -> Result<GateReport, GateError> {
    let mut cases = Vec::with_capacity(oracle.cases.len());
    for case in &oracle.cases {
        cases.push(run_case(stepper, case, reference.as_deref_mut(), watch)?);
    }
    let mut causes = Vec::new();
    let mut layer_report = None;
    if let Some(reference) = reference {
        causes = inspect(stepper, oracle, reference)?;
        let longest = oracle.cases.iter().max_by_key(|case| case.ids().count());
        if let (true, Some(case)) = (layers, longest) {
            let tokens: Vec<u32> = case.ids().collect();
            layer_report = Some(layers::compare(stepper, reference, &tokens)?);
        }
    }
    let qualified = cases.iter().map(|case| case.qualified).sum();
    let flips: usize = cases.iter().map(|case| case.flips.len()).sum();
    let norms_fit = cases.iter().all(|case| case.norm_difference <= NORM_DIFFERENCE);
    Ok(GateReport {
        passed: flips == 0 && norms_fit && causes.is_empty(),
        reference: oracle.reference.clone(),
        qualified,
        agreed: qualified - flips,
        cases,
        layers: layer_report,
        causes,
    })
}

/// Looks for causes without running anything: constants, samples of matrices, rows of the tables.
///
/// # Errors
/// If the bundle or the checkpoint cannot be read.
pub fn inspect(
    stepper: &Stepper,
    oracle: &Oracle,
    reference: &Reference<'_>,
) -> Result<Vec<Cause>, GateError> {
    let graph = Graph::new(stepper.session());
    let mut causes = structure::findings(&graph, reference.config());
    causes.extend(weights::findings(&graph, stepper.session(), reference)?);
    if let Some(tables) = stepper.tables() {
        let mut tokens: Vec<u32> = oracle.cases.iter().flat_map(Case::ids).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens.truncate(TABLE_TOKENS);
        causes.extend(weights::table_findings(tables, &tokens, reference)?);
    }
    Ok(causes)
}

/// Sums over a case's positions.
struct Tally<'c> {
    case: &'c Case,
    report: CaseReport,
    norm_differences: f64,
    cosines: f64,
    divergences: f64,
}

impl<'c> Tally<'c> {
    fn new(case: &'c Case) -> Self {
        let report = CaseReport {
            prompt: case.prompt.clone(),
            positions: 0,
            qualified: 0,
            flips: Vec::new(),
            first_divergence: None,
            worst_margin_error: 0.0,
            norm_difference: 0.0,
            distances: None,
            track: Vec::new(),
        };
        Tally { case, report, norm_differences: 0.0, cosines: 0.0, divergences: 0.0 }
    }

    /// Takes the bundle's logits at the next position, and the reference's if there are any.
    fn add(&mut self, found: &[f32], expected: Option<&[f32]>) -> Result<(), GateError> {
        let position = self.report.positions;
        self.report.positions += 1;
        let best = winner(found);
        // An oracle that was read has a figure for each of its tokens.
        let wanted = self.case.teacher_forced_argmax.get(position).copied().unwrap_or(best.id);
        if wanted as usize >= found.len() {
            return Err(GateError::Vocabulary { token: wanted, vocab: found.len() });
        }
        if best.id != wanted && self.report.first_divergence.is_none() {
            self.report.first_divergence = Some(position);
        }
        if self.case.qualifies(position) {
            let margin = self.case.teacher_forced_margins[position];
            self.report.qualified += 1;
            self.report.worst_margin_error = self.report.worst_margin_error.max((best.margin - margin).abs());
            if best.id != wanted {
                self.report.flips.push(Flip { position, expected: wanted, found: best.id, margin });
            }
        }
        if let Some(expected_norm) = self.case.logit_norms.get(position).copied().map(f64::from) {
            self.norm_differences += norm(found) / expected_norm - 1.0;
        }
        let cosine = expected.map(|expected| self.compare(found, expected));
        self.report.track.push(PositionReport {
            expected_margin: self.case.teacher_forced_margins.get(position).copied().unwrap_or_default(),
            margin: best.margin,
            cosine,
            qualified: self.case.qualifies(position),
            agrees: best.id == wanted,
        });
        Ok(())
    }

    /// Adds the distances of a position's logits; gives their cosine.
    fn compare(&mut self, found: &[f32], expected: &[f32]) -> f64 {
        let (cosine, divergence) = (cosine(found, expected), kl_divergence(expected, found));
        self.cosines += cosine;
        self.divergences += divergence;
        let before = self.report.distances;
        self.report.distances = Some(Distances {
            min_cosine: before.map_or(cosine, |before| before.min_cosine.min(cosine)),
            max_kl: before.map_or(divergence, |before| before.max_kl.max(divergence)),
            mean_cosine: self.cosines / self.report.positions as f64,
            mean_kl: self.divergences / self.report.positions as f64,
        });
        cosine
    }

    fn finish(mut self) -> CaseReport {
        self.report.norm_difference = (self.norm_differences / self.report.positions.max(1) as f64).abs();
        self.report
    }
}

fn step(watch: Watch<'_>) -> Result<(), GateError> {
    match watch() {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(GateError::Stopped),
    }
}

fn run_case(
    stepper: &mut Stepper,
    case: &Case,
    reference: Option<&mut Reference<'_>>,
    watch: Watch<'_>,
) -> Result<CaseReport, GateError> {
    stepper.reset()?;
    let tokens: Vec<u32> = case.ids().collect();
    let mut tally = Tally::new(case);
    let Some(reference) = reference else {
        for token in tokens {
            tally.add(&stepper.feed(token)?, None)?;
            step(watch)?;
        }
        return Ok(tally.finish());
    };
    reference.reset();
    let hidden = reference.feed(&tokens, &mut |_, _| {})?;
    let mut failure = None;
    reference.logits(&hidden, &mut |at, expected| {
        if failure.is_none() {
            let found = stepper.feed(tokens[at]).map_err(GateError::from);
            let added = found.and_then(|found| tally.add(&found, Some(expected)));
            failure = added.and_then(|()| step(watch)).err();
        }
    })?;
    failure.map_or_else(|| Ok(tally.finish()), Err)
}

/// A prompt and the bundle's own greedy continuation, for devices to repeat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Probe {
    /// The prompt's ids.
    pub prompt_ids: Vec<u32>,
    /// What the bundle goes on with, token by token.
    pub generated_ids: Vec<u32>,
}

/// Lets a bundle continue a prompt by [`PROBE_TOKENS`] tokens.
///
/// # Errors
/// If the bundle cannot be run.
pub fn probe(stepper: &mut Stepper, prompt_ids: &[u32]) -> Result<Probe, GateError> {
    stepper.reset()?;
    let mut next = None;
    for token in prompt_ids {
        next = Some(winner(&stepper.feed(*token)?).id);
    }
    let mut generated_ids = Vec::with_capacity(PROBE_TOKENS);
    while let (Some(token), true) = (next, generated_ids.len() < PROBE_TOKENS) {
        generated_ids.push(token);
        next = Some(winner(&stepper.feed(token)?).id);
    }
    Ok(Probe { prompt_ids: prompt_ids.to_vec(), generated_ids })
}
