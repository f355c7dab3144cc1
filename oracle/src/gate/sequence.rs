//! A sequence on its way through a bundle, and the positions that have logits by the way of feeding.

use std::ops::Range;

use crate::feeding::{Feeding, chunk_lengths};
use crate::file::Case;
use crate::interpreter::Outputs;
use crate::stepper::{StepError, Stepper};

/// Beginnings of a prompt that are read on their own if only the end of one has logits: its quarters. All of them together take two
/// and a half times as many tokens as the prompt, whatever its length.
const BEGINNINGS: usize = 4;

/// A sequence in the middle of being fed.
///
/// One by one and in chunks through `main`, prompt and continuation are fed as one, and all positions have logits. Through `prefill`, a
/// prompt has them at its end only: its beginnings are read as prompts of their own, the shortest first, and after the whole prompt the
/// continuation follows one by one.
pub(super) struct Sequence<'s> {
    stepper: &'s mut Stepper,
    tokens: Vec<u32>,
    /// Tokens of the prompt.
    prompt: usize,
    /// Position that is next.
    at: usize,
    /// Lengths of the chunks that are still to be fed through `main`.
    lengths: std::vec::IntoIter<usize>,
    /// Outputs of the chunk that was fed last, and its positions.
    chunk: Option<(Outputs, Range<usize>)>,
}

impl<'s> Sequence<'s> {
    /// Begins with empty states.
    pub(super) fn begin(stepper: &'s mut Stepper, case: &Case) -> Result<Self, StepError> {
        stepper.reset()?;
        let lengths: Vec<usize> = match stepper.feeding() {
            Feeding::Main(width) => chunk_lengths(case.len(), width).collect(),
            Feeding::Prefill(_) => Vec::new(),
        };
        let (tokens, prompt) = (case.ids().collect(), case.prompt_ids.len());
        Ok(Sequence { stepper, tokens, prompt, at: 0, lengths: lengths.into_iter(), chunk: None })
    }

    /// The logits of the next position, if it has any.
    pub(super) fn next(&mut self) -> Result<Option<Vec<f32>>, StepError> {
        let at = self.at;
        self.at += 1;
        match self.stepper.feeding() {
            Feeding::Main(_) => self.of_chunk(at).map(Some),
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
