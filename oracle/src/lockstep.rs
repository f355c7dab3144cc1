//! Several sequences that are fed in lockstep through a graph that takes one token at a time.

use std::num::NonZeroUsize;

use progress::Progress;

use crate::stepper::{StepError, Stepper};

/// Sequences that share a package, its weights and its tables. All of them are at the same position.
#[derive(Debug)]
pub struct Lockstep {
    sequences: Vec<Stepper>,
}

impl Lockstep {
    /// Prepares this number of sequences with empty states.
    ///
    /// # Errors
    /// If the states cannot be allocated.
    pub fn new(mut stepper: Stepper, sequences: NonZeroUsize) -> Result<Lockstep, StepError> {
        stepper.reset()?;
        let mut all = Vec::with_capacity(sequences.get());
        for _ in 1..sequences.get() {
            all.push(stepper.sibling()?);
        }
        all.push(stepper);
        Ok(Lockstep { sequences: all })
    }

    /// Starts new sequences with empty states.
    ///
    /// # Errors
    /// If the states cannot be allocated.
    pub fn reset(&mut self) -> Result<(), StepError> {
        self.sequences.iter_mut().try_for_each(Stepper::reset)
    }

    /// Feeds one token to each of the first `tokens.len()` sequences; returns the logits of each, f32 `[V]`. Sequences may end, the
    /// last one first; then they get no token until the next [`Lockstep::reset`].
    ///
    /// # Errors
    /// As [`Stepper::feed`], and [`InterpretError::Stopped`] soon after `progress` is cancelled: a step of a large model takes seconds.
    /// After a failed step, call [`Lockstep::reset`].
    ///
    /// [`InterpretError::Stopped`]: interpreter::InterpretError::Stopped
    ///
    /// # Panics
    /// If there are more tokens than sequences.
    pub fn feed(&mut self, tokens: &[u32], progress: &dyn Progress) -> Result<Vec<Vec<f32>>, StepError> {
        assert!(tokens.len() <= self.sequences.len(), "there are more tokens than sequences");
        Stepper::feed_together(&mut self.sequences, tokens, progress)
    }
}
