//! `coreai-bundle run`: a bundle answers, on this machine's processor.

use std::io::Write;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use coreai_bundle::parts::oracle::generate::{Generated, generate};
use coreai_bundle::parts::oracle::text::Text;
use coreai_bundle::parts::packer::template::Message;
use serde_json::json;

use crate::runnable::RunnableArguments;
use crate::{template, terminal};

/// Let a bundle answer a prompt, with the exact bytes that a device gets
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle run out/gemma4_e4b_qat_decode_int4lin --prompt \"Why is the sky blue?\"
  coreai-bundle run out/gemma4_e4b_qat_decode_int4lin --raw --prompt \"Count up: 1, 2, 3,\" -n 8")]
pub(crate) struct Arguments {
    #[command(flatten)]
    runnable: RunnableArguments,
    /// What the user says
    #[arg(long, value_name = "TEXT")]
    prompt: String,
    /// Instructions for the model, before the prompt
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Continue the prompt as it is, without the chat template
    #[arg(long)]
    raw: bool,
    /// Maximum number of tokens
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    tokens: usize,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runnable = arguments.runnable.runnable();
    let text = runnable.text()?;
    let ids = text.encode(&arguments.shown(&text)?)?;
    if ids.is_empty() {
        bail!("--prompt {:?} has no tokens", arguments.prompt);
    }
    let mut stepper = runnable.stepper()?;
    let mut reply = String::new();
    let mut broken = None;
    let made = generate(&mut stepper, &text, &ids, arguments.tokens, &mut |piece| {
        reply.push_str(piece);
        if !terminal::is_json() && broken.is_none() {
            let mut out = terminal::prose();
            broken = write!(out, "{piece}").and_then(|()| out.flush()).err();
        }
    })?;
    if let Some(error) = broken {
        return Err(error.into());
    }
    if terminal::is_json() {
        let result = json!({"text": reply, "generated": made, "tokens_per_second": made.tokens_per_second()});
        terminal::print_json(&result)?;
    } else {
        writeln!(terminal::out())?;
        terminal::tell(summary(&made));
    }
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    /// The prompt as the model sees it.
    fn shown(&self, text: &Text) -> anyhow::Result<String> {
        if self.raw {
            return Ok(self.prompt.clone());
        }
        let system = self.system.iter().map(|content| Message { role: "system", content });
        let messages: Vec<Message<'_>> =
            system.chain([Message { role: "user", content: &self.prompt }]).collect();
        Ok(text.chat(&messages, &template::render)?)
    }
}

fn summary(made: &Generated) -> String {
    let end = if made.stopped { "ended on its own" } else { "cut off by -n" };
    format!(
        "{} tokens read in {:.1} s, {} tokens written, {:.1} tokens/s, {end}",
        made.prompt_tokens,
        made.prompt_seconds,
        made.ids.len(),
        made.tokens_per_second()
    )
}
