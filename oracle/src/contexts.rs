//! Finds positions of several sequences that have the same context.

use std::collections::HashMap;

/// The distinct contexts of sequences, numbered from 0 in order of appearance.
///
/// A position's context is all tokens up to it: positions with the same context have the same logits, so only the first of them
/// is compared.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    /// Number of a context by the number plus 1 of the context before its last token (0 if there is none), and that token.
    numbers: HashMap<(usize, u32), usize>,
}

impl Contexts {
    /// Adds a sequence; returns the number of the context at each position. New contexts have larger numbers than earlier ones.
    pub(crate) fn add(&mut self, ids: impl IntoIterator<Item = u32>) -> Vec<usize> {
        let mut before = 0;
        let mut path = Vec::new();
        for id in ids {
            let next = self.numbers.len();
            let number = *self.numbers.entry((before, id)).or_insert(next);
            path.push(number);
            before = number + 1;
        }
        path
    }

    /// Adds a sequence; returns how many of its leading positions have a context of an earlier sequence.
    pub(crate) fn repeated(&mut self, ids: impl IntoIterator<Item = u32>) -> usize {
        let known = self.numbers.len();
        self.add(ids).iter().take_while(|number| **number < known).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_beginnings_count_as_repeated_and_shared_ends_do_not() {
        let mut contexts = Contexts::default();
        assert_eq!(contexts.repeated([2, 7, 8, 9]), 0);
        assert_eq!(contexts.repeated([2, 7, 8]), 3);
        assert_eq!(contexts.repeated([2, 8, 9]), 1);
        assert_eq!(contexts.repeated([7, 8, 9]), 0);
        assert_eq!(contexts.repeated([]), 0);
        assert_eq!(contexts.add([2, 8, 9, 9]), [0, 4, 5, 9]);
    }
}
