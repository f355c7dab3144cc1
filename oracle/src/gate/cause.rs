//! Faults that can be found by inspecting a bundle, without running it.

use std::fmt;

use serde::{Serialize, Serializer};
use text::terminal::word;

/// A fault and its location; displayed as one sentence.
#[derive(Clone, PartialEq, Debug)]
pub enum Cause {
    /// A matrix has the weights of another one.
    SwappedWeights {
        /// The matrix that they are used as.
        used_as: String,
        /// The matrix that they belong to.
        belongs_to: String,
    },
    /// A matrix is a multiple of the checkpoint's.
    WrongScale {
        /// The matrix.
        matrix: String,
        /// The multiple.
        factor: f64,
    },
    /// The two codes of each byte are swapped.
    SwappedNibbles {
        /// The matrix.
        matrix: String,
    },
    /// Rows of a table that are looked up are multiplied by other scales than their own.
    ForeignScales {
        /// The table.
        matrix: String,
    },
    /// A matrix does not resemble any matrix of the checkpoint.
    ForeignWeights {
        /// The matrix.
        matrix: String,
        /// Norm of the difference, relative to the checkpoint's matrix.
        relative_error: f64,
    },
    /// The graph multiplies by more or fewer matrices than the configuration requires.
    MatrixCount {
        /// Matrices in the graph.
        found: usize,
        /// Matrices of the decoder.
        expected: usize,
    },
    /// A row of the tables differs from the checkpoint's.
    ForeignTables {
        /// A token whose row differs.
        token: u32,
        /// Norm of the difference, relative to the checkpoint's row.
        relative_error: f64,
    },
    /// The sliding window has the wrong width.
    Window {
        /// Width of the graph's window in positions; `None` if no constant width was found.
        found: Option<i64>,
        /// Width of the configuration's window.
        expected: usize,
    },
    /// The rotary frequencies have the wrong base.
    RotaryBase {
        /// Base of the graph's frequencies, computed from the second one.
        found: f64,
        /// The configuration's bases, for sliding and for full layers.
        expected: [f64; 2],
    },
    /// A layer uses a cache slot other than its own.
    CacheSlot {
        /// The layer.
        layer: usize,
        /// `"writes"` or `"reads"`.
        does: &'static str,
        /// The slot in the graph; `None` if it is not a constant.
        found: Option<i64>,
        /// The layer's slot by the configuration.
        expected: usize,
    },
    /// A layer uses another cache than its own.
    CacheState {
        /// The layer.
        layer: usize,
        /// `"writes"` or `"reads"`.
        does: &'static str,
        /// Name of the state in the graph; empty if none was found.
        found: String,
        /// Name of the layer's state.
        expected: &'static str,
    },
    /// A layer whose values are its projected keys takes them from another place.
    Values {
        /// The layer.
        layer: usize,
        /// What it takes instead.
        found: ValueSource,
    },
    /// A layer with fewer KV heads than its cache does not repeat each for consecutive heads.
    HeadRepetition {
        /// The layer.
        layer: usize,
        /// Its KV heads.
        heads: usize,
        /// KV heads in the cache.
        cached: usize,
    },
    /// A query head reads another KV head than its own.
    HeadSharing {
        /// The layer.
        layer: usize,
        /// The query head.
        head: usize,
        /// The KV head that it reads.
        found: i64,
        /// The KV head that it should read.
        expected: usize,
    },
    /// The logits have no soft cap, or the wrong one.
    Softcap {
        /// The cap in the graph; `None` if it has none.
        found: Option<f64>,
        /// The cap by the configuration.
        expected: f64,
    },
}

/// What a layer takes as values instead of the key projection's result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueSource {
    /// Keys after their norm.
    NormedKeys,
    /// Keys after norm and rotation.
    RotatedKeys,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<i64>| value.map_or("not constant".to_owned(), |value| value.to_string());
        match self {
            Cause::SwappedWeights { used_as, belongs_to } => {
                write!(
                    f,
                    "the graph uses the weights of {belongs_to} as {used_as}: two weight blobs are swapped"
                )
            }
            Cause::WrongScale { matrix, factor } => {
                write!(f, "{matrix} is {factor:.2} times the checkpoint's: its scales are wrong")
            }
            Cause::SwappedNibbles { matrix } => {
                write!(f, "the two codes of each byte of {matrix} are exchanged: its nibbles are swapped")
            }
            Cause::ForeignScales { matrix } => {
                write!(f, "rows of {matrix} that are looked up are multiplied by the scales of other rows")
            }
            Cause::ForeignWeights { matrix, relative_error } => {
                write!(f, "{matrix} is not the checkpoint's (relative error {relative_error:.2})")
            }
            Cause::MatrixCount { found, expected } => {
                write!(f, "the graph multiplies by {found} weight matrices, but the decoder has {expected}")
            }
            Cause::ForeignTables { token, relative_error } => write!(
                f,
                "the tables' row of token {token} is not the checkpoint's (relative error {relative_error:.2}): \
                 the tables are of another checkpoint"
            ),
            Cause::Window { found, expected } => write!(
                f,
                "the width of the sliding window is {}, but config.json says {expected}",
                shown(found)
            ),
            Cause::RotaryBase { found, expected } => write!(
                f,
                "the rotary frequencies have base {found:.0}, but config.json says {:.0} and {:.0}",
                expected[0], expected[1]
            ),
            Cause::CacheSlot { layer, does, found, expected } => write!(
                f,
                "the cache slot that layer {layer} {does} is {}, but should be {expected}",
                shown(found)
            ),
            Cause::CacheState { layer, does, found, expected } => {
                let found = if found.is_empty() { "unknown" } else { found.as_str() };
                write!(f, "the cache that layer {layer} {does} is {}, but should be {expected}", word(found))
            }
            Cause::Values { layer, found } => {
                let found = match found {
                    ValueSource::NormedKeys => "after their norm",
                    ValueSource::RotatedKeys => "after their norm and rotation",
                };
                write!(
                    f,
                    "layer {layer} takes its values from the keys {found}, but should take them before both"
                )
            }
            Cause::HeadRepetition { layer, heads, cached } => write!(
                f,
                "layer {layer} has {heads} KV heads and its cache {cached}, but each is not repeated {} times in a row",
                cached / heads
            ),
            Cause::HeadSharing { layer, head, found, expected } => {
                write!(
                    f,
                    "query head {head} of layer {layer} reads KV head {found}, but should read {expected}"
                )
            }
            Cause::Softcap { found: Some(found), expected } => {
                write!(f, "the logits' soft cap is {found}, but config.json says {expected}")
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
