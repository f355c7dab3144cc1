//! What can be found wrong with a bundle by looking at it.

use std::fmt;

use serde::{Serialize, Serializer};

/// A finding: one sentence, and where.
#[derive(Clone, PartialEq, Debug)]
pub enum Cause {
    /// A matrix holds another one's weights.
    SwappedWeights {
        /// Where they are used.
        used_as: String,
        /// Whose they are.
        belongs_to: String,
    },
    /// A matrix is a multiple of what it should be.
    WrongScale {
        /// The matrix.
        matrix: String,
        /// By what it is too large.
        factor: f64,
    },
    /// The two codes of each byte have changed places.
    SwappedNibbles {
        /// The matrix.
        matrix: String,
    },
    /// A matrix resembles nothing in the checkpoint.
    ForeignWeights {
        /// The matrix.
        matrix: String,
        /// Norm of the difference, as a share of the matrix's.
        relative_error: f64,
    },
    /// The graph does not multiply by the matrices that the configuration calls for.
    MatrixCount {
        /// Matrices in the graph.
        found: usize,
        /// Matrices of the decoder.
        expected: usize,
    },
    /// A row of the tables is not the checkpoint's.
    ForeignTables {
        /// A token whose row differs.
        token: u32,
        /// Norm of the difference, as a share of the row's.
        relative_error: f64,
    },
    /// The sliding window has another width.
    Window {
        /// Positions that the graph lets a layer see; `None` if it has no window.
        found: Option<i64>,
        /// Positions by the configuration.
        expected: usize,
    },
    /// Rotary frequencies are of another base.
    RotaryBase {
        /// Base of the graph's frequencies, by the second one.
        found: f64,
        /// Bases by the configuration, of sliding and of full layers.
        expected: [f64; 2],
    },
    /// A layer uses another slot of the cache than its own.
    CacheSlot {
        /// The layer.
        layer: usize,
        /// `"writes"` or `"reads"`.
        does: &'static str,
        /// The slot in the graph.
        found: Option<i64>,
        /// The slot by the configuration.
        expected: usize,
    },
    /// The logits are not bounded, or by another number.
    Softcap {
        /// The bound in the graph.
        found: Option<f64>,
        /// The bound by the configuration.
        expected: f64,
    },
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |value: &Option<i64>| value.map_or("none that is constant".to_owned(), |value| value.to_string());
        match self {
            Cause::SwappedWeights { used_as, belongs_to } => {
                write!(
                    f,
                    "the graph uses as {used_as} the weights of {belongs_to}: two weight blobs are swapped"
                )
            }
            Cause::WrongScale { matrix, factor } => {
                write!(f, "{matrix} is {factor:.2} times the checkpoint's: its scales are wrong")
            }
            Cause::SwappedNibbles { matrix } => {
                write!(f, "{matrix} has its neighboring codes exchanged: its nibbles are swapped")
            }
            Cause::ForeignWeights { matrix, relative_error } => {
                write!(f, "{matrix} is not the checkpoint's (relative error {relative_error:.2})")
            }
            Cause::MatrixCount { found, expected } => {
                write!(f, "the graph multiplies by {found} weight matrices, the decoder has {expected}")
            }
            Cause::ForeignTables { token, relative_error } => write!(
                f,
                "the tables' row of token {token} is not the checkpoint's (relative error {relative_error:.2}): \
                 the tables are of another checkpoint"
            ),
            Cause::Window { found, expected } => {
                write!(f, "the sliding window is {} positions, config.json says {expected}", shown(found))
            }
            Cause::RotaryBase { found, expected } => write!(
                f,
                "rotary frequencies have the base {found:.0}, config.json says {:.0} and {:.0}",
                expected[0], expected[1]
            ),
            Cause::CacheSlot { layer, does, found, expected } => {
                write!(f, "layer {layer} {does} cache slot {}, its slot is {expected}", shown(found))
            }
            Cause::Softcap { found: Some(found), expected } => {
                write!(f, "the logits' soft cap is {found}, config.json says {expected}")
            }
            Cause::Softcap { found: None, expected } => {
                write!(f, "the logits' soft cap of {expected} is missing")
            }
        }
    }
}

impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
