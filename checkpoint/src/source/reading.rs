//! Tells a source how far a tensor is read, so that its pages are dropped from memory along the way.

use super::{Source, TensorEntry};

/// Bytes between two hints: each costs a system call.
const STEP: u64 = 32 << 20;

/// A tensor that is read front to back, and not again.
pub struct Reading<'s> {
    source: &'s dyn Source,
    tensor: &'s TensorEntry,
    /// Bytes that were read, and how many of them the source was told about.
    read: u64,
    told: u64,
}

impl<'s> Reading<'s> {
    /// Starts at the first byte.
    pub fn new(source: &'s dyn Source, tensor: &'s TensorEntry) -> Self {
        Reading { source, tensor, read: 0, told: 0 }
    }

    /// This many more bytes were read.
    pub fn advance(&mut self, bytes: u64) {
        self.read += bytes;
        if self.read - self.told >= STEP || self.read == self.tensor.byte_len() {
            self.source.done_reading(self.tensor, self.told..self.read);
            self.told = self.read;
        }
    }
}
