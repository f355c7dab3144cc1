//! What can be typed in a conversation.

/// Help for the commands.
pub(super) const HELP: &str = "\
/reset           start again, with the same instructions
/system TEXT     start again with these instructions; without a text, with none
/tool NAME JSON  give the result of a tool that the model called
/stats           tokens in the context, and how fast they were read and written
/help            this list
/quit            end the conversation, as Ctrl-D does
Ctrl-C ends an answer; at the prompt, it ends the program. A line that begins with a space is never a command.";

/// A line, understood.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Command<'l> {
    /// Nothing was typed.
    Nothing,
    /// A message for the model.
    Say(&'l str),
    Reset,
    System(Option<&'l str>),
    Tool {
        name: &'l str,
        result: &'l str,
    },
    Stats,
    Help,
    Quit,
    Unknown(&'l str),
}

impl<'l> Command<'l> {
    pub(super) fn of(line: &'l str) -> Self {
        let line = line.trim_end_matches(['\n', '\r']);
        if line.trim().is_empty() {
            return Command::Nothing;
        }
        if !line.starts_with('/') {
            return Command::Say(line.trim());
        }
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim();
        match name {
            "/reset" => Command::Reset,
            "/system" => Command::System(Some(rest).filter(|text| !text.is_empty())),
            "/tool" => {
                let (name, result) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                Command::Tool { name, result: result.trim() }
            }
            "/stats" => Command::Stats,
            "/help" => Command::Help,
            "/quit" => Command::Quit,
            _ => Command::Unknown(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_messages_unless_they_begin_with_a_slash() {
        for (line, expected) in [
            ("", Command::Nothing),
            ("  \r\n", Command::Nothing),
            ("Days?\n", Command::Say("Days?")),
            (" /reset", Command::Say("/reset")),
            ("/reset\n", Command::Reset),
            ("/system  Be short. \n", Command::System(Some("Be short."))),
            ("/system", Command::System(None)),
            (
                "/tool weather {\"days\": [1, 2]}",
                Command::Tool { name: "weather", result: "{\"days\": [1, 2]}" },
            ),
            ("/tool", Command::Tool { name: "", result: "" }),
            ("/stats", Command::Stats),
            ("/help me", Command::Help),
            ("/quit", Command::Quit),
            ("/exit now", Command::Unknown("/exit")),
        ] {
            assert_eq!(Command::of(line), expected, "{line:?}");
        }
    }
}
