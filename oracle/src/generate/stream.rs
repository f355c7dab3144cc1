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
}
