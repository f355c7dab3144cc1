//! `coreai-bundle run`: a bundle answers, on this machine's processor.

mod command;
mod conversation;

use std::io::{self, IsTerminal, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use coreai_bundle::chat::{Answer, Chat, ChatOptions};
use coreai_bundle::parts::oracle::generate::End;
use coreai_bundle::parts::oracle::sampling::Sampling;
use coreai_bundle::parts::text::small;
use serde_json::{Value, json};

use crate::runnable::RunnableArguments;
use crate::{template, terminal};

/// Talk with a bundle: it answers with the exact bytes that a device gets
///
/// On a terminal, this is a conversation. A prompt from --prompt or from a pipe is answered once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle run out/gemma4_e4b_qat_decode_int4lin
  coreai-bundle run out/gemma4_e4b_qat_decode_int4lin --prompt \"Why is the sky blue?\"
  coreai-bundle run out/gemma4_e4b_qat_decode_int4lin < question.txt
  coreai-bundle run out/gemma4_e4b_qat_decode_int4lin --raw --prompt \"Count up: 1, 2, 3,\" -n 8")]
pub(crate) struct Arguments {
    #[command(flatten)]
    runnable: RunnableArguments,
    /// What the user says [default: standard input without its last line end, unless it is a terminal]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Instructions for the model, before the prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Tools that the model may call: a JSON list of definitions, for the chat template
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    tools: Option<PathBuf>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    raw: bool,
    /// Maximum number of tokens of an answer
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    tokens: usize,
    /// Text that ends an answer and is not printed; may be repeated
    #[arg(long, value_name = "TEXT", value_parser = stop_text)]
    stop: Vec<String>,
    /// Draw tokens at this temperature, from 0 to 100; 0 always takes the most probable one
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    temperature: f64,
    /// Draw from this many of the most probable tokens
    #[arg(long, value_name = "N", requires = "temperature")]
    top_k: Option<NonZeroUsize>,
    /// Draw from the fewest tokens that together have this probability, at most 1
    #[arg(
        long,
        value_name = "X",
        default_value_t = 1.0,
        requires = "temperature",
        allow_negative_numbers = true
    )]
    top_p: f64,
    /// Where draws begin: the same number gives the same tokens on any machine
    #[arg(long, value_name = "N", default_value_t = 0, requires = "temperature")]
    seed: u64,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let options = arguments.options()?;
    let seed = options.sampling.seed();
    // A path that is not a bundle's is said before anybody types.
    let mut chat = Chat::open(&arguments.runnable.runnable(), options, &template::render)?;
    let prompt = arguments.prompt()?;
    match prompt {
        Some(prompt) => arguments.answer_once(&mut chat, &prompt, seed)?,
        None => conversation::hold(&mut chat)?,
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn options(&self) -> anyhow::Result<ChatOptions> {
        let tools = self.tools.as_deref().map(read_tools).transpose()?;
        Ok(ChatOptions {
            system: self.system.clone(),
            // In a conversation, what the model writes is kept as it is; scripts get its text, unless they ask for calls.
            special: tools.is_some() || self.is_conversation(),
            tools,
            sampling: Sampling::new(self.temperature, self.top_k, self.top_p, self.seed)?,
            tokens: self.tokens,
            stops: self.stop.clone(),
        })
    }

    fn is_conversation(&self) -> bool {
        self.prompt.is_none() && io::stdin().is_terminal()
    }

    /// The only prompt; `None` for a conversation.
    fn prompt(&self) -> anyhow::Result<Option<String>> {
        if self.prompt.is_some() {
            return Ok(self.prompt.clone());
        }
        if !self.is_conversation() {
            return read_prompt(io::stdin().lock()).map(Some);
        }
        if self.raw || terminal::is_json() {
            bail!("--raw and --json answer one prompt: give --prompt TEXT, or a prompt through a pipe");
        }
        Ok(None)
    }

    fn answer_once(&self, chat: &mut Chat<'_>, prompt: &str, seed: Option<u64>) -> anyhow::Result<()> {
        let mut shown = Shown::default();
        let mut show = |piece: &str| {
            if !terminal::is_json() {
                shown.piece(piece);
            }
        };
        let never = || false;
        let answer = match self.raw {
            true => chat.complete(prompt, &never, &mut show),
            false => chat.say(prompt, &never, &mut show),
        }?;
        if terminal::is_json() {
            let made = &answer.generated;
            let rate = made.tokens_per_second();
            let mut result =
                json!({"text": made.text, "generated": made, "tokens_per_second": rate, "seed": seed});
            if !answer.calls.is_empty() {
                let call = |call: &coreai_bundle::chat::Call| json!({"name": call.name, "arguments": call.arguments});
                result["calls"] = answer.calls.iter().map(call).collect();
            }
            return Ok(terminal::print_json(&result)?);
        }
        shown.finish()?;
        terminal::tell(summary(&answer));
        Ok(())
    }
}

