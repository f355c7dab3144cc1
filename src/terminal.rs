//! How wide the terminal is, and what stands out on it.
//!
//! Text is styled always and written through [`anstream`], which drops styles where nobody would see them (a pipe, `NO_COLOR`)
//! and keeps them where they are forced (`CLICOLOR_FORCE`).

use std::fmt;

use anstyle::{AnsiColor, Style};
use terminal_size::Width;

/// Narrowest text that is still wrapped.
const NARROWEST: usize = 40;

/// Titles and results.
pub(crate) const STRONG: Style = Style::new().bold();
/// What is only on the right, or good.
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
/// What is only on the left, or bad.
pub(crate) const RED: Style = AnsiColor::Red.on_default();
/// What is changed, or to be watched.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();

/// A text in a style.
pub(crate) fn paint(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// Columns of the terminal, or as many as `COLUMNS` says; a pipe has no end to its lines.
pub(crate) fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let found = || terminal_size::terminal_size().map(|(Width(width), _)| usize::from(width));
    asked.or_else(found).map_or(usize::MAX, |width: usize| width.max(NARROWEST))
}

/// A text of one line that starts in column `start`, broken between words so that it fits `width`; what follows is indented by
/// `indent`.
pub(crate) fn wrap(text: &str, start: usize, indent: usize, width: usize) -> String {
    let mut wrapped = String::with_capacity(text.len());
    let mut column = start;
    for word in text.split(' ') {
        let length = word.chars().count();
        if !wrapped.is_empty() {
            if column.saturating_add(1 + length) > width {
                wrapped.push('\n');
                wrapped.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else {
                wrapped.push(' ');
                column += 1;
            }
        }
        wrapped.push_str(word);
        column += length;
    }
    wrapped
}

/// A text of at most `width` characters: what is too much is taken from its middle.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let characters: Vec<char> = text.chars().collect();
    if characters.len() <= width || width < 3 {
        return text.to_owned();
    }
    let (front, back) = ((width - 1) / 2, width / 2);
    let (front, back) = (&characters[..front], &characters[characters.len() - back..]);
    front.iter().chain(&['…']).chain(back).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 0, 2, 8), "one two\n  three");
        assert_eq!(wrap("one two three", 2, 4, usize::MAX), "one two three");
        assert_eq!(wrap("unbreakable a", 0, 1, 5), "unbreakable\n a");
    }

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(shortened("layers.11.mlp.down_proj.weight", 11), "layer…eight");
        assert_eq!(shortened("short", 5), "short");
    }
}
