//! `coreai-bundle oracle`: what a checkpoint says in fp32, as a file that bundles are held against.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use ::oracle::file::{self, Case, Oracle, Prompt};
use ::oracle::prompts::default_prompts;
use ::oracle::reference::Reference;
use ::oracle::text::Text;
use aimodel::staging::StagedFile;
use anyhow::{Context, bail};
use clap::Args;
use converter::source::Source;
use packer::output::{FileKind, Outputs};
use packer::template::Message;
use serde_json::json;
use text::small;

use crate::{interrupt, origin, outputs, template, terminal};

/// Tokens that a prompt is continued by, unless told.
const NEW_TOKENS: usize = 8;
/// Characters of a prompt that stand for it in messages.
const SHOWN: usize = 32;

/// Compute a checkpoint in fp32 and keep what it says
///
/// Every position of prompt and continuation is recorded with its winner, its margin and a digest of its logits. Without prompts
/// the default set is used: counting, the alphabet, days; one of about 270 tokens, and one longer than the sliding window.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle oracle gemma-4-E4B-it-qat -o oracle.json
  coreai-bundle oracle gemma-4-E4B-it-qat --prompt \"Count up: 1, 2, 3,\" --chat \"Name the days.\" -n 24 -o oracle.json")]
pub(crate) struct Arguments {
    /// The checkpoint: a folder, or a repository of the Hub, which is brought into the cache first
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
    /// Tokens to continue each by
    #[arg(short = 'n', long, value_name = "N", default_value_t = NEW_TOKENS)]
    tokens: usize,
    /// File to write
    #[arg(short, long, value_name = "FILE", default_value = "oracle.json")]
    output: PathBuf,
    /// Print a summary as JSON
    #[arg(long)]
    json: bool,
    /// Replace an oracle that exists
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let origin = origin::open_kept(&arguments.source, arguments.revision.as_deref())?;
    let text = Text::of_checkpoint(&*origin.source)?;
    let inputs = [PathBuf::from(&arguments.source)].into_iter().chain(arguments.prompt_file.clone());
    let output = Outputs::new(inputs, arguments.force).file(FileKind::Oracle);
    let staged = StagedFile::new(&arguments.output, output)?;
    let mut reference = Reference::open(&*origin.source)?;
    let mut prompts = arguments.typed(&text)?;
    if prompts.is_empty() {
        prompts = default_prompts(&text, reference.config().sliding_window)?;
    }
    interrupt::listen()?;
    let made = compute(&*origin.source, &mut reference, &prompts, arguments.tokens, &text)?;
    made.cases.iter().for_each(warn);
    staged
        .file()
        .write_all(made.to_json()?.as_bytes())
        .with_context(|| staged.path().display().to_string())?;
    staged.commit()?;
    report(&made, arguments)?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    /// The prompts that were typed, in the order of the options' names.
    fn typed(&self, text: &Text) -> anyhow::Result<Vec<Prompt>> {
        let mut texts = self.prompts.clone();
        for content in &self.chats {
            texts.push(text.chat(&[Message { role: "user", content }], &template::render)?);
        }
        if let Some(path) = &self.prompt_file {
            let lines = small::read_text(path, small::TEXT)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let before = texts.len();
            texts.extend(lines.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
            if texts.len() == before {
                bail!("{}: there is no prompt in it", path.display());
            }
        }
        texts.into_iter().map(|text_| Ok(Prompt { ids: text.encode(&text_)?, text: text_ })).collect()
    }
}

/// The default oracle of a checkpoint.
pub(crate) fn by_default(source: &dyn Source, reference: &mut Reference<'_>) -> anyhow::Result<Oracle> {
    let text = Text::of_checkpoint(source)?;
    let prompts = default_prompts(&text, reference.config().sliding_window)?;
    compute(source, reference, &prompts, NEW_TOKENS, &text)
}

fn compute(
    source: &dyn Source,
    reference: &mut Reference<'_>,
    prompts: &[Prompt],
    tokens: usize,
    text: &Text,
) -> anyhow::Result<Oracle> {
    let mut cases = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        if interrupt::asked() {
            bail!("interrupted");
        }
        let decode = |ids: &[u32]| text.decode(ids).unwrap_or_default();
        let case = file::make_case(reference, prompt, tokens, &decode)?;
        cases.push(case);
    }
    let tool = format!("{}, fp32", outputs::tool());
    Ok(Oracle { reference: tool, checkpoint: Some(file::identity(source)?), cases })
}

/// Names the positions that gate nothing.
fn warn(case: &Case) {
    let ties = case.ties();
    if !ties.is_empty() {
        let positions: Vec<String> = ties.iter().map(usize::to_string).collect();
        terminal::tell(format_args!(
            "{}: {} of {} positions have a margin under 0.1 and gate nothing: {}",
            shortened(&case.prompt),
            ties.len(),
            case.teacher_forced_margins.len(),
            text::bounds::list(&positions)
        ));
    }
}

/// The beginning of a prompt, on one line.
pub(crate) fn shortened(prompt: &str) -> String {
    let mut characters = prompt.chars().map(|c| if c.is_control() { ' ' } else { c });
    let begin: String = characters.by_ref().take(SHOWN).collect();
    if characters.next().is_some() { format!("{begin}...") } else { begin }
}

fn report(made: &Oracle, arguments: &Arguments) -> anyhow::Result<()> {
    let mut out = terminal::out();
    let qualified = |case: &Case| case.teacher_forced_margins.len() - case.ties().len();
    if arguments.json {
        let cases: Vec<_> = made
            .cases
            .iter()
            .map(|case| {
                json!({"prompt": case.prompt, "text": case.text, "positions": case.ids().count(), "qualified": qualified(case)})
            })
            .collect();
        terminal::print_json(&json!({"event": "done", "oracle": arguments.output, "cases": cases}))?;
        return Ok(());
    }
    for case in &made.cases {
        let (positions, qualified) = (case.ids().count(), qualified(case));
        writeln!(out, "{:38} {positions:5} positions, {qualified:5} gate", shortened(&case.prompt))?;
    }
    writeln!(out, "{}  {} cases", arguments.output.display(), made.cases.len())?;
    Ok(())
}