/// A stop text, as typed.
fn stop_text(typed: &str) -> Result<String, &'static str> {
    if typed.is_empty() { Err("give a text of at least one character") } else { Ok(typed.to_owned()) }
}

/// Definitions of tools: a list of objects.
fn read_tools(path: &Path) -> anyhow::Result<Value> {
    let bytes = small::read(path, small::TEXT).with_context(|| format!("cannot read {}", path.display()))?;
    let tools: Value = serde_json::from_slice(&bytes).with_context(|| format!("{}", path.display()))?;
    match tools.as_array() {
        Some(list) if !list.is_empty() && list.iter().all(Value::is_object) => Ok(tools),
        _ => bail!("{}: give a JSON list of tool definitions, each of them an object", path.display()),
    }
}

/// The whole of a pipe as one prompt, without its last line end.
fn read_prompt(input: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    input.take(small::TEXT + 1).read_to_end(&mut bytes).context("cannot read standard input")?;
    if bytes.len() as u64 > small::TEXT {
        bail!("the prompt from standard input has more than {} bytes", small::TEXT);
    }
    let mut prompt = String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        anyhow::anyhow!("the prompt from standard input is not UTF-8 text: see byte {at}")
    })?;
    let kept =
        prompt.strip_suffix('\n').map_or(prompt.len(), |line| line.strip_suffix('\r').unwrap_or(line).len());
    prompt.truncate(kept);
    if prompt.is_empty() {
        bail!("standard input is empty: give --prompt TEXT, or a prompt through a pipe");
    }
    Ok(prompt)
}

/// What was shown of an answer.
#[derive(Default)]
struct Shown {
    any: bool,
    broken: Option<io::Error>,
}

impl Shown {
    fn piece(&mut self, piece: &str) {
        if self.broken.is_none() {
            let mut out = terminal::prose();
            self.broken = write!(out, "{piece}").and_then(|()| out.flush()).err();
        }
        self.any = true;
    }

    /// Ends the line, if there is one.
    fn end(self) -> io::Result<()> {
        if self.any || self.broken.is_some() { self.finish() } else { Ok(()) }
    }

    /// Ends the line.
    fn finish(self) -> io::Result<()> {
        match self.broken {
            Some(error) => Err(error),
            None => writeln!(terminal::out()),
        }
    }
}

fn summary(answer: &Answer) -> String {
    let made = &answer.generated;
    let end = match made.stop_reason {
        End::StopToken => "ended on its own",
        End::StopText => "ended by --stop",
        End::Tokens => "cut off by -n",
        End::Context => "cut off: the bundle's context is full",
        End::Interrupted => "interrupted",
    };
    format!(
        "{} tokens read in {:.1} s, {} tokens written, {:.1} tokens/s, {end}",
        answer.prompt_tokens,
        made.prompt_seconds,
        made.ids.len(),
        made.tokens_per_second()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_one_bounded_prompt() {
        assert_eq!(read_prompt(&b"a\n\nb\r\n"[..]).unwrap(), "a\n\nb");
        let refused = |bytes: &[u8]| read_prompt(bytes).unwrap_err().to_string();
        assert!(refused(b"\n").contains("--prompt"));
        assert!(refused(b"ab\xff").contains("see byte 2"));
        assert!(refused(&vec![b'a'; 1 + small::TEXT as usize]).contains("more than 1048576 bytes"));
    }
}
