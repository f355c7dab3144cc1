//! A conversation on a terminal. Questions are lines, which can be edited; earlier ones come back with the arrow keys.

use std::io::{self, BufRead, Read, Write};

use anyhow::Context;
use coreai_bundle::chat::{Answer, Chat, TooLong};
use coreai_bundle::parts::oracle::generate::End;
use coreai_bundle::parts::text::small;
use coreai_bundle::parts::text::terminal::word;
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor};

use super::command::{Command, HELP};
use crate::{failure, interrupt, terminal};

/// What precedes a line that is typed.
const PROMPT: &str = "> ";

/// Talks until the end of standard input, or `/quit`.
pub(super) fn hold(chat: &mut Chat<'_>) -> anyhow::Result<()> {
    interrupt::listen_in_conversation()?;
    terminal::tell("/help lists the commands, Ctrl-D ends the conversation");
    let mut questions = Questions::open()?;
    while let Some(line) = questions.next()? {
        match Command::of(&line) {
            Command::Nothing => {}
            Command::Quit => return Ok(()),
            Command::Help => terminal::reply(HELP),
            Command::Unknown(name) => {
                terminal::reply(format_args!("there is no command {}; there are:\n{HELP}", word(name)));
            }
            Command::Reset => {
                chat.reset();
                terminal::tell("a new conversation begins");
            }
            Command::System(text) => {
                chat.set_system(text.map(str::to_owned));
                terminal::tell(match text {
                    Some(_) => "a new conversation begins, with these instructions",
                    None => "a new conversation begins, without instructions",
                });
            }
            Command::Stats => terminal::reply(statistics(chat)),
            Command::Say(text) => show(&mut |asked, show| chat.say(text, asked, show))?,
            Command::Tool { name: "", .. } | Command::Tool { result: "", .. } => {
                terminal::reply("/tool NAME JSON: the name of the tool and its result are both needed");
            }
            Command::Tool { name, result } => match serde_json::from_str(result) {
                Ok(result) => show(&mut |asked, show| chat.give_result(name, &result, asked, show))?,
                Err(error) => terminal::reply(format_args!(
                    "/tool NAME JSON: the result of {} is not JSON: {error}",
                    word(name)
                )),
            },
        }
    }
    terminal::tell("");
    Ok(())
}

/// Where questions come from.
enum Questions {
    /// A terminal.
    Edited(Box<Editor<(), MemHistory>>),
    /// A terminal whose output goes elsewhere, where an editor would write.
    Plain,
}

impl Questions {
    fn open() -> anyhow::Result<Self> {
        if !terminal::is_interactive() {
            return Ok(Questions::Plain);
        }
        let config = Config::builder().auto_add_history(true).build();
        let history = MemHistory::with_config(&config);
        let editor = Editor::with_history(config, history).context("cannot use the terminal")?;
        Ok(Questions::Edited(Box::new(editor)))
    }

    /// The next line; `None` at the end of standard input.
    fn next(&mut self) -> anyhow::Result<Option<String>> {
        let Questions::Edited(editor) = self else { return ask() };
        match editor.readline(PROMPT) {
            Ok(line) if line.len() as u64 > small::TEXT => {
                terminal::tell(format_args!("the message has more than {} bytes", small::TEXT));
                Ok(Some(String::new()))
            }
            Ok(line) => Ok(Some(line)),
            Err(ReadlineError::Eof) => Ok(None),
            Err(ReadlineError::Interrupted) => interrupt::end(),
            Err(error) => Err(error).context("cannot read from the terminal"),
        }
    }
}

/// The next line of standard input; `None` at its end.
fn ask() -> anyhow::Result<Option<String>> {
    let mut line = Vec::new();
    let mut bounded = io::stdin().lock().take(small::TEXT);
    let read = interrupt::while_waiting(|| {
        // Not a line, so it has to be flushed. It is lost if standard error is closed.
        let mut err = terminal::err();
        let _ = write!(err, "{PROMPT}").and_then(|()| err.flush());
        drop(err);
        bounded.read_until(b'\n', &mut line)
    });
    read.context("cannot read standard input")?;
    if line.is_empty() {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// Answers: takes whether to stop, and what gets the pieces.
type Answering<'a> = dyn FnMut(&dyn Fn() -> bool, &mut dyn FnMut(&str)) -> anyhow::Result<Answer> + 'a;

/// Shows an answer while it is written. Only a failure to show it ends the conversation.
fn show(answer: &mut Answering<'_>) -> anyhow::Result<()> {
    interrupt::forget();
    let mut shown = super::Shown::default();
    let answered = answer(&interrupt::asked, &mut |piece| shown.piece(piece));
    shown.end()?;
    match answered {
        Ok(answer) if answer.was_cut_off_at_once() => terminal::tell("interrupted; the message is forgotten"),
        Ok(answer) => {
            if let Some(note) = note(answer.generated.stop_reason) {
                terminal::tell(note);
            }
            if !answer.calls.is_empty() {
                terminal::tell("the model waits for results: /tool NAME JSON");
            }
        }
        Err(error) => {
            failure::report(&error);
            if error.is::<TooLong>() {
                terminal::tell("  hint: /reset starts again, and a shorter message may fit");
            }
        }
    }
    Ok(())
}

/// What is said about an answer that did not end on its own.
fn note(end: End) -> Option<&'static str> {
    match end {
        End::StopToken | End::StopText => None,
        End::Tokens => Some("(cut off by -n)"),
        End::Context => Some("(cut off: the bundle's context is full; /reset starts again)"),
        End::Interrupted => Some("(interrupted)"),
    }
}

fn statistics(chat: &Chat<'_>) -> String {
    let found = chat.statistics();
    let rate = |tokens: usize, seconds: f64| if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
    let context = found.context.map_or(String::new(), |context| format!(" of {context}"));
    format!(
        "{}{context} tokens in the context; {} read, {:.1} tokens/s; {} written, {:.1} tokens/s",
        found.held,
        found.read,
        rate(found.read, found.read_seconds),
        found.written,
        rate(found.written, found.written_seconds)
    )
}
