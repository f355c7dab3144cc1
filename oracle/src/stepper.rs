//! Feeds tokens to a package as the engine does: ids, positions, and the per-layer rows of the tables.

use std::num::NonZeroUsize;
use std::sync::Arc;

use aimodel::{Dim, Element};
use interpreter::{InterpretError, Observer, Outputs, Port, Rounding, Session, Tensor};
use progress::Progress;
use rayon::prelude::*;

use crate::feeding::{Feeding, chunk_lengths, chunks, fixed_lengths};
use crate::tables::{TableError, Tables};

/// Why a token cannot be fed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The package cannot be run.
    #[error(transparent)]
    Interpret(#[from] InterpretError),
    /// The tables cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The graph needs tables and none were given.
    #[error("the graph has the input {input:?}: give the gather_raw folder of this bundle")]
    NoTables {
        /// Name of the input.
        input: &'static str,
    },
    /// The package has no function that only fills the caches.
    #[error("the package has no function \"prefill\": feed prompts through main")]
    NoPrefill,
    /// The function `prefill` takes another number of tokens.
    #[error("the function \"prefill\" takes {takes} tokens at a time, not {width}")]
    OtherWidth {
        /// Tokens that it takes.
        takes: String,
        /// Most tokens of a chunk.
        width: NonZeroUsize,
    },
    /// The graph takes one token at a time.
    #[error("main takes one token at a time, not {width}: feed prompts one by one")]
    OneAtATime {
        /// Most tokens of a chunk.
        width: NonZeroUsize,
    },
    /// Positions exceed 31 bits.
    #[error("the sequence is too long")]
    TooLong,
}

/// Function that reads a prompt without computing logits.
const PREFILL: &str = "prefill";
/// Input of all graphs: the tokens.
const IDS: &str = "input_ids";
/// Input of all graphs: the positions of all tokens so far.
const POSITIONS: &str = "position_ids";
/// Input of the provider graph: the rows of one token.
const TOKEN_ROWS: &str = "ple_tokens";
/// Input of the tbl graph: the codes of all rows.
const TABLE: &str = "ple_table";
/// Input of the tbl graph: the scales of all rows.
const TABLE_SCALES: &str = "ple_scale";

/// A package in the middle of a sequence.
#[derive(Debug)]
pub struct Stepper {
    session: Session,
    tables: Option<Arc<Tables>>,
    /// Whether the graph takes each token's rows as an input.
    rows_given: bool,
    positions: usize,
    feeding: Feeding,
}

impl Stepper {
    /// Prepares a session; provider and tbl graphs need the tables.
    ///
    /// # Errors
    /// [`StepError::NoTables`] if the graph needs tables and there are none, [`StepError::Interpret`] if they have another shape.
    pub fn new(mut session: Session, tables: Option<Tables>) -> Result<Stepper, StepError> {
        let has = |name: &str| session.inputs().any(|port| port.name == name);
        let (rows_given, table_bound) = (has(TOKEN_ROWS), has(TABLE));
        if table_bound {
            let (codes, scales) = tables.as_ref().ok_or(StepError::NoTables { input: TABLE })?.inputs()?;
            session.bind(TABLE, codes)?;
            session.bind(TABLE_SCALES, scales)?;
        }
        if rows_given && tables.is_none() {
            return Err(StepError::NoTables { input: TOKEN_ROWS });
        }
        Ok(Stepper {
            session,
            tables: tables.map(Arc::new),
            rows_given,
            positions: 0,
            feeding: Feeding::default(),
        })
    }

    /// Another sequence of the same package, weights and tables, with empty states.
    ///
    /// # Errors
    /// If the states cannot be allocated.
    pub fn sibling(&self) -> Result<Stepper, StepError> {
        let (session, tables) = (self.session.sibling()?, self.tables.clone());
        Ok(Stepper { session, tables, positions: 0, ..*self })
    }

    /// Starts a new sequence with empty states.
    ///
    /// # Errors
    /// If the states cannot be allocated.
    pub fn reset(&mut self) -> Result<(), StepError> {
        self.positions = 0;
        Ok(self.session.reset()?)
    }

