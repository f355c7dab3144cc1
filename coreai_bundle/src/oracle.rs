//! What a checkpoint says in fp32.

use std::path::PathBuf;

use ::oracle::file::{self, Oracle, Prompt};
use ::oracle::prompts::default_prompts;
use ::oracle::reference::Reference;
use ::oracle::text::Text;
use anyhow::{Context, bail};
use checkpoint::source::Source;
use packer::TOOL;
use packer::template::{Message, Renderer};
use progress::{Progress, Quiet};
use text::small;

/// Tokens that a prompt is continued by, by default.
pub const NEW_TOKENS: usize = 8;

/// Prompts from the user.
#[derive(Clone, Debug, Default)]
pub struct GivenPrompts {
    /// Texts to continue.
    pub texts: Vec<String>,
    /// Questions to answer, through the chat template.
    pub chats: Vec<String>,
    /// A file with a text to continue on each line.
    pub file: Option<PathBuf>,
}

impl GivenPrompts {
    /// The prompts as tokens, in the order of the fields; the default ones if there are none.
    ///
    /// # Errors
    /// If the file cannot be read or is empty, or a text cannot be encoded.
    pub fn encode(
        &self,
        text: &Text,
        reference: &Reference<'_>,
        tokens: usize,
        render: Renderer<'_>,
    ) -> anyhow::Result<Vec<Prompt>> {
        let mut texts = self.texts.clone();
        for content in &self.chats {
            texts.push(text.chat(&[Message { role: "user", content }], render)?);
        }
        if let Some(path) = &self.file {
            let lines = small::read_text(path, small::TEXT)
                .with_context(|| format!("cannot read {}", path.display()))?;
            let before = texts.len();
            texts.extend(lines.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned));
            if texts.len() == before {
                bail!("{}: there is no prompt in it", path.display());
            }
        }
        if texts.is_empty() {
            return defaults(text, reference, tokens);
        }
        texts.into_iter().map(|given| Ok(Prompt { ids: text.encode(&given)?, text: given })).collect()
    }
}

/// The oracle of a checkpoint for these prompts.
pub(crate) fn of_prompts(
    source: &dyn Source,
    reference: &Reference<'_>,
    prompts: &GivenPrompts,
    render: Renderer<'_>,
    progress: &dyn Progress,
) -> anyhow::Result<Oracle> {
    let text = Text::of_checkpoint(source)?;
    let prompts = prompts.encode(&text, reference, NEW_TOKENS, render)?;
    compute(source, reference, &prompts, NEW_TOKENS, &text, progress)
}

/// The default prompts, without those whose continuation would exceed the model's context.
fn defaults(text: &Text, reference: &Reference<'_>, tokens: usize) -> anyhow::Result<Vec<Prompt>> {
    let config = reference.config();
    Ok(default_prompts(text, config.sliding_window, config.max_positions.saturating_sub(tokens))?)
}

/// Continues each prompt by that many tokens.
///
/// # Errors
/// If the checkpoint cannot be read, or the run is cancelled.
pub fn compute(
    source: &dyn Source,
    reference: &Reference<'_>,
    prompts: &[Prompt],
    tokens: usize,
    text: &Text,
    progress: &dyn Progress,
) -> anyhow::Result<Oracle> {
    let decode = |ids: &[u32]| text.decode(ids).unwrap_or_default();
    let cases = file::make_cases(reference, prompts, tokens, &decode, &Quiet(progress))?;
    let tool = format!("{TOOL}, fp32");
    Ok(Oracle { reference: tool, checkpoint: Some(file::identity(source)?), cases })
}
