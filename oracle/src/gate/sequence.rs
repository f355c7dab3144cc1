//! Feeds a sequence to a bundle; which positions have logits depends on the way of feeding.

use std::ops::Range;

use interpreter::Outputs;

use crate::feeding::Feeding;
use crate::file::Case;
use crate::stepper::{StepError, Stepper};

/// Number of beginnings of a prompt that are read separately when only the end of a prompt has logits: one, two, three and four
/// quarters of it. Together they take two and a half times the tokens of the prompt.
const BEGINNINGS: usize = 4;

/// A sequence that is being fed.
///
/// Through functions that return logits, one by one or in chunks, prompt and continuation are fed as one sequence, and all positions
/// have logits. Through a `prefill` without, a prompt has logits only at its end: its beginnings are read as separate prompts, the shortest first, and
/// after the whole prompt the continuation is fed one by one.
pub(super) struct Sequence<'s> {
    stepper: &'s mut Stepper,
    tokens: Vec<u32>,
    /// Number of tokens of the prompt.
    prompt: usize,
    /// The next position.
    at: usize,
    /// Lengths of the chunks that are still to be fed through `main`.
    lengths: std::vec::IntoIter<usize>,
    /// Outputs of the last chunk, and its positions.
    chunk: Option<(Outputs, Range<usize>)>,
}

impl<'s> Sequence<'s> {
    /// Resets the states and prepares the sequence.
    pub(super) fn begin(stepper: &'s mut Stepper, case: &Case) -> Result<Self, StepError> {
        stepper.reset()?;
        let lengths = stepper.lengths_with_logits(case.len());
        let (tokens, prompt) = (case.ids().collect(), case.prompt_ids.len());
        Ok(Sequence { stepper, tokens, prompt, at: 0, lengths: lengths.into_iter(), chunk: None })
    }

    /// The logits of the next position, if it has any.
    pub(super) fn next(&mut self) -> Result<Option<Vec<f32>>, StepError> {
        let at = self.at;
        self.at += 1;
        match self.stepper.feeding() {
            Feeding::Main(_) | Feeding::Fixed(_) => self.of_chunk(at).map(Some),
            Feeding::Prefill(_) if at >= self.prompt => self.stepper.feed(self.tokens[at]).map(Some),
            Feeding::Prefill(_) if self.ends_beginning(at) => {
                self.stepper.reset()?;
                self.stepper.read_prompt(&self.tokens[..=at])
            }
            Feeding::Prefill(_) => Ok(None),
        }
    }

    fn of_chunk(&mut self, at: usize) -> Result<Vec<f32>, StepError> {
        let (outputs, range) = match self.chunk.take() {
            Some((outputs, range)) if range.contains(&at) => (outputs, range),
            _ => {
                let range = at..at + self.lengths.next().unwrap_or(1);
                (self.stepper.feed_chunk(&self.tokens[range.clone()])?, range)
            }
        };
        let logits = outputs.logits(at - range.start)?;
        self.chunk = Some((outputs, range));
        Ok(logits)
    }

    fn ends_beginning(&self, at: usize) -> bool {
        (1..=BEGINNINGS).any(|part| self.prompt * part / BEGINNINGS == at + 1)
    }
}
