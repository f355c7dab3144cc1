//! A bundle's logits on a text, compared with the checkpoint's.

use std::num::NonZeroUsize;

use interpreter::{InterpretError, Port};
use progress::Progress;
use rayon::prelude::*;

use super::logits::{Comparison, LogitsError, LogitsFile};
use super::windows::Window;
use crate::feeding::Feeding;
use crate::lockstep::Lockstep;
use crate::stepper::{StepError, Stepper};

/// Most sequences that are fed in lockstep.
const SEQUENCES: usize = 16;
/// Most bytes that the caches of sequences in lockstep take together, unless those of one window take more.
const CACHE_BYTES: u64 = 2 << 30;

/// Why a bundle cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// It cannot be run.
    #[error("the bundle cannot be run: {0}")]
    Step(#[from] StepError),
    /// The checkpoint's logits cannot be read.
    #[error(transparent)]
    Logits(#[from] LogitsError),
    /// It is of another model.
    #[error(
        "the bundle has {found} logits, but the checkpoint has {expected} tokens: is the bundle of this checkpoint?"
    )]
    Vocabulary {
        /// Number of its logits.
        found: usize,
        /// Size of the checkpoint's vocabulary.
        expected: usize,
    },
    /// The caller asked to stop.
    #[error("interrupted")]
    Stopped,
    /// The results cannot be kept.
    #[error(transparent)]
    Keep(#[from] std::io::Error),
}

/// What was found at a position; none if the bundle's logits are not finite.
pub type Found = Option<Comparison>;

/// Gets the results of some windows: the first scored position of them, and what was found from there on.
pub type Keep<'k> = &'k mut dyn FnMut(usize, &[Found]) -> std::io::Result<()>;

/// Feeds the windows of a logits file to a bundle, except for those whose positions are before `done`. Graphs that take several
/// tokens and give logits for all of them get them in chunks, window after window; others get several windows in lockstep.
///
/// # Errors
/// [`MeasureError`]; what was handed to `keep` until then is valid.
pub fn measure(
    stepper: Stepper,
    logits: &LogitsFile,
    done: usize,
    progress: &dyn Progress,
    keep: Keep<'_>,
) -> Result<(), MeasureError> {
    let ports = stepper.session().outputs().find(|port| port.name == "logits");
    let found = ports.and_then(|port| usize::try_from(port.ty.shape.last()?.fixed()?).ok());
    let expected = logits.subject().vocab;
    if let Some(found) = found.filter(|found| *found != expected) {
        return Err(MeasureError::Vocabulary { found, expected });
    }
    let windows: Vec<Window> = logits.subject().windows.iter().collect();
    let amount = |windows: &[Window]| windows.iter().map(|window| window.tokens.len() as u64).sum::<u64>();
    progress.expect(amount(&windows));
    let mut feeder = Feeder::new(stepper, logits.subject().windows.shape().window)?;
    for batch in windows.chunks(feeder.windows_at_once()) {
        let last = &batch[batch.len() - 1];
        if last.first + last.targets.len() <= done {
            progress.resume(amount(batch));
            continue;
        }
        let results = feeder.feed(batch, logits, progress)?;
        for (window, results) in batch.iter().zip(&results) {
            keep(window.first, results)?;
        }
    }
    progress.finish();
    Ok(())
}

/// How a graph takes tokens.
enum Feeder {
    /// In chunks, with the logits of all of them.
    Chunks(Box<Stepper>),
    /// One at a time, for several windows.
    Lockstep(Box<Lockstep>, usize),
}

impl Feeder {
    fn new(stepper: Stepper, window: usize) -> Result<Feeder, StepError> {
        match stepper.feeding() {
            Feeding::Main(width) | Feeding::Fixed(width) if width > NonZeroUsize::MIN => {
                Ok(Feeder::Chunks(Box::new(stepper)))
            }
            _ => {
                let bytes = cache_bytes(&stepper).saturating_mul(window as u64).max(1);
                let sequences = (CACHE_BYTES / bytes).clamp(1, SEQUENCES as u64) as usize;
                let count = NonZeroUsize::new(sequences).unwrap_or(NonZeroUsize::MIN);
                Ok(Feeder::Lockstep(Box::new(Lockstep::new(stepper, count)?), sequences))
            }
        }
    }

