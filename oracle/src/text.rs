//! Converts text to tokens and back: the tokenizer, the chat template, and the tokens that end a reply.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use checkpoint::source::{Source, SourceError};
use output::Digest;
use packer::template::{Conversation, Message, Renderer, TemplateError};
use serde_json::Value;
use text::small;
use tokenizers::Tokenizer;

/// Files of a tokenizer's folder.
const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const GENERATION: &str = "generation_config.json";

/// A tokenizer that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The system refused to read a file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A configuration file is not a JSON object.
    #[error("{path}: {source}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A file of the checkpoint cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// There is no tokenizer.
    #[error("{path}: there is no tokenizer.json", path = path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The tokenizer cannot be read, or fails.
    #[error("tokenizer.json: {0}")]
    Tokenizer(String),
    /// There is no chat template.
    #[error(
        "there is no chat template: give a plain prompt, or add chat_template.jinja to the tokenizer's folder"
    )]
    NoTemplate,
    /// The chat template fails.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// Reads a file by name; `None` if there is none.
type Files<'f> = &'f dyn Fn(&str) -> Result<Option<Vec<u8>>, TextError>;

/// A tokenizer with its chat template and special tokens.
#[derive(Debug)]
pub struct Text {
    tokenizer: Tokenizer,
    template: Option<String>,
    bos: String,
    stops: BTreeSet<u32>,
    digest: Digest,
}

impl Text {
    /// Reads a tokenizer's folder.
    ///
    /// # Errors
    /// [`TextError`] names the file; only `tokenizer.json` is required.
    pub fn open(dir: &Path) -> Result<Text, TextError> {
        Text::read(dir, &|name| optional(&dir.join(name)))
    }

    /// Reads a checkpoint's tokenizer.
    ///
    /// # Errors
    /// As [`Text::open`].
    pub fn of_checkpoint(source: &dyn Source) -> Result<Text, TextError> {
        Text::read(Path::new(""), &|name| Ok(source.read_file(name)?))
    }