    /// Goes back to an earlier position of the sequence. What the states hold after it is not read, and is overwritten.
    pub fn rewind(&mut self, positions: usize) {
        self.positions = self.positions.min(positions);
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The session, to read or change its states.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// The tables, if there are any.
    pub fn tables(&self) -> Option<&Tables> {
        self.tables.as_deref()
    }

    /// Chooses how f16 results are rounded from the next token on.
    pub fn set_rounding(&mut self, rounding: Rounding) {
        self.session.set_rounding(rounding);
    }

    /// How prompts are fed: one by one by default.
    pub fn feeding(&self) -> Feeding {
        self.feeding
    }

    /// Chooses how prompts are fed.
    ///
    /// # Errors
    /// [`StepError::NoPrefill`], [`StepError::OtherWidth`] and [`StepError::OneAtATime`] if the package does not support it.
    pub fn set_feeding(&mut self, feeding: Feeding) -> Result<(), StepError> {
        let prefill = || self.session.inputs_of(PREFILL).map(tokens_of).ok_or(StepError::NoPrefill);
        match feeding {
            Feeding::Prefill(width) => {
                if let Dim::Fixed(tokens) = prefill()? {
                    return Err(StepError::OtherWidth { takes: tokens.to_string(), width });
                }
            }
            Feeding::Fixed(width) => {
                let takes = prefill()?;
                if takes != Dim::Fixed(width.get() as u64) {
                    let takes = takes.fixed().map_or("any number of".to_owned(), |tokens| tokens.to_string());
                    return Err(StepError::OtherWidth { takes, width });
                }
            }
            Feeding::Main(width) => {
                if !feeding.is_one_by_one() && tokens_of(self.session.inputs()) != Dim::Dynamic {
                    return Err(StepError::OneAtATime { width });
                }
            }
        }
        self.feeding = feeding;
        Ok(())
    }

    /// How the engine feeds prompts to this package: through `prefill` if there is one, otherwise through `main` if that takes any
    /// number of tokens, otherwise one by one. A function that takes any number gets chunks of at most `width` tokens.
    pub fn feeding_of_engine(&self, width: NonZeroUsize) -> Feeding {
        let fixed = |tokens: u64| NonZeroUsize::new(usize::try_from(tokens).ok()?);
        match (self.session.inputs_of(PREFILL).map(tokens_of), tokens_of(self.session.inputs())) {
            (Some(Dim::Dynamic), _) => Feeding::Prefill(width),
            (Some(Dim::Fixed(tokens)), _) => fixed(tokens).map_or(Feeding::ONE_BY_ONE, Feeding::Fixed),
            (None, Dim::Dynamic) => Feeding::Main(width),
            (None, Dim::Fixed(_)) => Feeding::ONE_BY_ONE,
        }
    }

    /// Number of tokens fed so far.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Feeds a prompt in the chosen way; returns the logits after its last token, f32 `[V]`, or `None` if it has no tokens.
    ///
    /// # Errors
    /// As [`Stepper::feed`].
    pub fn read_prompt(&mut self, tokens: &[u32]) -> Result<Option<Vec<f32>>, StepError> {
        self.session.reserve(self.positions + tokens.len())?;
        let mut rest = tokens;
        if let (Feeding::Prefill(width), [before @ .., _]) = (self.feeding, tokens) {
            for chunk in chunks(before, width) {
                self.prefill(chunk)?;
            }
            rest = &tokens[before.len()..];
        }
        let mut last = None;
        for length in self.lengths_with_logits(rest.len()) {
            let (chunk, left) = rest.split_at(length);
            last = Some(self.feed_chunk(chunk)?.logits(length - 1)?);
            rest = left;
        }
        Ok(last)
    }

    /// Lengths of the chunks in which [`Stepper::feed_chunk`] takes this many tokens in the chosen way.
    pub(crate) fn lengths_with_logits(&self, tokens: usize) -> Vec<usize> {
        match self.feeding {
            Feeding::Main(width) => chunk_lengths(tokens, width).collect(),
            Feeding::Fixed(width) => fixed_lengths(tokens, width).collect(),
            Feeding::Prefill(_) => chunk_lengths(tokens, NonZeroUsize::MIN).collect(),
        }
    }

    /// Feeds tokens to `prefill`; returns its outputs, if it has some besides the states.
    ///
    /// # Errors
    /// As [`Stepper::feed`], and if the package has no such function.
    pub fn prefill(&mut self, tokens: &[u32]) -> Result<Outputs, StepError> {
        let inputs = self.inputs(tokens)?;
        let outputs = self.session.call(PREFILL, &inputs)?;
        self.positions += tokens.len();
        Ok(outputs)
    }

    /// Feeds a token; returns the logits of the next one, f32 `[V]`.
    ///
    /// # Errors
    /// [`StepError`]; after a failed step, call [`Stepper::reset`].
    pub fn feed(&mut self, token: u32) -> Result<Vec<f32>, StepError> {
        self.feed_observed(token, &mut |_, _, _| {})
    }

    /// Like [`Stepper::feed`], and calls `observer` with every tensor that is computed.
    ///
    /// # Errors
    /// As [`Stepper::feed`].
    pub fn feed_observed(&mut self, token: u32, observer: Observer<'_>) -> Result<Vec<f32>, StepError> {
        Ok(self.feed_chunk_observed(&[token], observer)?.logits(0)?)
    }

    /// Feeds tokens together, to `main` or to a `prefill` that takes as many and returns logits; returns the outputs, which hold the
    /// logits after each of them.
    ///
    /// # Errors
    /// As [`Stepper::feed`], and if no function takes that many.
    pub fn feed_chunk(&mut self, tokens: &[u32]) -> Result<Outputs, StepError> {
        if matches!(self.feeding, Feeding::Fixed(width) if width.get() == tokens.len()) {
            return self.prefill(tokens);
        }
        self.feed_chunk_observed(tokens, &mut |_, _, _| {})
    }

    /// Feeds one token to each of the first sequences of one package, whose weights are then read once; returns the logits of each.
    /// Stops within the step if `progress` is cancelled.
    pub(crate) fn feed_together(
        sequences: &mut [Stepper],
        tokens: &[u32],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<f32>>, StepError> {
        let mut inputs = Vec::with_capacity(tokens.len());
        for (sequence, token) in sequences.iter_mut().zip(tokens) {
            inputs.push(sequence.inputs(&[*token])?);
        }
        let mut sessions: Vec<&mut Session> =
            sequences.iter_mut().zip(tokens).map(|(sequence, _)| &mut sequence.session).collect();
        let outputs = Session::step_together(&mut sessions, &inputs, progress)?;
        sequences.iter_mut().zip(tokens).for_each(|(sequence, _)| sequence.positions += 1);
        Ok(outputs.par_iter().map(|outputs| outputs.logits(0)).collect::<Result<_, _>>()?)
    }

    fn feed_chunk_observed(&mut self, tokens: &[u32], observer: Observer<'_>) -> Result<Outputs, StepError> {
        let inputs = self.inputs(tokens)?;
        let outputs = self.session.step_observed(&inputs, observer)?;
        self.positions += tokens.len();
        Ok(outputs)
    }

    /// Inputs of a call with the next tokens; makes room for them in the states.
    fn inputs(&mut self, tokens: &[u32]) -> Result<Vec<(&'static str, Tensor)>, StepError> {
        let length = self.positions + tokens.len();
        let length = i32::try_from(length).map_err(|_| StepError::TooLong)?;
        self.session.reserve(self.positions + tokens.len())?;
        let ids: Vec<i64> = tokens.iter().map(|token| i64::from(*token)).collect();
        let ramp: Vec<i64> = (0..i64::from(length)).collect();
        let integers = |name: &'static str, values: &[i64]| {
            Tensor::from_integers(Element::Si32, &[1, values.len()], values)
                .map(|tensor| (name, tensor))
                .map_err(|reason| InterpretError::Input { name: name.to_owned(), reason })
        };
        let mut inputs = vec![integers(IDS, &ids)?, integers(POSITIONS, &ramp)?];
        if let (true, Some(tables), [token]) = (self.rows_given, &self.tables, tokens) {
            inputs.push((TOKEN_ROWS, tables.input(*token)?));
        }
        Ok(inputs)
    }
}

/// Tokens that a function with these inputs takes at a time.
fn tokens_of<'p>(mut inputs: impl Iterator<Item = &'p Port>) -> Dim {
    let ids = inputs.find(|port| port.name == IDS);
    ids.and_then(|port| port.ty.shape.last().copied()).unwrap_or(Dim::Fixed(1))
}
