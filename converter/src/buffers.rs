//! Buffers that circulate between workers and the writer, so that a long run allocates only a few.

use std::sync::{Mutex, PoisonError};

/// Buffers that are not in use.
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

    /// Returns a buffer. One without capacity is dropped: keeping it would add one more buffer.
    pub(crate) fn give(&self, buffer: Vec<T>) {
        if buffer.capacity() == 0 {
            return;
        }
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::Pool;

    #[test]
    fn there_are_as_many_buffers_as_were_taken_at_once() {
        let pool = Pool::<u8>::new();
        for _ in 0..10 {
            let (first, second) = (pool.take(100), pool.take(50));
            pool.give(first);
            pool.give(Vec::new());
            pool.give(second);
        }
        assert_eq!(pool.free.into_inner().unwrap().len(), 2);
    }
}