    fn windows_at_once(&self) -> usize {
        match self {
            Feeder::Chunks(_) => 1,
            Feeder::Lockstep(_, sequences) => *sequences,
        }
    }

    /// What is found at the scored positions of each window.
    fn feed(
        &mut self,
        windows: &[Window],
        logits: &LogitsFile,
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<Found>>, MeasureError> {
        match self {
            Feeder::Chunks(stepper) => {
                windows.iter().map(|window| chunks(stepper, window, logits, progress)).collect()
            }
            Feeder::Lockstep(lockstep, _) => in_lockstep(lockstep, windows, logits, progress),
        }
    }
}

/// Bytes of the states for each position: they are f16, and positions are their only axis without a fixed size.
fn cache_bytes(stepper: &Stepper) -> u64 {
    let of_state = |port: &Port| {
        let sizes = port.ty.shape.iter().filter_map(|dim| dim.fixed());
        sizes.fold(size_of::<half::f16>() as u64, u64::saturating_mul)
    };
    stepper.session().states().map(of_state).fold(0, u64::saturating_add)
}

/// One window, in chunks.
fn chunks(
    stepper: &mut Stepper,
    window: &Window,
    logits: &LogitsFile,
    progress: &dyn Progress,
) -> Result<Vec<Found>, MeasureError> {
    stepper.reset()?;
    let (mut results, mut at) = (Vec::with_capacity(window.targets.len()), 0);
    for length in stepper.lengths_with_logits(window.tokens.len()) {
        check(progress)?;
        let outputs = stepper.feed_chunk(&window.tokens[at..at + length])?;
        let found: Vec<Found> = (at..at + length)
            .into_par_iter()
            .filter(|at| *at >= window.context)
            .map(|position| {
                let found = outputs.logits(position - at).map_err(StepError::from)?;
                compare(window, position, &found, logits)
            })
            .collect::<Result<_, MeasureError>>()?;
        results.extend(found);
        at += length;
        progress.advance(length as u64);
    }
    Ok(results)
}

/// Several windows, token by token. They are as long as each other, except that the last one may be shorter.
fn in_lockstep(
    lockstep: &mut Lockstep,
    windows: &[Window],
    logits: &LogitsFile,
    progress: &dyn Progress,
) -> Result<Vec<Vec<Found>>, MeasureError> {
    lockstep.reset()?;
    let mut results: Vec<Vec<Found>> =
        windows.iter().map(|window| Vec::with_capacity(window.targets.len())).collect();
    let longest = windows.first().map_or(0, |window| window.tokens.len());
    for at in 0..longest {
        check(progress)?;
        let tokens: Vec<u32> = windows.iter().map_while(|window| window.tokens.get(at).copied()).collect();
        let found = lockstep.feed(&tokens, progress).map_err(|error| match error {
            StepError::Interpret(InterpretError::Stopped) => MeasureError::Stopped,
            other => other.into(),
        })?;
        let compared: Vec<Option<Found>> =
            windows
                .par_iter()
                .zip(&found)
                .map(|(window, found)| {
                    if at < window.context { Ok(None) } else { compare(window, at, found, logits).map(Some) }
                })
                .collect::<Result<_, MeasureError>>()?;
        for (results, compared) in results.iter_mut().zip(compared) {
            results.extend(compared);
        }
        progress.advance(tokens.len() as u64);
    }
    Ok(results)
}

/// What is found at a position of a window, which is scored.
fn compare(
    window: &Window,
    position: usize,
    found: &[f32],
    logits: &LogitsFile,
) -> Result<Found, MeasureError> {
    let at = position - window.context;
    let record = logits.record(window.first + at)?;
    Ok(record.compare(found, window.targets[at]))
}

fn check(progress: &dyn Progress) -> Result<(), MeasureError> {
    if progress.cancelled() { Err(MeasureError::Stopped) } else { Ok(()) }
}
