//! Weights as numbers. Nothing else in the workspace knows how a source stores them.

use half::bf16;

use super::{Source, SourceError, TensorEntry};

/// Bytes of the checkpoint that some weights take.
pub const fn bytes_of(weights: u64) -> u64 {
    weights * size_of::<bf16>() as u64
}

impl TensorEntry {
    /// Number of weights.
    pub fn weights(&self) -> u64 {
        self.byte_len() / bytes_of(1)
    }
}

impl dyn Source + '_ {
    /// Fills `out` with a tensor's weights from number `start` on, which must be BF16 as
    /// [`Checkpoint`](crate::Checkpoint) demands.
    ///
    /// # Errors
    /// As [`read_at`](Source::read_at).
    pub fn read_weights(
        &self,
        tensor: &TensorEntry,
        start: u64,
        out: &mut [bf16],
    ) -> Result<(), SourceError> {
        self.read_at(tensor, bytes_of(start), bytemuck::cast_slice_mut(out))
    }
}
