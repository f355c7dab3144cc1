//! A text that grows token by token: what can still change is held back.

use super::Limits;
use crate::text::{Text, TextError};

/// The text so far.
pub(super) struct Stream<'s> {
    text: &'s Text,
    limits: &'s Limits<'s>,
    ids: Vec<u32>,
    shown: String,
}

impl<'s> Stream<'s> {
    pub(super) fn new(text: &'s Text, limits: &'s Limits<'s>) -> Self {
        Stream { text, limits, ids: Vec::new(), shown: String::new() }
    }

    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Adds a token; returns whether the text now has a stop text.
    pub(super) fn push(&mut self, token: u32, show: &mut dyn FnMut(&str)) -> Result<bool, TextError> {
        self.ids.push(token);
        // Bytes in a row are decoded together, so one more can change all of them.
        if self.text.is_byte(token) {
            return Ok(false);
        }
        let decoded = self.decoded()?;
        if decoded.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(false);
        }
        if self.stop_in(&decoded).is_some() {
            return Ok(true);
        }
        let certain = decoded.len() - held_back(&decoded, self.limits.stops);
        self.show(&decoded[..certain], show);
        Ok(false)
    }

    /// Shows the rest; returns the tokens and the whole text.
    pub(super) fn finish(mut self, show: &mut dyn FnMut(&str)) -> Result<(Vec<u32>, String), TextError> {
        let mut decoded = self.decoded()?;
        if let Some(at) = self.stop_in(&decoded) {
            decoded.truncate(at);
        }
        self.show(&decoded, show);
        Ok((self.ids, decoded))
    }

    fn decoded(&self) -> Result<String, TextError> {
        if self.limits.special { self.text.decode_all(&self.ids) } else { self.text.decode(&self.ids) }
    }

    /// Where the first stop text begins.
    fn stop_in(&self, decoded: &str) -> Option<usize> {
        self.limits.stops.iter().filter_map(|stop| decoded.find(stop.as_str())).min()
    }

    fn show(&mut self, decoded: &str, show: &mut dyn FnMut(&str)) {
        if let Some(new) = decoded.strip_prefix(&self.shown).filter(|new| !new.is_empty()) {
            show(new);
            self.shown.push_str(new);
        }
    }
}

/// Bytes at the end of a text with which one of the stop texts may have begun.
fn held_back(decoded: &str, stops: &[String]) -> usize {
    let of_one = |stop: &String| {
        let starts = stop.char_indices().map(|(at, _)| at).filter(|at| decoded.ends_with(&stop[..*at]));
        starts.max().unwrap_or(0)
    };
    stops.iter().map(of_one).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_stop_text_is_held_back() {
        let stops = ["END".to_owned(), "é!".to_owned()];
        for (text, held) in [("abc", 0), ("abE", 1), ("abEN", 2), ("abENx", 0), ("é", 2), ("", 0)] {
            assert_eq!(held_back(text, &stops), held, "{text}");
        }
        assert_eq!(held_back("aa", &["aab".to_owned()]), 2);
    }

    /// A tokenizer as Gemma's: what its vocabulary does not hold is written in single bytes.
    const WITH_BYTES: &str = r#"{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": true, "ignore_merges": false, "merges": [],
            "vocab": {"a": 0, "\u2581b": 1, "<0xE2>": 2, "<0x82>": 3, "<0xAC>": 4, "<0x21>": 5}}}"#;

    /// What is shown after each token, and at the end.
    fn pieces(ids: &[u32], stops: &[String]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), WITH_BYTES).unwrap();
        let text = Text::open(dir.path()).unwrap();
        let limits = Limits { stops, ..Limits::tokens(ids.len()) };
        let mut stream = Stream::new(&text, &limits);
        let mut pieces = Vec::new();
        for id in ids {
            let mut piece = String::new();
            let stopped = stream.push(*id, &mut |new| piece.push_str(new)).unwrap();
            pieces.push(piece);
            if stopped {
                break;
            }
        }
        let mut rest = String::new();
        let (_, whole) = stream.finish(&mut |new| rest.push_str(new)).unwrap();
        assert_eq!(pieces.concat() + &rest, whole);
        pieces.push(rest);
        pieces
    }

    #[test]
    fn characters_of_several_bytes_are_shown_when_they_are_whole() {
        assert_eq!(pieces(&[0, 2, 3, 4, 1], &[]), ["a", "", "", "", "\u{20ac} b", ""]);
        assert_eq!(pieces(&[0, 2, 3, 4], &[]), ["a", "", "", "", "\u{20ac}"]);
        // A character that never becomes whole, and a stop text that ends within bytes.
        assert_eq!(pieces(&[0, 2, 3, 1], &[]), ["a", "", "", "\u{fffd}\u{fffd} b", ""]);
        assert_eq!(pieces(&[0, 2, 3, 4, 1, 0], &["\u{20ac} b".to_owned()]), ["a", "", "", "", "", ""]);
    }
}
