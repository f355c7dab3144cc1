//! The token: a secret with an origin.

use std::fmt;

/// A token, and where it came from. Neither its `Debug` nor any error shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    secret: String,
    origin: String,
}

impl Token {
    /// A token as read from somewhere; nothing if there is nothing but white space.
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

    /// A text, should it quote the token, without it.
    pub(crate) fn removed_from(&self, text: &str) -> String {
        text.replace(&self.secret, "***")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(from {})", self.origin)
    }
}
