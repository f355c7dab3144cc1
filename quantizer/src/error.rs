//! Why weights cannot be quantized.

/// Why weights cannot be quantized. Elements are counted from the start of the slice that was given; [`shifted`] turns that
/// into a position in the tensor.
///
/// [`shifted`]: QuantizeError::shifted
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum QuantizeError {
    /// A weight is NaN or infinite: the checkpoint is damaged.
    #[error("element {element} is NaN or infinite; the checkpoint is damaged, fetch it again")]
    NotFinite {
        /// Position of the weight.
        element: usize,
    },
    /// A weight, or the scale of its block, rounds to infinity in f16, in which the graph computes.
    #[error("element {element} is too large for f16, in which the graph computes (largest number: 65504)")]
    Overflow {
        /// Position of the weight; the block's extremum where the scale overflows.
        element: usize,
    },
    /// The lengths of the buffers do not match.
    #[error(
        "{weights} weights, which must be whole blocks of 32, do not match {codes} bytes of codes and {scales} scales"
    )]
    Length {
        /// Number of weights given.
        weights: usize,
        /// Length of the buffer of codes, or of f16 numbers.
        codes: usize,
        /// Length of the buffer of scales.
        scales: usize,
    },
}

impl QuantizeError {
    /// The same error for a slice that starts at element `start` of something larger.
    #[must_use]
    pub fn shifted(self, start: usize) -> Self {
        match self {
            QuantizeError::NotFinite { element } => QuantizeError::NotFinite { element: element + start },
            QuantizeError::Overflow { element } => QuantizeError::Overflow { element: element + start },
            QuantizeError::Length { .. } => self,
        }
    }
}
