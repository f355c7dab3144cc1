//! Does a bundle predict what its checkpoint predicts?
//!
//! [`run`] feeds an oracle's sequences to a bundle, in the way configured in its stepper, and compares the winner at every
//! position that has a clear margin. If the checkpoint is available, it also compares all logits, reports the first layer that
//! departs, and looks for the cause: it compares the graph's constants with the configuration, and samples of all matrices and
//! of the tables with the weights. [`Bounds`] are the requirements. [`compare_feedings`] compares two ways of feeding.

mod caches;
mod cause;
mod exactness;
mod feedings;
mod layers;
mod lookups;
mod sequence;
mod structure;
mod tally;
mod verdict;
mod weights;

use interpreter::InterpretError;
use progress::{Progress, Quiet};
use serde::Serialize;

pub use cause::{Cause, ValueSource};
pub use exactness::{PartExactness, exactness};
pub use feedings::{CacheComparison, FeedingReport, compare_feedings};
pub use layers::{LayerError, LayerReport};
pub use verdict::{Bounds, Failure};

use crate::feeding::Feeding;
use crate::file::{Case, Oracle};
use crate::reference::{Hidden, Reference, ReferenceError, fed_together};
use crate::score::winner;
use crate::stepper::{StepError, Stepper};
use crate::tables::TableError;
use sequence::Sequence;
use structure::Graph;
use tally::{Sums, Tally};

/// Tokens whose rows of the tables are compared.
const TABLE_TOKENS: usize = 64;
/// Tokens of the probe that devices repeat to check that they compute the same tokens each time.
pub const PROBE_TOKENS: usize = 24;

/// The gate could not be run. A bundle that fails the gate is not an error.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The bundle cannot be run.
    #[error("the bundle cannot be run: {0}")]
    Step(#[from] StepError),
    /// Its weights cannot be read.
    #[error("the bundle cannot be read: {0}")]
    Interpret(#[from] InterpretError),
    /// Its tables cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The reference cannot be computed from the checkpoint.
    #[error(transparent)]
    Reference(ReferenceError),
    /// The graph has more or fewer layers than the checkpoint.
    #[error(
        "the graph has {found} layer factors, but the checkpoint has {expected} layers: is the bundle of this checkpoint?"
    )]
    Layers {
        /// Factors in the graph.
        found: usize,
        /// Layers of the checkpoint.
        expected: usize,
    },
    /// The caller asked to stop.
    #[error("stopped")]
    Stopped,
    /// A token of the oracle is outside the bundle's vocabulary.
    #[error(
        "the oracle has token {token} in cases[{case}], but the bundle has {vocab} logits: is the oracle of this model?"
    )]
    Token {
        /// The case.
        case: usize,
        /// The token.
        token: u32,
        /// Number of logits.
        vocab: usize,
    },
    /// The bundle's vocabulary differs in size from the checkpoint's.
    #[error(
        "the bundle has {found} logits, but the checkpoint has {expected} tokens: is the bundle of this checkpoint?"
    )]
    Vocabulary {
        /// Number of the bundle's logits.
        found: usize,
        /// Size of the checkpoint's vocabulary.
        expected: usize,
    },
    /// A sequence does not fit into the model's context.
    #[error(
        "the oracle's cases[{case}] has {tokens} tokens, but the model's context is {limit}: is the oracle of this model?"
    )]
    Length {
        /// The case.
        case: usize,
        /// Its tokens.
        tokens: usize,
        /// Positions of the context.
        limit: usize,
    },
}

impl From<ReferenceError> for GateError {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Stopped => GateError::Stopped,
            error => GateError::Reference(error),
        }
    }
}

/// A position where the bundle has another winner than the reference.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Flip {
    /// Position in the sequence.
    pub position: usize,
    /// The reference's winner.
    pub expected: u32,
    /// The bundle's.
    pub found: u32,
    /// How far the reference's winner leads in the reference's logits.
    pub margin: f32,
    /// How far the bundle's winner leads the reference's winner in the bundle's logits.
    pub lead: f32,
}

/// Distances of all logits from the reference's.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Distances {
    /// Least cosine of a position.
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
    /// How far the oracle's winner leads, in logits.
    pub expected_margin: f32,
    /// How far the bundle's winner leads.
    pub margin: f32,
    /// Cosine of all logits; only with the checkpoint.
    pub cosine: Option<f64>,
    /// Whether the oracle's margin is large enough for the position to count.
    pub qualified: bool,
    /// Whether the bundle has the oracle's winner.
    pub agrees: bool,
}

