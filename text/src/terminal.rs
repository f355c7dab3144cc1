//! Untrusted text on a terminal: every character that controls the terminal, is invisible, or reorders the text around it becomes a visible escape.

use std::borrow::Cow;
use std::fmt::{self, Display, Write as _};

use crate::bounds::{self, LONGEST_WORD};

/// Whether a character is invisible, or does something other than being shown. Spaces are harmless; newlines and tabs are not.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || reorders(c)
        || matches!(c,
        // Soft hyphen, combining grapheme joiner, fillers, Mongolian and Khmer vowel marks that are never drawn.
        '\u{ad}' | '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        // Zero-width spaces and joiners, line separators, invisible operators.
        | '\u{200b}'..='\u{200d}' | '\u{2028}'..='\u{2029}' | '\u{2060}'..='\u{206f}'
        // Fillers, the byte-order mark, annotations, shorthand and musical controls.
        | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        // Tags and variation selectors that can smuggle whole texts.
        | '\u{e0000}'..='\u{e0fff}')
}

/// Marks, embeddings, overrides and isolates of the bidirectional algorithm.
fn reorders(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line: a name, a path, a value. Longer than 200 characters, it loses its middle.
///
/// ```
/// assert_eq!(text::terminal::word("a\u{1b}[31m\nb").to_string(), r"a\x1b[31m\nb");
/// ```
pub fn word(text: &str) -> Word<'_> {
    Word(bounds::shortened(text, LONGEST_WORD))
}

/// See [`word`].
#[derive(Clone, Debug)]
pub struct Word<'a>(Cow<'a, str>);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // `pad` honors a width, so that columns stay aligned.
        f.pad(&line(&self.0))
    }
}

/// One line, of any length.
pub fn line(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// Several lines: messages and tables. Newlines and tabs stay.
pub fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_hidden(c) && !matches!(c, '\n' | '\t'))
}

/// What a model wrote. Newlines and tabs stay, and the joiners that emoji and several scripts are written with.
pub fn prose(text: &str) -> Cow<'_, str> {
    escaped(text, |c| {
        is_hidden(c)
            && !matches!(c, '\n' | '\t' | '\u{ad}' | '\u{34f}' | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}')
    })
}

/// JSON that was serialized already: hidden characters occur in strings only, and become `\uXXXX` there.
pub fn json(text: &str) -> Cow<'_, str> {
    replaced(text, is_hidden, |escaped, c| {
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{unit:04x}");
        }
    })
}

/// Writes the visible form of one character.
pub(crate) fn push_visible(text: &mut String, c: char) {
    let _ = match c {
        '\n' => write!(text, "\\n"),
        '\r' => write!(text, "\\r"),
        '\t' => write!(text, "\\t"),
        '\0'..='\x7f' => write!(text, "\\x{:02x}", u32::from(c)),
        _ => write!(text, "\\u{{{:x}}}", u32::from(c)),
    };
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    replaced(text, is_escaped, push_visible)
}

/// A text with some characters escaped.
pub(crate) fn replaced(
    text: &str,
    is_replaced: impl Fn(char) -> bool,
    push: impl Fn(&mut String, char),
) -> Cow<'_, str> {
    let Some(first) = text.find(&is_replaced) else { return Cow::Borrowed(text) };
    let (clean, rest) = text.split_at(first);
    let mut whole = clean.to_owned();
    for c in rest.chars() {
        if is_replaced(c) { push(&mut whole, c) } else { whole.push(c) }
    }
    Cow::Owned(whole)
}
