//! Untrusted text in YAML and Markdown: one scalar, one run of plain text, one code span, one link target, and nothing else.

use std::fmt::{Display, Write as _};

use crate::bounds::{LONGEST_WORD, shortened};
use crate::terminal::{is_hidden, push_visible, word};

/// A YAML scalar, always a string: plain where that is unambiguous, else in double quotes.
///
/// ```
/// assert_eq!(text::markup::yaml("apache-2.0"), "apache-2.0");
/// assert_eq!(text::markup::yaml("a: b\n---"), r#""a: b\n---""#);
/// ```
pub fn yaml(text: &str) -> String {
    if is_plain_yaml(text) { text.to_owned() } else { quoted_yaml(text) }
}

/// A YAML scalar in double quotes.
pub fn quoted_yaml(text: &str) -> String {
    let mut scalar = String::from('"');
    for c in text.chars() {
        // Writing to a String cannot fail.
        let _ = match c {
            '"' | '\\' => write!(scalar, "\\{c}"),
            '\n' => write!(scalar, "\\n"),
            c if is_hidden(c) || !is_printable_yaml(c) => match u32::from(c) {
                code @ ..=0xffff => write!(scalar, "\\u{code:04x}"),
                code => write!(scalar, "\\U{code:08x}"),
            },
            c => write!(scalar, "{c}"),
        };
    }
    scalar.push('"');
    scalar
}

/// Letters first, so that it is not a number or date, and none of the words that are something else.
fn is_plain_yaml(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/-".contains(c);
    let other = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(plain)
        && !other.contains(&text.to_ascii_lowercase().as_str())
}

/// Whether YAML allows a character unescaped.
fn is_printable_yaml(c: char) -> bool {
    !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Plain text within a line, a heading, a list item or a table cell: nothing in it is markup.
pub fn inline(text: &str) -> String {
    let shown = shortened(text, LONGEST_WORD);
    let characters: Vec<char> = shown.chars().collect();
    let is_word =
        |at: Option<usize>| at.and_then(|at| characters.get(at)).is_some_and(char::is_ascii_alphanumeric);
    let mut escaped = String::with_capacity(shown.len());
    for (at, c) in characters.iter().copied().enumerate() {
        let is_between_words = is_word(at.checked_sub(1)) && is_word(Some(at + 1));
        let is_first = characters[..at].iter().all(|c| *c == ' ');
        let ends_number = characters[..at].iter().all(|c| c.is_ascii_digit() || *c == ' ')
            && characters.get(at + 1).is_none_or(|next| *next == ' ' || is_hidden(*next));
        let is_markup = match c {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '&' | '|' | '~' | '#' | '$' => true,
            // Links that need no brackets.
            '@' => true,
            ':' => characters.get(at + 1) == Some(&'/'),
            '.' => ends_number || ends_in_www(&characters[..at]),
            '_' => !is_between_words,
            ')' => ends_number,
            '-' | '+' | '=' => is_first,
            _ => false,
        };
        if is_hidden(c) {
            // Its own backslash is text, too.
            escaped.push('\\');
            push_visible(&mut escaped, c);
        } else {
            if is_markup {
                escaped.push('\\');
            }
            escaped.push(c);
        }
    }
    // Spaces at the ends would be taken for indentation or a line break.
    escaped.trim().to_owned()
}

fn ends_in_www(before: &[char]) -> bool {
    before.len() >= 3 && before[before.len() - 3..].iter().all(|c| c.eq_ignore_ascii_case(&'w'))
}

/// A code span, also within a table cell.
pub fn code(text: &str) -> String {
    let shown = word(text).to_string().replace('|', "\\|");
    let fence = "`".repeat(longest_run(&shown) + 1);
    // A space on each side is not part of the span, and keeps backticks apart from the fence.
    let space = if shown.starts_with(['`', ' ']) || shown.ends_with(['`', ' ']) || shown.is_empty() {
        " "
    } else {
        ""
    };
    format!("{fence}{space}{shown}{space}{fence}")
}

/// Backticks in a row, at most.
fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// Part of a link's target: everything but letters, digits and `-._~/` is percent-encoded.
pub fn target(text: impl Display) -> String {
    let mut target = String::new();
    for byte in text.to_string().bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                target.push(byte.into());
            }
            // Writing to a String cannot fail.
            _ => {
                let _ = write!(target, "%{byte:02X}");
            }
        }
    }
    target
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_without_markup_is_unchanged() {
        for text in [
            "coreai-bundle 0.1.0",
            "gemma4_e4b_qat",
            "int4: 5 of 7 (70 %), all!",
            "a/b",
            "(a)",
            "1.39 MB",
            "1-2",
        ] {
            assert_eq!(inline(text), text);
        }
        assert_eq!(code("gpu-pipelined/a_b"), "`gpu-pipelined/a_b`");
        assert_eq!(target("google/gemma-4"), "google/gemma-4");
    }

    #[test]
    fn markup_becomes_text() {
        assert_eq!(inline("[x](http://y) | <b>&amp;"), r"\[x\](http\://y) \| \<b\>\&amp;");
        assert_eq!(inline("a\n# b"), r"a\\n\# b");
        assert_eq!(inline("- _x_"), r"\- \_x\_");
        assert_eq!(inline("1. x"), r"1\. x");
        assert_eq!(inline("2) x"), r"2\) x");
        assert_eq!(inline("www.x.org"), r"www\.x.org");
        assert_eq!(code("a`b``c|"), r"```a`b``c\|```");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(target(") [x](y"), "%29%20%5Bx%5D%28y");
    }

    #[test]
    fn scalars_that_yaml_would_take_for_something_else_are_quoted() {
        for text in
            ["", "no", "Null", "1.0", "2026-01-01", "a b", "- a", "{a}", "!x", "é", "a:", "#", "'", "%"]
        {
            assert_eq!(yaml(text), format!("\"{text}\""), "{text}");
        }
        assert_eq!(yaml("a\"\\\u{1b}\u{202e}\u{e0001}"), r#""a\"\\\u001b\u202e\U000e0001""#);
    }
}
