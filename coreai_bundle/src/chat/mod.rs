//! A conversation with a bundle: what was said, what the bundle's caches hold of it, and what is fed next.

mod calls;

use std::fmt;

use ::oracle::generate::{Generated, Limits, generate};
use ::oracle::sampling::{Sampler, Sampling};
use ::oracle::stepper::Stepper;
use ::oracle::text::Text;
use anyhow::bail;
use packer::template::Renderer;
use serde_json::{Value, json};

pub use self::calls::Call;
use crate::runnable::Runnable;

/// How a bundle answers.
#[derive(Clone, Debug)]
pub struct ChatOptions {
    /// Instructions before the first message.
    pub system: Option<String>,
    /// Definitions of tools, in the form of the Hugging Face libraries: a list of objects.
    pub tools: Option<Value>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Most tokens of an answer.
    pub tokens: usize,
    /// Texts that end an answer.
    pub stops: Vec<String>,
    /// Whether special tokens that the model writes are part of its answers: calls of tools consist of them.
    pub special: bool,
}

/// A conversation that does not fit into the bundle's context. Nothing of it was fed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooLong {
    /// Tokens of the conversation.
    pub tokens: usize,
    /// Tokens that the bundle was made for.
    pub context: usize,
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the conversation has {} tokens, and the bundle's context is {}", self.tokens, self.context)
    }
}

impl std::error::Error for TooLong {}

/// What a bundle answered.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// Tokens of the whole conversation up to the answer.
    pub prompt_tokens: usize,
    /// What was fed and written.
    pub generated: Generated,
    /// Tools that the answer calls.
    pub calls: Vec<Call>,
}

/// What was done since the conversation began.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Statistics {
    /// Tokens that the caches hold.
    pub held: usize,
    /// Tokens that they may hold.
    pub context: Option<usize>,
    /// Tokens that were read.
    pub read: usize,
    /// Seconds for reading them.
    pub read_seconds: f64,
    /// Tokens that were written.
    pub written: usize,
    /// Seconds for writing them.
    pub written_seconds: f64,
}

/// A conversation with a bundle.
pub struct Chat<'r> {
    stepper: Stepper,
    text: Text,
    render: Renderer<'r>,
    options: ChatOptions,
    sampler: Sampler,
    messages: Vec<Value>,
    /// The conversation as it was last rendered, with the answer, and its tokens: an answer's tokens are those that the model chose.
    spoken: (String, Vec<u32>),
    /// The tokens that the caches hold.
    held: Vec<u32>,
    statistics: Statistics,
}

impl<'r> Chat<'r> {
    /// Opens a bundle. Its template may be hostile, so `render` decides how it is run.
    ///
    /// # Errors
    /// If the bundle cannot be run, or there are tools and its template ignores them.
    pub fn open(runnable: &Runnable, options: ChatOptions, render: Renderer<'r>) -> anyhow::Result<Self> {
        let text = runnable.text()?;
        if let Some(tools) = &options.tools {
            let greeting = json!([{"role": "user", "content": "Hello"}]);
            let with = text.conversation(greeting.clone(), Some(tools), render)?;
            if with == text.conversation(greeting, None, render)? {
                bail!("the bundle's chat template has no place for tools; leave --tools out");
            }
        }
        let context = runnable.max_context()?.map(|context| usize::try_from(context).unwrap_or(usize::MAX));
        Ok(Chat {
            stepper: runnable.stepper()?,
            text,
            render,
            sampler: Sampler::new(options.sampling),
            options,
            messages: Vec::new(),
            spoken: Default::default(),
            held: Vec::new(),
            statistics: Statistics { context, ..Statistics::default() },
        })
    }

    /// Forgets what was said; instructions, tools and the place in the generator's sequence stay.
    pub fn reset(&mut self) {
        self.messages.clear();
        self.statistics = Statistics { context: self.statistics.context, ..Statistics::default() };
    }

    /// Starts a new conversation with other instructions.
    pub fn set_system(&mut self, system: Option<String>) {
        self.options.system = system;
        self.reset();
    }

    /// What was done since the conversation began.
    pub fn statistics(&self) -> Statistics {
        let held = if self.messages.is_empty() { 0 } else { self.held.len() };
        Statistics { held, ..self.statistics }
    }

    /// What was said, as the template gets it, without the instructions.
    pub fn messages(&self) -> &[Value] {
        &self.messages
    }

