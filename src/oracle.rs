//! `coreai-bundle oracle`: computes a checkpoint in fp32 and writes a file that bundles are compared with.

use coreai_bundle::parts::text;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use coreai_bundle::oracle::{GivenPrompts, NEW_TOKENS, compute};
use coreai_bundle::parts::oracle::file::{Case, Oracle};
use coreai_bundle::parts::oracle::gate::Bounds;
use coreai_bundle::parts::oracle::reference::Reference;
use coreai_bundle::parts::oracle::text::Text;
use coreai_bundle::parts::output::StagedFile;
use coreai_bundle::parts::packer::replace::{FileKind, Outputs};
use serde_json::json;

use crate::progress::Bar;
use crate::{interrupt, origin, template, terminal};

/// Characters of a prompt that messages show.
const SHOWN: usize = 32;
/// How far further lines of a case are indented.
const INDENT: usize = 4;

/// Compute a checkpoint in fp32 and record its choices
///
/// Every position of prompt and continuation is recorded with its winner, its margin and a digest of its logits. Without prompts,
/// the default set is used: lists, prose, code, German and Japanese, and one that is longer than the sliding window.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle oracle gemma-4-E4B-it-qat -o oracle.json
  coreai-bundle oracle gemma-4-E4B-it-qat --prompt \"Count up: 1, 2, 3,\" --chat \"Name the days.\" -n 24 -o oracle.json")]
pub(crate) struct Arguments {
    /// The checkpoint: a folder, or a repository of the Hub, which is downloaded into the cache first
    source: String,
    /// Branch, tag or commit of the repository [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// A text to continue; may be repeated
    #[arg(long = "prompt", value_name = "TEXT")]
    prompts: Vec<String>,
    /// A question to answer, through the chat template; may be repeated
    #[arg(long = "chat", value_name = "TEXT")]
    chats: Vec<String>,
    /// A file with a text to continue on each line
    #[arg(long = "prompts", value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Number of tokens to continue each one by
    #[arg(short = 'n', long, value_name = "N", default_value_t = NEW_TOKENS)]
    tokens: usize,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "oracle.json")]
    output: PathBuf,
    /// Replace an oracle that exists
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (checkpoint, opened) = origin::open_kept(&arguments.source, arguments.revision.as_deref())?;
    let (source, tokens) = (&*opened.source, arguments.tokens);
    let text = Text::of_checkpoint(source)?;
    let inputs = checkpoint.path().into_iter().chain(arguments.prompt_file.as_deref());
    let output = Outputs::new(inputs, arguments.force).file(FileKind::Oracle);
    let staged = StagedFile::new(&arguments.output, output)?;
    let reference = Reference::open(source)?;
    let prompts = arguments.prompts().encode(&text, &reference, tokens, &template::render)?;
    interrupt::listen()?;
    let made = compute(source, &reference, &prompts, tokens, &text, &Bar::of_positions())?;
    made.cases.iter().for_each(warn);
    warn_of_few(&made);
    staged
        .file()
        .write_all(made.to_json()?.as_bytes())
        .with_context(|| staged.path().display().to_string())?;
    staged.commit()?;
    report(&made, arguments)?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    fn prompts(&self) -> GivenPrompts {
        GivenPrompts {
            texts: self.prompts.clone(),
            chats: self.chats.clone(),
            file: self.prompt_file.clone(),
        }
    }
}

/// Names the positions that do not count for the gate.
fn warn(case: &Case) {
    let ties = case.ties();
    if !ties.is_empty() {
        let positions: Vec<String> = ties.iter().map(usize::to_string).collect();
        terminal::tell(format_args!(
            "{}: {} of {} positions have a margin under 0.1 and do not count for the gate: {}",
            shortened(&case.prompt),
            ties.len(),
            case.len(),
            text::bounds::list(&positions)
        ));
    }
}

/// Says that a gate will need more.
fn warn_of_few(made: &Oracle) {
    let (found, needed) = (made.qualified(), Bounds::LOSSLESS.min_positions);
    if found < needed {
        terminal::tell(format!(
            "warning: {found} distinct positions count for the gate, which needs at least {needed}: give more or longer prompts, \
             or continue them by more tokens"
        ));
    }
}

/// The beginning of a prompt, on one line.
fn shortened(prompt: &str) -> String {
    let mut characters = prompt.chars().map(|c| if c.is_control() { ' ' } else { c });
    let begin: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() { format!("{begin}...") } else { begin }
}

/// What is said about a prompt, beside its beginning; broken where the terminal ends.
pub(crate) fn prompt_line(prompt: &str, facts: &str) -> String {
    const COLUMN: usize = 38;
    // Numbers are aligned by the spaces before them.
    let words = facts.trim_start_matches(' ');
    let begin = format!("{:COLUMN$} {}", shortened(prompt), &facts[..facts.len() - words.len()]);
    let start = begin.chars().count();
    begin + &terminal::wrap(words, start, INDENT, terminal::width())
}

fn report(made: &Oracle, arguments: &Arguments) -> anyhow::Result<()> {
    let mut out = terminal::out();
    let qualified = |case: &Case| case.len() - case.ties().len();
    if terminal::is_json() {
        let cases: Vec<_> = made
            .cases
            .iter()
            .map(|case| {
                json!({"prompt": case.prompt, "text": case.text, "positions": case.len(), "qualified": qualified(case)})
            })
            .collect();
        let qualified = made.qualified();
        terminal::print_json(
            &json!({"event": "done", "oracle": arguments.output, "cases": cases, "qualified": qualified}),
        )?;
        return Ok(());
    }
    for case in &made.cases {
        let (positions, qualified) = (case.len(), qualified(case));
        let facts = format!("{positions:5} positions, {qualified:5} gate");
        writeln!(out, "{}", prompt_line(&case.prompt, &facts))?;
    }
    let (cases, qualified) = (made.cases.len(), made.qualified());
    let cases = if cases == 1 { "1 case".to_owned() } else { format!("{cases} cases") };
    writeln!(
        out,
        "{}  {cases}, {qualified} distinct positions count for the gate",
        arguments.output.display()
    )?;
    Ok(())
}
