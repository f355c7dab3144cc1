//! Buffers that go round between workers and the writer, so that a long run allocates a few.

use std::sync::{Mutex, PoisonError};

/// Buffers that nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Pool<T> {
    free: Mutex<Vec<Vec<T>>>,
}

impl<T: Clone + Default> Pool<T> {
    pub(crate) fn new() -> Self {
        Pool { free: Mutex::new(Vec::new()) }
    }

    /// A buffer with this many elements, of any value.
    pub(crate) fn take(&self, length: usize) -> Vec<T> {
        let mut buffer = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.resize(length, T::default());
        buffer
    }

    /// Gives a buffer back.
    pub(crate) fn give(&self, buffer: Vec<T>) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}
