//! Greedy decoding with a bundle; the text is streamed.

use std::time::{Duration, Instant};

use serde::Serialize;

use crate::score::winner;
use crate::stepper::{StepError, Stepper};
use crate::text::{Text, TextError};

/// Why generation failed.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The bundle cannot be run.
    #[error(transparent)]
    Step(#[from] StepError),
    /// Its tokens cannot be decoded.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// What was generated, and how fast.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Generated {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// The continuation, without the token that ended it.
    pub ids: Vec<u32>,
    /// Whether a stop token ended it.
    pub stopped: bool,
    /// Seconds for the prompt.
    pub prompt_seconds: f64,
    /// Seconds for the continuation.
    pub seconds: f64,
}

impl Generated {
    /// Generated tokens per second; 0 if there were none.
    pub fn tokens_per_second(&self) -> f64 {
        if self.seconds > 0.0 { self.ids.len() as f64 / self.seconds } else { 0.0 }
    }
}

/// Continues a prompt greedily until a stop token or `limit` tokens; `show` gets the text piece by piece.
///
/// # Errors
/// [`GenerateError`] if the bundle cannot be run or its tokens cannot be decoded.
pub fn generate(
    stepper: &mut Stepper,
    text: &Text,
    prompt_ids: &[u32],
    limit: usize,
    show: &mut dyn FnMut(&str),
) -> Result<Generated, GenerateError> {
    stepper.reset()?;
    let start = Instant::now();
    let mut next = stepper.read_prompt(prompt_ids)?.map(|logits| winner(&logits).id);
    let prompted = start.elapsed();
    let mut stream = Stream::default();
    let mut stopped = false;
    while let Some(token) = next.take() {
        stopped = text.stops(token);
        if stopped || stream.ids.len() == limit {
            break;
        }
        stream.push(token, text, show)?;
        if stream.ids.len() < limit {
            next = Some(winner(&stepper.feed(token)?).id);
        }
    }
    stream.finish(text, show)?;
    let seconds = |time: Duration| time.as_secs_f64();
    Ok(Generated {
        prompt_tokens: prompt_ids.len(),
        ids: stream.ids,
        stopped,
        prompt_seconds: seconds(prompted),
        seconds: seconds(start.elapsed().saturating_sub(prompted)),
    })
}

/// The text so far. An incomplete character at its end is held back until the rest is decoded.
#[derive(Default)]
struct Stream {
    ids: Vec<u32>,
    shown: String,
}

impl Stream {
    fn push(&mut self, token: u32, text: &Text, show: &mut dyn FnMut(&str)) -> Result<(), TextError> {
        self.ids.push(token);
        let decoded = text.decode(&self.ids)?;
        if !decoded.ends_with(char::REPLACEMENT_CHARACTER) {
            self.show(decoded, show);
        }
        Ok(())
    }

    fn finish(&mut self, text: &Text, show: &mut dyn FnMut(&str)) -> Result<(), TextError> {
        let decoded = text.decode(&self.ids)?;
        self.show(decoded, show);
        Ok(())
    }

    fn show(&mut self, decoded: String, show: &mut dyn FnMut(&str)) {
        if let Some(new) = decoded.strip_prefix(&self.shown).filter(|new| !new.is_empty()) {
            show(new);
            self.shown = decoded;
        }
    }
}
