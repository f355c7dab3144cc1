//! Feeds tokens to a package one at a time, as the engine does: ids and positions from here, per-layer rows from the tables.

use aimodel::{Element, OpId};

use crate::interpreter::{InterpretError, Outputs, Rounding, Session, Tensor};
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
    /// The graph takes its rows from tables and none were given.
    #[error("the graph has the input {input:?}: give the gather_raw folder of this bundle")]
    NoTables {
        /// Name of the input.
        input: &'static str,
    },
    /// More positions than 31 bits count.
    #[error("the sequence is too long")]
    TooLong,
}

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
    tables: Option<Tables>,
    /// Whether the graph takes each token's rows as an input.
    rows_given: bool,
    positions: usize,
}

impl Stepper {
    /// Prepares a session; the tables are needed by provider and tbl graphs.
    ///
    /// # Errors
    /// [`StepError::NoTables`] if the graph needs tables and there are none; an input of another shape than the tables'.
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
        Ok(Stepper { session, tables, rows_given, positions: 0 })
    }

    /// Forgets the sequence.
    ///
    /// # Errors
    /// If the states cannot be made.
    pub fn reset(&mut self) -> Result<(), StepError> {
        self.positions = 0;
        Ok(self.session.reset()?)
    }

    /// The session.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The tables, if there are any.
    pub fn tables(&self) -> Option<&Tables> {
        self.tables.as_ref()
    }

    /// Chooses how f16 results are rounded from the next token on.
    pub fn set_rounding(&mut self, rounding: Rounding) {
        self.session.set_rounding(rounding);
    }

    /// Number of tokens fed so far.
    pub fn positions(&self) -> usize {
        self.positions
    }

    /// Feeds a token; gives the logits of the next one, f32 `[V]`.
    ///
    /// # Errors
    /// [`StepError`]; after one of a step, [`Stepper::reset`] is needed.
    pub fn feed(&mut self, token: u32) -> Result<Vec<f32>, StepError> {
        self.feed_observed(token, &mut |_, _, _| {})
    }

    /// [`Stepper::feed`], showing every tensor that is computed.
    ///
    /// # Errors
    /// As [`Stepper::feed`].
    pub fn feed_observed(
        &mut self,
        token: u32,
        observer: &mut dyn FnMut(OpId, usize, &Tensor),
    ) -> Result<Vec<f32>, StepError> {
        let inputs = self.inputs(token)?;
        let named: Vec<(&str, Tensor)> =
            inputs.iter().map(|(name, tensor)| (*name, tensor.clone())).collect();
        self.session.reserve(self.positions + 1)?;
        let outputs: Outputs = self.session.step_observed(&named, observer)?;
        self.positions += 1;
        Ok(outputs.logits()?)
    }

    fn inputs(&self, token: u32) -> Result<Vec<(&'static str, Tensor)>, StepError> {
        let last = i32::try_from(self.positions).map_err(|_| StepError::TooLong)?;
        let ramp: Vec<i64> = (0..=i64::from(last)).collect();
        let integers = |name: &'static str, shape: &[usize], values: &[i64]| {
            Tensor::from_integers(Element::Si32, shape, values)
                .map(|tensor| (name, tensor))
                .map_err(|reason| InterpretError::Input { name: name.to_owned(), reason })
        };
        let mut inputs = vec![
            integers("input_ids", &[1, 1], &[token.into()])?,
            integers("position_ids", &[1, ramp.len()], &ramp)?,
        ];
        if let (true, Some(tables)) = (self.rows_given, &self.tables) {
            inputs.push((TOKEN_ROWS, tables.input(token)?));
        }
        Ok(inputs)
    }
}
