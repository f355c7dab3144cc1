//! What people see: the writers of standard output and standard error, the width of the terminal, and styles.
//!
//! Text is always styled and written through [`anstream`], which drops styles where they would not be seen (a pipe, `NO_COLOR`)
//! and keeps them where they are forced (`CLICOLOR_FORCE`).

mod door;

use coreai_bundle::parts::text;
use std::fmt;
use std::io::{self, IsTerminal, StderrLock, StdoutLock, Write};
use std::sync::OnceLock;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use coreai_bundle::parts::text::terminal::word;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use terminal_size::Width;

use self::door::Door;

/// Narrowest text that is still wrapped.
const NARROWEST: usize = 40;

/// Longest line that is not wrapped, in characters: no more than a window holds.
const LONGEST_LINE: usize = 4000;

/// Titles and results.
pub(crate) const STRONG: Style = Style::new().bold();
/// What is only on the right, or good.
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
/// What is only on the left, or bad.
pub(crate) const RED: Style = AnsiColor::Red.on_default();
/// What is changed, or needs attention.
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();

/// All styles.
const PALETTE: [Style; 4] = [STRONG, GREEN, RED, YELLOW];

/// A text in a style, for [`out`] and [`err`].
pub(crate) fn paint(style: Style, text: impl fmt::Display) -> String {
    door::styled(style, text)
}

/// Standard output.
#[expect(clippy::disallowed_methods, reason = "this is the only place that may")]
pub(crate) fn out() -> Door<AutoStream<StdoutLock<'static>>> {
    Door::new(anstream::stdout().lock())
}

/// Standard output for what a model wrote.
#[expect(clippy::disallowed_methods, reason = "this is the only place that may")]
pub(crate) fn prose() -> Door<AutoStream<StdoutLock<'static>>> {
    Door::for_prose(anstream::stdout().lock())
}

/// Standard error.
#[expect(clippy::disallowed_methods, reason = "this is the only place that may")]
pub(crate) fn err() -> Door<AutoStream<StderrLock<'static>>> {
    Door::new(anstream::stderr().lock())
}

/// What is printed, and how.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Printing {
    /// Results, progress and errors as JSON.
    pub(crate) json: bool,
    /// No messages and no bars.
    pub(crate) quiet: bool,
    /// What is done in between, too.
    pub(crate) verbose: bool,
}

static PRINTING: OnceLock<Printing> = OnceLock::new();

/// Sets what is printed from here on; once.
pub(crate) fn configure(printing: Printing) {
    // There is one command in a process.
    let _ = PRINTING.set(printing);
}

fn printing() -> Printing {
    PRINTING.get().copied().unwrap_or_default()
}

/// Whether results are printed as JSON.
pub(crate) fn is_json() -> bool {
    printing().json
}

/// Whether results are shown on a terminal.
#[expect(clippy::disallowed_methods, reason = "nothing is written")]
pub(crate) fn is_interactive() -> bool {
    io::stdout().is_terminal()
}

/// Whether only results and errors are wanted.
pub(crate) fn is_quiet() -> bool {
    printing().quiet
}

/// Prints a message on standard error, unless messages are not wanted. No run may fail because its messages cannot be written.
pub(crate) fn tell(line: impl fmt::Display) {
    if !printing().quiet {
        write_message(&line.to_string());
    }
}

/// Prints what somebody asked for in a conversation.
pub(crate) fn reply(line: impl fmt::Display) {
    write_message(&line.to_string());
}

/// Prints what only some want to know.
pub(crate) fn tell_more(line: impl fmt::Display) {
    if printing().verbose {
        write_message(&line.to_string());
    }
}

/// The word that a message begins with says what kind it is.
fn write_message(message: &str) {
    if is_json() {
        return tell_json_error(&serde_json::json!({"event": "message", "message": message}));
    }
    let mut message = message.to_owned();
    for (word, style) in
        [("error:", RED.bold()), ("warning:", YELLOW.bold()), ("note:", STRONG), ("hint:", STRONG)]
    {
        if let Some(rest) = message.strip_prefix(word) {
            message = format!("{}{rest}", paint(style, word));
            break;
        }
    }
    let _ = writeln!(err(), "{message}");
}

/// Prints an error on standard error, at most 8 kB of it. Lines after the first are indented, so that a line end within a name
/// cannot begin what looks like another message.
pub(crate) fn tell_error(message: &str) {
    write_message(&whole(message));
}

fn whole(message: &str) -> String {
    let message = text::bounds::cut(message.trim_end(), text::bounds::LONGEST_MESSAGE);
    let mut lines = message.lines();
    let mut whole = lines.next().unwrap_or_default().to_owned();
    for line in lines {
        let indent = if line.is_empty() || line.starts_with("  ") { "" } else { "  " };
        whole.push_str(&format!("\n{indent}{line}"));
    }
    whole
}

/// Prints a value as one line of JSON on standard output.
pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_string(value)?;
    writeln!(out(), "{}", text::terminal::json(&json))
}

/// Prints an event as one line of JSON on standard error.
pub(crate) fn tell_json(event: &serde_json::Value) {
    if !is_quiet() {
        tell_json_error(event);
    }
}

/// Prints an error as one line of JSON on standard error, also if messages are not wanted.
pub(crate) fn tell_json_error(event: &serde_json::Value) {
    let _ = writeln!(err(), "{}", text::terminal::json(&event.to_string()));
}

/// A progress bar on standard error; hidden where that is not a terminal.
#[expect(clippy::disallowed_methods, reason = "this is the only place that may")]
pub(crate) fn bar(template: &str) -> ProgressBar {
    let is_drawn = io::stderr().is_terminal() && !printing().quiet;
    let target = if is_drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(None, target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// Shows a name beside a bar.
#[expect(clippy::disallowed_methods, reason = "this is the only place that may")]
pub(crate) fn name_bar(bar: &ProgressBar, name: &str) {
    bar.set_message(word(name).to_string());
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
    let text = shortened(text, LONGEST_LINE);
    let mut wrapped = String::with_capacity(text.len());
    let mut column = start;
    for word in text.split(' ') {
        let length = word.chars().count();
        if !wrapped.is_empty() {
            if column.saturating_add(1 + length) > width {
                wrapped.truncate(wrapped.trim_end_matches(' ').len());
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

/// A text on one line of at most `width` characters: a longer text loses its middle.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let visible = text::terminal::line(text);
    text::bounds::shortened(&visible, width).into_owned()
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

    #[test]
    fn errors_are_indented_and_bounded() {
        assert_eq!(whole("error: a\n  caused by: b\nerror: c\n"), "error: a\n  caused by: b\n  error: c");
        let long = whole(&"x".repeat(300_000));
        assert!(long.len() < text::bounds::LONGEST_MESSAGE + 100 && long.ends_with("(291,808 more bytes)"));
    }

    #[test]
    fn untrusted_lines_stay_one_line() {
        assert_eq!(wrap("a\nb\x1b c", 0, 2, 80), r"a\nb\x1b c");
        assert_eq!(shortened("a\tb", 10), r"a\tb");
        assert_eq!(wrap(&"x".repeat(100_000), 0, 0, 80).chars().count(), LONGEST_LINE);
    }
}
