//! A server's answer: a status, headers, and a body to read.

use reqwest::Response;
use reqwest::header::HeaderMap;

/// Longest quotation of a server's message.
const MAX_WORDS: usize = 300;

/// A status, headers, and a body to read.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// What follows the headers.
    pub(crate) body: Response,
}

impl Answer {
    /// Value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// An `ETag` header without its quotes.
    pub(crate) fn etag(&self, name: &str) -> Option<&str> {
        Some(self.header(name)?.trim_start_matches("W/").trim_matches('"'))
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }

    /// Seconds until the limit of requests is reset, as the `RateLimit` header states them: `"api";r=0;t=55`.
    pub(crate) fn reset_after(&self) -> Option<u64> {
        let part = self.header("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="))?;
        part.parse().ok()
    }

    /// The address of the next page in a `Link` header: `<..>; rel="next"`.
    pub(crate) fn next_page(&self) -> Option<&str> {
        let link = self.header("link")?.split(',').find(|link| link.contains("rel=\"next\""))?;
        Some(link.split_once('<')?.1.split_once('>')?.0)
    }

    /// The first byte of a `Content-Range`, and the length of the whole file if it is stated.
    pub(crate) fn content_range(&self) -> Option<(u64, Option<u64>)> {
        let value = self.header("content-range")?.trim();
        let (range, length) = value.strip_prefix("bytes")?.trim().split_once('/')?;
        let first = range.split_once('-')?.0.trim().parse().ok()?;
        match length.trim() {
            "*" => Some((first, None)),
            length => Some((first, Some(length.parse().ok()?))),
        }
    }
}

/// A server's message, on one line and not too long.
pub(crate) fn quoted(text: &str) -> String {
    let mut line = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        for letter in (!line.is_empty()).then_some(' ').into_iter().chain(word.chars()) {
            if length == MAX_WORDS {
                return line + "...";
            }
            line.push(letter);
            length += 1;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::{MAX_WORDS, quoted};

    #[test]
    fn quotes_are_short_and_on_one_line() {
        assert_eq!(quoted(" a\n\tb  c "), "a b c");
        let long = quoted(&"x".repeat(1 << 20));
        assert_eq!(long.len(), MAX_WORDS + 3);
        assert_eq!(quoted(&"ß ".repeat(1 << 20)).chars().count(), MAX_WORDS + 3);
    }
}
