//! The only way to standard output and standard error. Texts are full of untrusted names, so whatever is written here
//! comes out without control characters, except for line ends, tabs, and the styles of [`paint`](super::paint).

use coreai_bundle::parts::text;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::sync::LazyLock;

use anstyle::Style;

use super::PALETTE;

/// What precedes a style on its way here: an escape and 64 random bits, so that no name can contain it.
static KEY: LazyLock<String> = LazyLock::new(|| format!("\u{1b}{:016x}", RandomState::new().hash_one(0)));
/// What follows the key where a style ends.
const END: char = 'e';

/// A text in a style, in the form that doors understand.
pub(super) fn styled(style: Style, text: impl std::fmt::Display) -> String {
    match PALETTE.iter().zip('0'..).find(|(known, _)| **known == style) {
        Some((_, digit)) => format!("{key}{digit}{text}{key}{END}", key = *KEY),
        None => text.to_string(),
    }
}

/// A writer that passes text through and makes everything else visible.
pub(crate) struct Door<W: Write> {
    sink: W,
    escape: fn(&str) -> std::borrow::Cow<'_, str>,
    /// The line that is being written.
    pending: Vec<u8>,
}

impl<W: Write> Door<W> {
    /// A door for messages and tables.
    pub(super) fn new(sink: W) -> Self {
        Door { sink, escape: text::terminal::lines, pending: Vec::new() }
    }

    /// A door for what a model wrote, which may be in any script.
    pub(super) fn for_prose(sink: W) -> Self {
        Door { sink, escape: text::terminal::prose, pending: Vec::new() }
    }

    /// Lets the first `length` pending bytes through.
    fn pass(&mut self, length: usize) -> io::Result<()> {
        let bytes: Vec<u8> = self.pending.drain(..length).collect();
        let mut clean = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            self.push(chunk.valid(), &mut clean);
            chunk.invalid().iter().for_each(|byte| clean.push_str(&format!("\\x{byte:02x}")));
        }
        self.sink.write_all(clean.as_bytes())
    }

    fn push(&self, text: &str, clean: &mut String) {
        let mut parts = text.split(KEY.as_str());
        clean.push_str(&(self.escape)(parts.next().unwrap_or_default()));
        for part in parts {
            let mut characters = part.chars();
            match characters.next() {
                Some(END) => clean.push_str(&Style::new().bold().render_reset().to_string()),
                digit => {
                    let style = digit.and_then(|digit| PALETTE.get(digit.to_digit(10)? as usize));
                    clean.push_str(&style.copied().unwrap_or_default().render().to_string());
                }
            }
            clean.push_str(&(self.escape)(characters.as_str()));
        }
    }
}

impl<W: Write> Write for Door<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let before = self.pending.len();
        self.pending.extend_from_slice(bytes);
        if let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') {
            self.pass(before + end + 1)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass(self.pending.len())?;
        self.sink.flush()
    }
}

impl<W: Write> Drop for Door<W> {
    fn drop(&mut self) {
        // Errors are reported when flushing.
        let _ = self.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{RED, paint};
    use super::*;

    fn through(pieces: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        let mut door = Door::new(&mut bytes);
        pieces.iter().for_each(|piece| door.write_all(piece).unwrap());
        drop(door);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn only_our_own_styles_reach_the_terminal() {
        let name = "\x1b[31mred\x1b[0m\r\u{9b}2J\u{202e}";
        let shown = r"\x1b[31mred\x1b[0m\x0d\u{9b}2J\u{202e}";
        let shown = shown.replace("\\x0d", "\\r");
        assert_eq!(through(&[name.as_bytes()]), shown);
        assert_eq!(through(&[paint(RED, name).as_bytes()]), format!("\x1b[31m{shown}\x1b[0m"));
    }

    #[test]
    fn pieces_of_characters_and_bad_bytes_are_text() {
        assert_eq!(through(&[&[0xc3], &[0xa9, b'\n'], &[0xff, b'\t']]), "é\n\\xff\t");
        let painted = paint(RED, "x");
        let (front, back) = painted.split_at(5);
        assert_eq!(through(&[front.as_bytes(), back.as_bytes()]), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn prose_passes_through_unchanged() {
        let mut bytes = Vec::new();
        let mut door = Door::for_prose(&mut bytes);
        door.write_all("می\u{200c}خواهم\n👩\u{200d}👧 \x1b]0;t\x07".as_bytes()).unwrap();
        door.flush().unwrap();
        drop(door);
        assert_eq!(String::from_utf8(bytes).unwrap(), "می\u{200c}خواهم\n👩\u{200d}👧 \\x1b]0;t\\x07");
    }
}
