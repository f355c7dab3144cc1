//! Ways to feed a prompt, and how it is split into chunks.

use std::iter::repeat_n;
use std::num::NonZeroUsize;

use serde::Serialize;

/// How the tokens of a prompt are fed. All tokens after it go through `main`, one at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Feeding {
    /// Through `main`, in chunks of at most this many tokens. Chunks of more than one token require a `main` that takes any
    /// number of tokens, and memory for the logits of all of them.
    Main(NonZeroUsize),
    /// Through the function `prefill`, in chunks of at most this many tokens, except for the last token, which goes through
    /// `main`. This is what the engine does with a package that has the function.
    Prefill(NonZeroUsize),
    /// Through a function `prefill` that takes exactly this many tokens and returns the logits of all of them; the tokens that
    /// are left over go through `main`, one by one. This is what the community's engine does with a package that has the function.
    Fixed(NonZeroUsize),
}

impl Feeding {
    /// Token by token through `main`, which every package supports.
    pub const ONE_BY_ONE: Feeding = Feeding::Main(NonZeroUsize::MIN);

    pub(crate) fn is_one_by_one(&self) -> bool {
        *self == Feeding::ONE_BY_ONE
    }
}

impl Default for Feeding {
    fn default() -> Self {
        Feeding::ONE_BY_ONE
    }
}

/// Lengths of the chunks that the engine splits tokens into: as few as `width` allows, with lengths that differ by at most 1.
pub fn chunk_lengths(tokens: usize, width: NonZeroUsize) -> impl Iterator<Item = usize> {
    let chunks = tokens.div_ceil(width.get());
    (0..chunks).map(move |at| tokens / chunks + usize::from(at < tokens % chunks))
}

/// Lengths of the chunks of a function that takes exactly `width` tokens: as many as there are, then chunks of one token.
pub(crate) fn fixed_lengths(tokens: usize, width: NonZeroUsize) -> impl Iterator<Item = usize> {
    let (chunks, rest) = (tokens / width, tokens % width);
    repeat_n(width.get(), chunks).chain(repeat_n(1, rest))
}

/// The chunks that the engine splits tokens into: see [`chunk_lengths`].
pub fn chunks(tokens: &[u32], width: NonZeroUsize) -> impl Iterator<Item = &[u32]> {
    let mut rest = tokens;
    chunk_lengths(tokens.len(), width).map(move |length| {
        let (chunk, left) = rest.split_at(length);
        rest = left;
        chunk
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_are_balanced_and_hold_every_token(tokens in 0_usize..5000, width in 1_usize..600) {
            let width = NonZeroUsize::new(width).unwrap();
            let lengths: Vec<usize> = chunk_lengths(tokens, width).collect();
            prop_assert_eq!(lengths.iter().sum::<usize>(), tokens);
            prop_assert_eq!(lengths.len(), tokens.div_ceil(width.get()));
            let (least, most) = (lengths.iter().min(), lengths.iter().max());
            if let (Some(least), Some(most)) = (least, most) {
                prop_assert!(*least > 0 && *most <= width.get() && most - least <= 1);
            }
            let ids: Vec<u32> = (0..tokens as u32).collect();
            let cut: Vec<&[u32]> = chunks(&ids, width).collect();
            prop_assert!(cut.iter().map(|chunk| chunk.len()).eq(lengths));
            prop_assert_eq!(cut.concat(), ids);
            let fixed: Vec<usize> = fixed_lengths(tokens, width).collect();
            prop_assert_eq!(fixed.iter().sum::<usize>(), tokens);
            prop_assert_eq!(fixed.len(), tokens / width + tokens % width);
            prop_assert!(fixed.iter().all(|length| *length == width.get() || *length == 1));
        }
    }
}
