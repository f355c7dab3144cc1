//! The token: a secret with an origin.

use std::fmt;

/// A token, and where it came from. Neither its `Debug` nor any error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    origin: String,
}

impl Token {
    /// A token as read from somewhere; nothing if there is only white space.
    pub fn new(text: &str, origin: impl Into<String>) -> Option<Self> {
        // Line breaks within come from copying, as the Hub's own client knows too.
        let secret: String = text.chars().filter(|letter| !matches!(letter, '\r' | '\n')).collect();
        let secret = secret.trim().to_owned();
        (!secret.is_empty()).then(|| Token { secret, origin: origin.into() })
    }

    /// Name of the variable or file it was found in, for messages.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The secret, for libraries that make the header themselves.
    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// Value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.secret)
    }

    /// Whether bytes hold the token.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        /// Anything shorter is not a secret, and may be part of a word.
        const SHORTEST: usize = 8;
        let secret = self.secret.as_bytes();
        secret.len() >= SHORTEST && bytes.windows(secret.len()).any(|window| window == secret)
    }

    /// Bytes that a server sent, without the token if they quote it.
    pub(crate) fn removed_from(&self, bytes: Vec<u8>) -> Vec<u8> {
        let secret = self.secret.as_bytes();
        if !self.is_in(&bytes) {
            return bytes;
        }
        let (mut kept, mut rest) = (Vec::with_capacity(bytes.len()), bytes.as_slice());
        while let Some((first, tail)) = rest.split_first() {
            match rest.strip_prefix(secret) {
                Some(after) => {
                    kept.extend(b"***");
                    rest = after;
                }
                None => {
                    kept.push(*first);
                    rest = tail;
                }
            }
        }
        kept
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.origin)
    }
}
