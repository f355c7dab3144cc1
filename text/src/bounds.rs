//! How much of untrusted text is shown.

use std::borrow::Cow;
use std::fmt::{self, Display};

use crate::terminal::word;

/// Characters of one name or value.
pub const LONGEST_WORD: usize = 200;
/// Items of a list.
pub const LONGEST_LIST: usize = 20;
/// Bytes of a whole error message.
pub const LONGEST_MESSAGE: usize = 8 << 10;
/// Extents of a shape.
const LONGEST_SHAPE: usize = 8;

/// A text of at most `most` characters: a longer text loses its middle.
pub fn shortened(text: &str, most: usize) -> Cow<'_, str> {
    // A text has at least as many bytes as characters, so nothing has to be counted in nearly all cases.
    if text.len() <= most || most < 3 || text.chars().count() <= most {
        return Cow::Borrowed(text);
    }
    let (front, back) = ((most - 1) / 2, most / 2);
    let start = text.char_indices().nth(front).map_or(text.len(), |(at, _)| at);
    let end = text.char_indices().rev().nth(back - 1).map_or(0, |(at, _)| at);
    Cow::Owned(format!("{}…{}", &text[..start], &text[end..]))
}

/// The beginning of a message of at most `most` bytes, and how much is missing.
pub fn cut(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    Cow::Owned(format!("{}…\n({} more bytes)", &text[..end], grouped(text.len() - end)))
}

/// A list of names: the first 20 of them, and how many more there are.
///
/// ```
/// assert_eq!(text::bounds::list(&["a", "b"]).to_string(), "a, b");
/// ```
pub fn list<T: AsRef<str>>(items: &[T]) -> List<'_, T> {
    List(items)
}

/// See [`list`].
#[derive(Clone, Copy, Debug)]
pub struct List<'a, T>(&'a [T]);

impl<T: AsRef<str>> Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, item) in self.0.iter().take(LONGEST_LIST).enumerate() {
            write!(f, "{}{}", if at == 0 { "" } else { ", " }, word(item.as_ref()))?;
        }
        match self.0.len().saturating_sub(LONGEST_LIST) {
            0 => Ok(()),
            more => write!(f, " and {} more", grouped(more)),
        }
    }
}

/// The extents of a shape, the middle ones left out where there are more than any real tensor has.
pub fn extents<T: Display>(shape: &[T], separator: &str) -> String {
    let joined = |part: &[T]| part.iter().map(T::to_string).collect::<Vec<_>>().join(separator);
    if shape.len() <= LONGEST_SHAPE {
        return joined(shape);
    }
    let half = LONGEST_SHAPE / 2;
    let (front, back) = (&shape[..half], &shape[shape.len() - half..]);
    let omitted = grouped(shape.len() - LONGEST_SHAPE);
    format!("{}{separator}({omitted} more){separator}{}", joined(front), joined(back))
}

/// A count with a comma every three digits.
fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_lose_their_middle() {
        assert_eq!(shortened("layers.11.mlp.down_proj.weight", 11), "layer…eight");
        assert_eq!(shortened("ääääää", 5), "ää…ää");
        assert_eq!(shortened("short", 5), "short");
    }

    #[test]
    fn long_messages_lose_their_end() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("aäbc", 2), "a…\n(4 more bytes)");
    }

    #[test]
    fn long_lists_and_shapes_are_shortened() {
        let names: Vec<String> = (0..100_000).map(|at| format!("t{at}")).collect();
        assert!(list(&names).to_string().ends_with("t18, t19 and 99,980 more"));
        assert_eq!(list(&["a\n", "b"]).to_string(), r"a\n, b");
        assert_eq!(extents(&[2, 3], ", "), "2, 3");
        assert_eq!(extents(&[1; 10_000], "x"), "1x1x1x1x(9,992 more)x1x1x1x1");
    }
}
