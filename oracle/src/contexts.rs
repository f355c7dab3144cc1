//! Which positions of several sequences have the same context.

use std::collections::HashMap;

/// The distinct contexts of sequences, numbered from 0 in order of appearance.
///
/// A position's context is everything the model has read up to it: positions with the same context have the same logits, so that
/// only the first of them says anything.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    /// By the number of the context before a token plus 1 (0: none), and the token.
    numbers: HashMap<(usize, u32), usize>,
}

impl Contexts {
    /// Adds a sequence; gives the number of the context at each position. New ones are larger than all before.
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

    /// Adds a sequence; gives how many of its leading positions have a context that an earlier sequence had.
    pub(crate) fn repeated(&mut self, ids: impl IntoIterator<Item = u32>) -> usize {
        let known = self.numbers.len();
        self.add(ids).iter().take_while(|number| **number < known).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_beginnings_are_repeated_and_shared_ends_are_not() {
        let mut contexts = Contexts::default();
        assert_eq!(contexts.repeated([2, 7, 8, 9]), 0);
        assert_eq!(contexts.repeated([2, 7, 8]), 3);
        assert_eq!(contexts.repeated([2, 8, 9]), 1);
        assert_eq!(contexts.repeated([7, 8, 9]), 0);
        assert_eq!(contexts.repeated([]), 0);
        assert_eq!(contexts.add([2, 8, 9, 9]), [0, 4, 5, 9]);
    }
}