/// The results of one sequence.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CaseReport {
    /// The prompt.
    pub prompt: String,
    /// Positions of the sequence.
    pub positions: usize,
    /// Leading positions whose context already occurs in an earlier sequence. They are counted only there; a sequence with no
    /// other positions is not run.
    pub repeated: usize,
    /// Positions whose margin is large enough to count.
    pub qualified: usize,
    /// Qualified positions with another winner.
    pub flips: Vec<Flip>,
    /// Near-ties: positions whose margin is too small to count.
    pub ties: usize,
    /// Near-ties with another winner.
    pub ties_differing: usize,
    /// Near-ties where the bundle differs by more than rounding explains.
    pub tie_flips: Vec<Flip>,
    /// Positions with logits that are not finite.
    pub not_finite: usize,
    /// First position with another winner, ties included.
    pub first_divergence: Option<usize>,
    /// Largest difference between a qualified position's margin and the reference's.
    pub worst_margin_error: f32,
    /// Mean relative difference between the norm of the logits and the reference's.
    pub norm_difference: f64,
    /// Distances of the logits; only with the checkpoint.
    pub distances: Option<Distances>,
    /// Each position that was compared, for plots.
    #[serde(skip)]
    pub track: Vec<PositionReport>,
}

/// The result of the gate.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct GateReport {
    /// Whether the bundle passes.
    pub passed: bool,
    /// What computed the oracle.
    pub reference: String,
    /// How the bundle was fed.
    #[serde(skip_serializing_if = "Feeding::is_one_by_one")]
    pub feeding: Feeding,
    /// Qualified positions; positions with the same context count once.
    pub qualified: usize,
    /// Qualified positions with the right winner.
    pub agreed: usize,
    /// Distances of the logits at all positions; only with the checkpoint.
    pub distances: Option<Distances>,
    /// The bounds that the bundle had to meet.
    pub bounds: Bounds,
    /// The bounds that it did not meet.
    pub failures: Vec<Failure>,
    /// The results of each sequence.
    pub cases: Vec<CaseReport>,
    /// The comparison layer by layer, if requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<LayerReport>,
    /// The faults that were found. Each one fails the bundle.
    pub causes: Vec<Cause>,
    /// How many weights of each part are the checkpoint's, if they were counted: see [`exactness`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exactness: Vec<PartExactness>,
}

impl GateReport {
    /// Exit code of the command: 0 if the bundle passes, 1 if not.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.passed)
    }

    /// Judges the results by these bounds, which replace the previous ones.
    #[must_use]
    pub fn judged_by(mut self, bounds: Bounds) -> GateReport {
        self.bounds = bounds;
        self.failures = verdict::failures(&self, &bounds);
        self.passed = self.failures.is_empty() && self.causes.is_empty();
        self
    }

    /// Why the bundle fails, one line per reason: the bounds that it does not meet, then the faults that were found.
    pub fn reasons(&self) -> impl Iterator<Item = String> {
        let failures = self.failures.iter().map(|failure| format!("failed: {failure}"));
        failures.chain(self.causes.iter().map(|cause| format!("cause: {cause}")))
    }

    /// Largest mean relative difference of the norms in a sequence.
    pub fn norm_difference(&self) -> f64 {
        self.cases.iter().map(|case| case.norm_difference).fold(0.0, f64::max)
    }
}

/// Gates a bundle by the bounds of its format. With a reference of its checkpoint it also looks for causes, and with `layers` it
/// compares layer by layer, one token at a time.
///
/// The bundle is fed as configured in its stepper. Through `main` all positions are compared. Through `prefill` only the last
/// position of a prompt has logits: the ends of each prompt's quarters and its continuation are compared.
///
/// Progress is advanced by one for every position of a sequence that is run.
///
/// # Errors
/// [`GateError`] if the bundle or the reference cannot be run, and soon after `progress` is cancelled; a failing bundle is reported in
/// the result.
pub fn run(
    stepper: &mut Stepper,
    oracle: &Oracle,
    reference: Option<&mut Reference<'_>>,
    layers: bool,
    progress: &dyn Progress,
) -> Result<GateReport, GateError> {
    check(stepper, oracle, reference.as_deref())?;
    let tallies = oracle.cases.iter().zip(oracle.repeated());
    let mut tallies: Vec<_> = tallies.map(|(case, repeated)| Tally::new(case, repeated)).collect();
    run_cases(stepper, reference.as_deref(), &mut tallies, progress)?;
    let mut cases = Vec::with_capacity(oracle.cases.len());
    let mut sums = Sums::default();
    for tally in tallies {
        let (report, distances) = tally.finish();
        sums = sums.joined(distances);
        cases.push(report);
    }
    let mut causes = Vec::new();
    let mut layer_report = None;
    if let Some(reference) = reference {
        causes = inspect(stepper, oracle, reference)?;
        let longest = oracle.cases.iter().max_by_key(|case| case.len());
        if let (true, Some(case)) = (layers, longest) {
            let tokens: Vec<u32> = case.ids().collect();
            layer_report = Some(layers::compare(stepper, reference, &tokens)?);
        }
    }
    let qualified = cases.iter().map(|case| case.qualified).sum();
    let flips: usize = cases.iter().map(|case| case.flips.len()).sum();
    let bounds = Bounds::of(&Graph::new(stepper.session()));
    let report = GateReport {
        passed: false,
        reference: oracle.reference.clone(),
        feeding: stepper.feeding(),
        qualified,
        agreed: qualified - flips,
        distances: sums.distances(),
        bounds,
        failures: Vec::new(),
        cases,
        layers: layer_report,
        causes,
        exactness: Vec::new(),
    };
    Ok(report.judged_by(bounds))
}

