//! A text as windows that overlap, in which every token is predicted once.

use output::Digest;

/// Why a text cannot be cut into windows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum WindowError {
    /// Nothing is predicted.
    #[error("the text has {}, and at least two are needed: give a longer one", text::counted(*.0, "token"))]
    Short(usize),
    /// A window without tokens, or one that leaves some out.
    #[error("a window of {window} tokens and a stride of {stride}: the stride must be from 1 to the window")]
    Shape {
        /// Tokens of a window.
        window: usize,
        /// From window to window.
        stride: usize,
    },
}

/// How long windows are, and how far apart they begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WindowShape {
    /// Tokens that a window feeds.
    pub window: usize,
    /// Tokens from the beginning of a window to that of the next one.
    pub stride: usize,
}

/// A text as windows.
///
/// Position `i` of the text is the prediction of token `i + 1` from the tokens before it in its window. A window covers positions
/// `k * stride` up to `k * stride + window`; those that the window before it covers are context only. The first token of each
/// window is replaced by the begin token, if the tokenizer has one, because these models expect it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Windows {
    tokens: Vec<u32>,
    begin: Option<u32>,
    shape: WindowShape,
}

/// One window.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Window {
    /// The tokens to feed.
    pub tokens: Vec<u32>,
    /// Tokens of context: positions of the window before this one are not scored.
    pub context: usize,
    /// Number of the first scored position in the text.
    pub first: usize,
    /// The token after each scored position.
    pub targets: Vec<u32>,
}

impl Windows {
    /// Cuts a text, which begins with `begin` if that is given.
    ///
    /// # Errors
    /// [`WindowError`] says what is wrong with the text or the shape.
    pub fn new(tokens: Vec<u32>, begin: Option<u32>, shape: WindowShape) -> Result<Windows, WindowError> {
        let WindowShape { window, stride } = shape;
        if stride == 0 || stride > window {
            return Err(WindowError::Shape { window, stride });
        }
        if tokens.len() < 2 {
            return Err(WindowError::Short(tokens.len()));
        }
        Ok(Windows { tokens, begin, shape })
    }

    /// Number of scored positions: one fewer than tokens.
    pub fn positions(&self) -> usize {
        self.tokens.len() - 1
    }

    /// The text's tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The token that every window begins with.
    pub fn begin(&self) -> Option<u32> {
        self.begin
    }

    /// How the text is cut.
    pub fn shape(&self) -> WindowShape {
        self.shape
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        let WindowShape { window, stride } = self.shape;
        1 + self.positions().saturating_sub(window).div_ceil(stride)
    }

    /// Never: a text has at least one window.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The windows, in order. Only the last one can be shorter than the others.
    pub fn iter(&self) -> impl Iterator<Item = Window> {
        (0..self.len()).map(|number| self.window(number))
    }

    fn window(&self, number: usize) -> Window {
        let WindowShape { window, stride } = self.shape;
        let start = number * stride;
        let end = start.saturating_add(window).min(self.positions());
        let context = if number == 0 { 0 } else { window - stride };
        let mut tokens = self.tokens[start..end].to_vec();
        if let (Some(begin), Some(first)) = (self.begin, tokens.first_mut()) {
            *first = begin;
        }
        let first = start + context;
        Window { tokens, context, first, targets: self.tokens[first + 1..=end].to_vec() }
    }

    /// Digest of the tokens, as little-endian numbers of 32 bits.
    pub fn digest(&self) -> Digest {
        let bytes: Vec<u8> = self.tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
        Digest::of_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_token_is_predicted_once(
            length in 2_usize..400, window in 1_usize..200, stride in 1_usize..200, begins in any::<bool>(),
        ) {
            let shape = WindowShape { window, stride: stride.min(window) };
            let tokens: Vec<u32> = (100..100 + length as u32).collect();
            let begin = begins.then_some(2);
            let windows = Windows::new(tokens.clone(), begin, shape).unwrap();
            let mut predicted = Vec::new();
            prop_assert_eq!(windows.iter().count(), windows.len());
            for (number, cut) in windows.iter().enumerate() {
                prop_assert_eq!(cut.first, predicted.len());
                prop_assert_eq!(cut.tokens.len(), cut.context + cut.targets.len());
                prop_assert!(cut.tokens.len() <= window && !cut.targets.is_empty());
                prop_assert!(number + 1 == windows.len() || cut.tokens.len() == window);
                let start = cut.first - cut.context;
                prop_assert_eq!(cut.tokens[0], begin.unwrap_or(tokens[start]));
                prop_assert_eq!(&cut.tokens[1..], &tokens[start + 1..start + cut.tokens.len()]);
                predicted.extend(cut.targets);
            }
            prop_assert_eq!(predicted.len(), windows.positions());
            prop_assert_eq!(predicted, tokens[1..].to_vec());
        }
    }

    #[test]
    fn what_predicts_nothing_is_refused() {
        let shape = |window, stride| WindowShape { window, stride };
        assert_eq!(Windows::new(vec![2], None, shape(4, 4)), Err(WindowError::Short(1)));
        for (window, stride) in [(0, 0), (4, 0), (4, 5)] {
            let refused = Windows::new(vec![2, 3], None, shape(window, stride));
            assert_eq!(refused, Err(WindowError::Shape { window, stride }));
        }
    }
}
