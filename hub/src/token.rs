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

    /// Value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.secret)
    }

    /// Whether bytes hold the token.
    pub(crate) fn is_in(&self, bytes: &[u8]) -> bool {
        self.find(bytes).is_some()
    }

    /// Where bytes hold the token.
    fn find(&self, bytes: &[u8]) -> Option<usize> {
        /// Anything shorter is not a secret, and may be part of a word.
        const SHORTEST: usize = 8;
        let secret = self.secret.as_bytes();
        if secret.len() < SHORTEST {
            return None;
        }
        bytes.windows(secret.len()).position(|window| window == secret)
    }

    /// Bytes that a server sent, without the token if they quote it.
    pub(crate) fn removed_from(&self, bytes: &[u8]) -> Vec<u8> {
        let (mut kept, mut rest) = (Vec::with_capacity(bytes.len()), bytes);
        while let Some(at) = self.find(rest) {
            kept.extend(&rest[..at]);
            kept.extend(b"***");
            rest = &rest[at + self.secret.len()..];
        }
        kept.extend(rest);
        kept
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.origin)
    }
}