/// Rejects an oracle of another model before anything is run.
fn check(stepper: &Stepper, oracle: &Oracle, reference: Option<&Reference<'_>>) -> Result<(), GateError> {
    let logits = stepper.session().outputs().find(|port| port.name == "logits");
    let vocab = logits.and_then(|port| usize::try_from(port.ty.shape.last()?.fixed()?).ok());
    for (case, sequence) in oracle.cases.iter().enumerate() {
        let mut tokens = sequence.ids().chain(sequence.teacher_forced_argmax.iter().copied());
        if let Some(vocab) = vocab
            && let Some(token) = tokens.find(|token| *token as usize >= vocab)
        {
            return Err(GateError::Token { case, token, vocab });
        }
        if let Some(limit) = reference.map(|reference| reference.config().max_positions)
            && sequence.len() > limit
        {
            return Err(GateError::Length { case, tokens: sequence.len(), limit });
        }
    }
    match (vocab, reference.map(|reference| reference.config().vocab)) {
        (Some(found), Some(expected)) if found != expected => Err(GateError::Vocabulary { found, expected }),
        _ => Ok(()),
    }
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
    causes.extend(lookups::findings(&graph, stepper.session(), reference)?);
    if let Some(tables) = stepper.tables() {
        let mut tokens: Vec<u32> = oracle.cases.iter().flat_map(Case::ids).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens.truncate(TABLE_TOKENS);
        causes.extend(weights::table_findings(tables, &tokens, reference)?);
    }
    Ok(causes)
}

/// Counts a position.
fn step(progress: &dyn Progress) -> Result<(), GateError> {
    progress.advance(1);
    unless_cancelled(progress)
}

fn unless_cancelled(progress: &dyn Progress) -> Result<(), GateError> {
    if progress.cancelled() { Err(GateError::Stopped) } else { Ok(()) }
}

/// Runs the sequences that have positions of their own. Many are fed to the reference together, since it reads all weights for each pass.
fn run_cases(
    stepper: &mut Stepper,
    reference: Option<&Reference<'_>>,
    tallies: &mut [Tally<'_>],
    progress: &dyn Progress,
) -> Result<(), GateError> {
    let mut run: Vec<&mut Tally<'_>> = tallies.iter_mut().filter(|tally| tally.adds_positions()).collect();
    let Some(reference) = reference else {
        return run.into_iter().try_for_each(|tally| run_case(stepper, tally, None, progress));
    };
    let mut rest = run.as_mut_slice();
    while !rest.is_empty() {
        let (group, later) = rest.split_at_mut(fed_together(rest.iter().map(|tally| tally.case().len())));
        let tokens: Vec<Vec<u32>> = group.iter().map(|tally| tally.case().ids().collect()).collect();
        let sequences: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
        let hidden = reference.feed_windows(&sequences, &Quiet(progress))?;
        let mut first = 0;
        for tally in group {
            let end = first + tally.case().len() as u32;
            let hidden = hidden.select(&(first..end).collect::<Vec<_>>())?;
            run_case(stepper, tally, Some((reference, &hidden)), progress)?;
            first = end;
        }
        rest = later;
    }
    Ok(())
}

/// Feeds a sequence to the bundle, and compares it with the reference's results, if there are any.
fn run_case(
    stepper: &mut Stepper,
    tally: &mut Tally<'_>,
    reference: Option<(&Reference<'_>, &Hidden)>,
    progress: &dyn Progress,
) -> Result<(), GateError> {
    let case = tally.case();
    let mut sequence = Sequence::begin(stepper, case)?;
    let mut add = |at: usize, expected: Option<&[f32]>| {
        if let Some(found) = sequence.next()? {
            tally.add(at, &found, expected);
        }
        step(progress)
    };
    let Some((reference, hidden)) = reference else {
        return (0..case.len()).try_for_each(|at| add(at, None));
    };
    let mut failure = None;
    reference.logits(hidden, &Quiet(progress), &mut |at, expected| {
        if failure.is_none() {
            failure = add(at, Some(expected)).err();
        }
    })?;
    failure.map_or(Ok(()), Err)
}

/// A prompt and the bundle's own greedy continuation, for devices to repeat.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Probe {
    /// The prompt's ids.
    pub prompt_ids: Vec<u32>,
    /// The bundle's greedy continuation.
    pub generated_ids: Vec<u32>,
}

/// Continues a prompt greedily by [`PROBE_TOKENS`] tokens.
///
/// # Errors
/// If the bundle cannot be run.
pub fn probe(stepper: &mut Stepper, prompt_ids: &[u32]) -> Result<Probe, GateError> {
    stepper.reset()?;
    let mut next = stepper.read_prompt(prompt_ids)?.map(|logits| winner(&logits).id);
    let mut generated_ids = Vec::with_capacity(PROBE_TOKENS);
    while let (Some(token), true) = (next, generated_ids.len() < PROBE_TOKENS) {
        generated_ids.push(token);
        next = Some(winner(&stepper.feed(token)?).id);
    }
    Ok(Probe { prompt_ids: prompt_ids.to_vec(), generated_ids })
}
