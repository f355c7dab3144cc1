//! Text from a bundle: tokens are chosen one by one, and the text is streamed.

mod stream;

use std::time::{Duration, Instant};

use serde::Serialize;

use self::stream::Stream;
use crate::feeding::Feeding;
use crate::sampling::Sampler;
use crate::stepper::{StepError, Stepper};
use crate::text::{Text, TextError};

/// Fewest tokens of a prompt that are fed between two questions whether to stop.
const BETWEEN_QUESTIONS: usize = 16;

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

/// What ends a text.
#[derive(Clone, Copy)]
pub struct Limits<'l> {
    /// Most tokens to write.
    pub tokens: usize,
    /// Most positions of the sequence, the prompt's included.
    pub context: Option<usize>,
    /// Texts that end it; they are not part of it.
    pub stops: &'l [String],
    /// Whether special tokens that the model writes are part of the text.
    pub special: bool,
    /// Whether to stop now.
    pub asked: &'l dyn Fn() -> bool,
}

impl Limits<'_> {
    /// Ends after this many tokens, or with a stop token.
    pub fn tokens(tokens: usize) -> Self {
        Limits { tokens, context: None, stops: &[], special: false, asked: &|| false }
    }
}

/// What ended a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The model wrote a stop token.
    StopToken,
    /// The model wrote a stop text.
    StopText,
    /// It has as many tokens as it may have.
    Tokens,
    /// The sequence has as many positions as it may have.
    Context,
    /// It was asked to stop.
    Interrupted,
}

/// What was generated, and how fast.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Generated {
    /// Tokens of the prompt that were to be fed.
    pub prompt_tokens: usize,
    /// The continuation, without the token that ended it.
    pub ids: Vec<u32>,
    /// Its text, without what followed a stop text.
    #[serde(skip)]
    pub text: String,
    /// Whether a stop token ended it.
    pub stopped: bool,
    /// What ended it.
    pub stop_reason: End,
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

/// Feeds a prompt after what was fed before, and continues it until one of the limits; `show` gets the text piece by piece.
///
/// The last token of the continuation is not fed.
///
/// # Errors
/// [`GenerateError`] if the bundle cannot be run or its tokens cannot be decoded.
pub fn generate(
    stepper: &mut Stepper,
    text: &Text,
    prompt_ids: &[u32],
    limits: &Limits<'_>,
    sampler: &mut Sampler,
    show: &mut dyn FnMut(&str),
) -> Result<Generated, GenerateError> {
    let start = Instant::now();
    let mut next = read_prompt(stepper, prompt_ids, limits)?;
    let prompted = start.elapsed();
    let mut stream = Stream::new(text, limits);
    let stop_reason = loop {
        let Some(logits) = next else { break End::Interrupted };
        let token = sampler.pick(&logits);
        if text.stops(token) {
            break End::StopToken;
        }
        if stream.ids().len() == limits.tokens {
            break End::Tokens;
        }
        if stream.push(token, show)? {
            break End::StopText;
        }
        if stream.ids().len() == limits.tokens {
            break End::Tokens;
        }
        if limits.context.is_some_and(|context| stepper.positions() >= context) {
            break End::Context;
        }
        next = if (limits.asked)() { None } else { Some(stepper.feed(token)?) };
    };
    let (ids, written) = stream.finish(show)?;
    let seconds = |time: Duration| time.as_secs_f64();
    Ok(Generated {
        prompt_tokens: prompt_ids.len(),
        ids,
        text: written,
        stopped: stop_reason == End::StopToken,
        stop_reason,
        prompt_seconds: seconds(prompted),
        seconds: seconds(start.elapsed().saturating_sub(prompted)),
    })
}

/// Feeds a prompt; returns the logits after its last token, or `None` if it was asked to stop before that.
fn read_prompt(
    stepper: &mut Stepper,
    prompt_ids: &[u32],
    limits: &Limits<'_>,
) -> Result<Option<Vec<f32>>, StepError> {
    let (Feeding::Main(width) | Feeding::Prefill(width) | Feeding::Fixed(width)) = stepper.feeding();
    // Whole chunks: logits do not depend on where a prompt is cut, but the time does.
    let together = width.get().saturating_mul(BETWEEN_QUESTIONS.div_ceil(width.get()));
    let mut last = None;
    for part in prompt_ids.chunks(together) {
        if (limits.asked)() {
            return Ok(None);
        }
        last = stepper.read_prompt(part)?;
    }
    Ok(last)
}