    /// Reads files by name; `dir` is for messages.
    fn read(dir: &Path, file: Files<'_>) -> Result<Text, TextError> {
        let bytes = file(TOKENIZER)?.ok_or_else(|| TextError::Missing { path: dir.to_owned() })?;
        let digest = Digest::of_bytes(&bytes);
        packer::tokenizer::check_steps(&bytes).map_err(|error| TextError::Tokenizer(error.to_string()))?;
        let tokenizer =
            Tokenizer::from_bytes(bytes).map_err(|error| TextError::Tokenizer(error.to_string()))?;
        let json = |name: &str| match file(name)? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| TextError::Json { path: dir.join(name), source }),
            None => Ok(Value::Null),
        };
        let (config, generation) = (json(CONFIG)?, json(GENERATION)?);
        let inlined = config.get("chat_template").and_then(Value::as_str).map(str::to_owned);
        let template = match file(TEMPLATE)? {
            Some(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            None => inlined,
        };
        let (bos, eos) = (special(&config, "bos_token"), special(&config, "eos_token"));
        let mut stops: BTreeSet<u32> = ids(generation.get("eos_token_id")).collect();
        stops.extend(tokenizer.token_to_id(&eos));
        Ok(Text { tokenizer, template, bos, stops, digest })
    }

    /// SHA-256 of tokenizer.json: equal files make equal tokens.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The token that begins a text, if there is one.
    pub fn begin(&self) -> Option<u32> {
        self.tokenizer.token_to_id(&self.bos)
    }

    /// Whether a token ends a reply: those of `generation_config.json` and the tokenizer's end token.
    pub fn stops(&self, token: u32) -> bool {
        self.stops.contains(&token)
    }

    /// Ids of a text. A begin token is prepended unless the text starts with it.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let encoded =
            self.tokenizer.encode(text, false).map_err(|error| TextError::Tokenizer(error.to_string()))?;
        let mut ids = encoded.get_ids().to_vec();
        if let Some(bos) = self.begin()
            && ids.first() != Some(&bos)
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// Ids of a text that continues another one; `None` if it begins with no added token, because then the ids depend on that other one.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode_more(&self, text: &str) -> Result<Option<Vec<u32>>, TextError> {
        let added = self.tokenizer.get_added_tokens_decoder();
        if !text.is_empty() && !added.values().any(|token| text.starts_with(&token.content)) {
            return Ok(None);
        }
        let encoded = self.tokenizer.encode(text, false);
        let encoded = encoded.map_err(|error| TextError::Tokenizer(error.to_string()))?;
        Ok(Some(encoded.get_ids().to_vec()))
    }

    /// Whether a token is a single byte, written `<0x0A>`, which is decoded together with its neighbors.
    pub fn is_byte(&self, token: u32) -> bool {
        let name = self.tokenizer.id_to_token(token);
        name.is_some_and(|name| name.len() == 6 && name.starts_with("<0x") && name.ends_with('>'))
    }

    /// Text of ids, without special tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.tokenizer.decode(ids, true).map_err(|error| TextError::Tokenizer(error.to_string()))
    }

    /// Text of one id, special tokens included; the vocabulary's entry, if it is a part of a character.
    pub fn token(&self, id: u32) -> Option<String> {
        let decoded = self.tokenizer.decode(&[id], false).ok();
        let is_whole = |text: &String| !text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER);
        decoded.filter(is_whole).or_else(|| self.tokenizer.id_to_token(id))
    }

    /// Text of ids, with special tokens.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn decode_all(&self, ids: &[u32]) -> Result<String, TextError> {
        self.tokenizer.decode(ids, false).map_err(|error| TextError::Tokenizer(error.to_string()))
    }

    /// Renders messages in the form of the Hugging Face libraries, with tools if there are any, as [`Text::chat`] does.
    ///
    /// # Errors
    /// As [`Text::chat`].
    pub fn conversation(
        &self,
        messages: Value,
        tools: Option<&Value>,
        render: Renderer<'_>,
    ) -> Result<String, TextError> {
        let template = self.template.as_ref().ok_or(TextError::NoTemplate)?;
        let conversation = Conversation::new(template, &[], &self.bos, true).with("messages", messages);
        let conversation = match tools {
            Some(tools) => conversation.with("tools", tools.clone()),
            None => conversation,
        };
        Ok(render(&conversation)?)
    }

    /// Whether the chat template mentions calls of tools.
    pub fn has_tool_calls(&self) -> bool {
        self.template.as_ref().is_some_and(|template| template.contains("tool_calls"))
    }

    /// Renders a chat as a prompt that ends with the start of the model's turn. The template may be hostile, so `render` decides
    /// how it is run.
    ///
    /// # Errors
    /// [`TextError::NoTemplate`] without a template, [`TextError::Template`] if it fails.
    pub fn chat(&self, messages: &[Message<'_>], render: Renderer<'_>) -> Result<String, TextError> {
        let template = self.template.as_ref().ok_or(TextError::NoTemplate)?;
        Ok(render(&Conversation::new(template, messages, &self.bos, true))?)
    }
}

fn optional(path: &Path) -> Result<Option<Vec<u8>>, TextError> {
    match paths::read(path, small::TOKENIZER) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Io { path: path.to_owned(), source }),
    }
}

/// A special token's text: given as a string, or as an object with `content`.
fn special(config: &Value, name: &str) -> String {
    let token = config.get(name);
    let text = token.and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
    text.unwrap_or_default().to_owned()
}

/// One id, or a list of them.
fn ids(value: Option<&Value>) -> impl Iterator<Item = u32> {
    let list = match value {
        Some(Value::Array(list)) => list.clone(),
        Some(single) => vec![single.clone()],
        None => Vec::new(),
    };
    list.into_iter().filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
}