    /// Answers what the user says; `show` gets the answer piece by piece. If `asked` says so, the answer ends where it is; if there is
    /// nothing of it yet, the question is forgotten.
    ///
    /// # Errors
    /// [`TooLong`], or if the template or the bundle fails. The conversation is then what it was before.
    pub fn say(
        &mut self,
        user: &str,
        asked: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Answer> {
        self.answer(json!({"role": "user", "content": user}), asked, show)
    }

    /// Gives a tool's result to the model, which answers.
    ///
    /// # Errors
    /// As [`Chat::say`], and if the last answer does not call this tool, where the template has a form for calls.
    pub fn give_result(
        &mut self,
        tool: &str,
        result: &Value,
        asked: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Answer> {
        let id = self.open_call(tool);
        if id.is_none() && self.text.has_tool_calls() {
            bail!("the model waits for no result of the tool {tool:?}");
        }
        // Templates lay out objects; everything else is a text to them.
        let content = match result {
            Value::Object(_) | Value::String(_) => result.clone(),
            other => Value::from(other.to_string()),
        };
        let mut message = json!({"role": "tool", "name": tool, "content": content});
        if let Some(id) = id {
            message["tool_call_id"] = id;
        }
        self.answer(message, asked, show)
    }

    /// Continues a text, without the template and without history.
    ///
    /// # Errors
    /// As [`Chat::say`].
    pub fn complete(
        &mut self,
        prompt: &str,
        asked: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Answer> {
        let ids = self.text.encode(prompt)?;
        self.continue_ids(ids, asked, show)
    }

    /// The id of the last call of a tool that has no result yet.
    fn open_call(&self, tool: &str) -> Option<Value> {
        let answered =
            |id: &Value| self.messages.iter().any(|message| message.get("tool_call_id") == Some(id));
        let calls = self.messages.iter().rev().find_map(|message| message.get("tool_calls")?.as_array())?;
        let call = calls.iter().find(|call| call["function"]["name"] == tool && !answered(&call["id"]))?;
        Some(call["id"].clone())
    }

    fn answer(
        &mut self,
        message: Value,
        asked: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Answer> {
        self.messages.push(message);
        let answered = self.answer_last(asked, show);
        if answered.is_err() || answered.as_ref().is_ok_and(Answer::was_cut_off_at_once) {
            self.messages.pop();
        }
        answered
    }

    fn answer_last(
        &mut self,
        asked: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Answer> {
        let system = self.options.system.iter().map(|content| json!({"role": "system", "content": content}));
        let messages: Vec<Value> = system.chain(self.messages.iter().cloned()).collect();
        let prompt = self.text.conversation(messages.into(), self.options.tools.as_ref(), self.render)?;
        let ids = self.ids_of(&prompt)?;
        let mut answer = self.continue_ids(ids.clone(), asked, show)?;
        if answer.was_cut_off_at_once() {
            return Ok(answer);
        }
        let written = self.text.decode_all(&answer.generated.ids)?;
        let whole = self.options.special && written == answer.generated.text;
        self.spoken = (prompt, ids);
        if whole {
            self.spoken.0.push_str(&written);
            self.spoken.1.extend(&answer.generated.ids);
        }
        let (content, calls) = match calls::split(&answer.generated.text) {
            Some(split) if self.text.has_tool_calls() => split,
            _ => (answer.generated.text.clone(), Vec::new()),
        };
        self.messages.push(self.message_of(content, &calls));
        answer.calls = calls;
        Ok(answer)
    }

    /// An answer as templates expect it.
    fn message_of(&self, content: String, calls: &[Call]) -> Value {
        let mut message = json!({"role": "assistant", "content": content});
        if !calls.is_empty() {
            let first = self.messages.len();
            let call = |(at, call): (usize, &Call)| {
                let function = json!({"name": call.name, "arguments": call.arguments});
                json!({"id": format!("call_{first}_{at}"), "type": "function", "function": function})
            };
            message["tool_calls"] = calls.iter().enumerate().map(call).collect();
        }
        message
    }

    /// Tokens of a rendered conversation. What continues the last one keeps its tokens, because a model does not always choose those
    /// that the tokenizer would.
    fn ids_of(&self, prompt: &str) -> anyhow::Result<Vec<u32>> {
        let (before, ids) = &self.spoken;
        if let Some(more) = prompt.strip_prefix(before.as_str()).filter(|_| !before.is_empty())
            && let Some(more) = self.text.encode_more(more)?
        {
            return Ok([ids.as_slice(), &more].concat());
        }
        Ok(self.text.encode(prompt)?)
    }

    /// Feeds what the caches do not hold yet, and continues.
    fn continue_ids(
        &mut self,
        ids: Vec<u32>,
        asked: &dyn Fn() -> bool,
        show: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Answer> {
        if ids.is_empty() {
            bail!("the prompt has no tokens");
        }
        let context = self.statistics.context;
        if let Some(context) = context.filter(|context| ids.len() > *context) {
            return Err(TooLong { tokens: ids.len(), context }.into());
        }
        let held = std::mem::take(&mut self.held);
        let same = held.iter().zip(&ids).take_while(|(held, id)| held == id).count();
        // At least one token has to be fed for its logits.
        let kept = same.min(ids.len() - 1);
        if kept == 0 {
            self.stepper.reset()?;
        } else {
            self.stepper.rewind(kept);
        }
        let (tokens, stops, special) = (self.options.tokens, &self.options.stops, self.options.special);
        let limits = Limits { tokens, context, stops, special, asked };
        let new = &ids[kept..];
        let generated = generate(&mut self.stepper, &self.text, new, &limits, &mut self.sampler, show)?;
        let prompt_tokens = ids.len();
        self.held = ids.into_iter().chain(generated.ids.iter().copied()).collect();
        self.held.truncate(self.stepper.positions());
        self.statistics.read += self.held.len().min(prompt_tokens) - kept;
        self.statistics.read_seconds += generated.prompt_seconds;
        self.statistics.written += generated.ids.len();
        self.statistics.written_seconds += generated.seconds;
        Ok(Answer { prompt_tokens, generated, calls: Vec::new() })
    }
}

impl Answer {
    /// Whether the model was stopped before it wrote anything.
    pub fn was_cut_off_at_once(&self) -> bool {
        self.generated.stop_reason == ::oracle::generate::End::Interrupted && self.generated.ids.is_empty()
    }
}

impl fmt::Debug for Chat<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chat")
            .field("options", &self.options)
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}
