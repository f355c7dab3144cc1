//! The `tokenizer/` folder of a bundle: the checkpoint's files, byte for byte, with the repairs that the engine
//! needs. Every repair is reported.
//!
//! The engine ends a reply at `eos_token` only, but checkpoints name the token there that ends a text, not
//! the one that ends a turn: replies would run on. It also reads the chat template from
//! `tokenizer_config.json` only, while checkpoints keep it in a separate file.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::json_text;
use crate::template::{self, AddedToken, Renderer, TemplateError};
use crate::vocabulary::{TURN_END, Vocabulary};

/// Name of the folder inside a bundle.
pub const FOLDER: &str = "tokenizer";
/// The vocabulary and the rules.
pub const TOKENIZER: &str = "tokenizer.json";
/// Special tokens and settings.
pub const CONFIG: &str = "tokenizer_config.json";
/// Special tokens again, for older readers.
pub const SPECIAL_TOKENS_MAP: &str = "special_tokens_map.json";
/// The chat template as a file.
pub const CHAT_TEMPLATE: &str = "chat_template.jinja";
/// Sampling settings and stop tokens.
pub const GENERATION_CONFIG: &str = "generation_config.json";
/// The older form of the template file: a JSON object with one key.
const CHAT_TEMPLATE_JSON: &str = "chat_template.json";

/// The files of a complete folder, in the order in which they are written.
pub const FILES: [&str; 5] = [TOKENIZER, CONFIG, SPECIAL_TOKENS_MAP, CHAT_TEMPLATE, GENERATION_CONFIG];

/// The files of a checkpoint to hand to [`prepare`], where they exist.
pub const SOURCE_FILES: [&str; 6] =
    [TOKENIZER, CONFIG, SPECIAL_TOKENS_MAP, CHAT_TEMPLATE, GENERATION_CONFIG, CHAT_TEMPLATE_JSON];

const EOS_KEY: &str = "eos_token";
const TEMPLATE_KEY: &str = "chat_template";
/// What `special_tokens_map.json` holds, in the order in which tokenizer libraries write it.
const SPECIAL_KEYS: [&str; 8] = [
    "additional_special_tokens",
    "bos_token",
    "cls_token",
    "eos_token",
    "mask_token",
    "pad_token",
    "sep_token",
    "unk_token",
];

/// Why a checkpoint's tokenizer cannot go into a bundle.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file that every bundle needs is missing.
    #[error("the checkpoint has no {0}: download it from the checkpoint's repository into its folder")]
    Missing(&'static str),
    /// A file that is not what its name says.
    #[error("{file}: {message}")]
    Malformed {
        /// The file's name.
        file: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// No chat template in any of its places.
    #[error(
        "the checkpoint has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): \
         take the file from the instruction-tuned checkpoint, or pass --no-chat-template for a bundle without"
    )]
    NoTemplate,
    /// The template does not show the token that ends a turn.
    #[error("{CHAT_TEMPLATE}: {0}")]
    Template(#[from] TemplateError),
    /// Neither the template nor the added tokens show what ends a turn.
    #[error("tokenizer.json: no token '{TURN_END}' and no chat template to show which token ends a turn")]
    NoTurnEnd,
    /// The graph has no embedding for a token.
    #[error(
        "tokenizer.json: the largest token id is {largest}, but config.json's vocab_size is {vocab_size}: take both files \
         from the same checkpoint"
    )]
    Ids {
        /// The largest id.
        largest: u64,
        /// Entries of the graph's vocabulary.
        vocab_size: u64,
    },
}

/// Checks that nothing in a `tokenizer.json` makes texts grow without bound or makes the library that runs it fail.
///
/// # Errors
/// What it has, or that it is not a tokenizer.
pub fn check_steps(bytes: &[u8]) -> Result<(), serde_json::Error> {
    Vocabulary::read(bytes).map(drop)
}

/// A change to the checkpoint's files, or a file that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "repair")]
pub enum Repair {
    /// `eos_token` was set to the token that ends a turn.
    EosToken {
        /// In which file.
        file: &'static str,
        /// What it was.
        from: Option<String>,
        /// What it is now.
        to: String,
    },
    /// The template was copied into `tokenizer_config.json`.
    TemplateInlined {
        /// Whether another one was there.
        replaced: bool,
    },
    /// `chat_template.jinja` was written from the template that another file held.
    TemplateFileWritten {
        /// From which file.
        from: &'static str,
    },
    /// `special_tokens_map.json` was made from `tokenizer_config.json`.
    SpecialTokensMapMade,
    /// There is no chat template, as was asked for.
    TemplateWaived,
    /// There is no `generation_config.json` to copy.
    GenerationConfigMissing,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EosToken { file, from: Some(from), to } => {
                write!(f, "{file}: eos_token {from} -> {to}, the token that ends a turn")
            }
            Self::EosToken { file, from: None, to } => {
                write!(f, "{file}: eos_token set to {to}, the token that ends a turn")
            }
            Self::TemplateInlined { replaced: false } => {
                write!(f, "{CONFIG}: chat_template inlined from {CHAT_TEMPLATE}")
            }
            Self::TemplateInlined { replaced: true } => {
                write!(f, "{CONFIG}: chat_template differed from {CHAT_TEMPLATE} and was replaced by it")
            }
            Self::TemplateFileWritten { from } => write!(f, "{CHAT_TEMPLATE}: written from {from}"),
            Self::SpecialTokensMapMade => write!(f, "{SPECIAL_TOKENS_MAP}: absent, made from {CONFIG}"),
            Self::TemplateWaived => write!(f, "no chat template: the bundle cannot hold conversations"),
            Self::GenerationConfigMissing => write!(f, "{GENERATION_CONFIG}: absent from the checkpoint"),
        }
    }
}

/// A tokenizer that is ready to be written into a bundle.
#[derive(Clone, Debug)]
pub struct PreparedTokenizer {
    /// Names and contents of the files, in the order of [`FILES`].
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// What was changed.
    pub repairs: Vec<Repair>,
    /// The token that ends a turn.
    pub end_of_turn: AddedToken,
    /// Ids that end a reply: those of `generation_config.json`, and the end of a turn.
    pub eos_token_ids: Vec<u64>,
}

/// What a tokenizer is prepared for.
pub struct Purpose<'a> {
    /// Entries of the graph's vocabulary.
    pub vocab_size: u64,
    /// Whether a checkpoint without a chat template is accepted.
    pub allow_no_template: bool,
    /// Renders the chat template.
    pub render: Renderer<'a>,
}

/// Makes the files of `tokenizer/` from those of a checkpoint, given as pairs of name and bytes; other names
/// than [`SOURCE_FILES`] are left out.
///
/// # Errors
/// When a file is missing or malformed, an id is outside the vocabulary, or the token that ends a turn cannot be determined.
pub fn prepare(
    source: Vec<(String, Vec<u8>)>,
    purpose: &Purpose<'_>,
) -> Result<PreparedTokenizer, TokenizerError> {
    let mut source = Source(source);
    let tokenizer = source.take(TOKENIZER).ok_or(TokenizerError::Missing(TOKENIZER))?;
    let mut config = source.take_text(CONFIG)?.ok_or(TokenizerError::Missing(CONFIG))?;
    let vocabulary = Vocabulary::read(&tokenizer)
        .map_err(|e| TokenizerError::Malformed { file: TOKENIZER, message: e.to_string() })?;
    let vocab_size = purpose.vocab_size;
    if let Some(largest) = vocabulary.id_beyond(vocab_size) {
        return Err(TokenizerError::Ids { largest, vocab_size });
    }
    let mut repairs = Vec::new();

    let inline = inline_template(&parse_object(CONFIG, &config)?);
    let template = source.template(inline.as_deref(), &mut repairs)?;
    if template.is_none() {
        if !purpose.allow_no_template {
            return Err(TokenizerError::NoTemplate);
        }
        repairs.push(Repair::TemplateWaived);
    }
    let bos_token = token_text(&parse_object(CONFIG, &config)?, "bos_token").unwrap_or_default();
    let end_of_turn = match &template {
        Some(template) => {
            template::end_of_turn(template, &vocabulary.added_tokens, &bos_token, purpose.render)?
        }
        None => vocabulary.usual_turn_end().cloned().ok_or(TokenizerError::NoTurnEnd)?,
    };

    set_eos(CONFIG, &mut config, &end_of_turn, &mut repairs)?;
    if let Some(template) = &template
        && inline.as_ref() != Some(template)
    {
        config = edited(CONFIG, json_text::set_string(&config, TEMPLATE_KEY, template))?;
        repairs.push(Repair::TemplateInlined { replaced: inline.is_some() });
    }
    let special_tokens_map = match source.take_text(SPECIAL_TOKENS_MAP)? {
        Some(mut map) => {
            set_eos(SPECIAL_TOKENS_MAP, &mut map, &end_of_turn, &mut repairs)?;
            map
        }
        None => {
            repairs.push(Repair::SpecialTokensMapMade);
            special_tokens_map(&parse_object(CONFIG, &config)?)?
        }
    };
    let generation_config = source.take_text(GENERATION_CONFIG)?;
    let eos_token_ids = match &generation_config {
        Some(text) => stop_ids(&parse_object(GENERATION_CONFIG, text)?),
        None => {
            repairs.push(Repair::GenerationConfigMissing);
            Vec::new()
        }
    };
    let eos_token_ids = with_id(eos_token_ids, end_of_turn.id);

    let mut files = vec![
        (TOKENIZER, tokenizer),
        (CONFIG, config.into_bytes()),
        (SPECIAL_TOKENS_MAP, special_tokens_map.into_bytes()),
    ];
    files.extend(template.map(|template| (CHAT_TEMPLATE, template.into_bytes())));
    files.extend(generation_config.map(|text| (GENERATION_CONFIG, text.into_bytes())));
    Ok(PreparedTokenizer { files, repairs, end_of_turn, eos_token_ids })
}

/// The checkpoint's files that are not used yet.
struct Source(Vec<(String, Vec<u8>)>);

impl Source {
    fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn take_text(&mut self, name: &'static str) -> Result<Option<String>, TokenizerError> {
        self.take(name).map(|bytes| text(name, bytes)).transpose()
    }

    /// The chat template: its own file wins over the inlined one, as in the tokenizer libraries.
    fn template(
        &mut self,
        inline: Option<&str>,
        repairs: &mut Vec<Repair>,
    ) -> Result<Option<String>, TokenizerError> {
        if let Some(template) = self.take_text(CHAT_TEMPLATE)? {
            return Ok(Some(template));
        }
        let (from, template) = match inline {
            Some(template) => (CONFIG, template.to_owned()),
            None => {
                let Some(text) = self.take_text(CHAT_TEMPLATE_JSON)? else { return Ok(None) };
                let Some(template) = inline_template(&parse_object(CHAT_TEMPLATE_JSON, &text)?) else {
                    return Ok(None);
                };
                (CHAT_TEMPLATE_JSON, template)
            }
        };
        repairs.push(Repair::TemplateFileWritten { from });
        Ok(Some(template))
    }
}

fn text(file: &'static str, bytes: Vec<u8>) -> Result<String, TokenizerError> {
    String::from_utf8(bytes).map_err(|e| TokenizerError::Malformed { file, message: e.to_string() })
}

fn parse_object(file: &'static str, text: &str) -> Result<Map<String, Value>, TokenizerError> {
    serde_json::from_str(text).map_err(|e| TokenizerError::Malformed { file, message: e.to_string() })
}

fn edited(
    file: &'static str,
    result: Result<String, json_text::NotAnObject>,
) -> Result<String, TokenizerError> {
    result.map_err(|e| TokenizerError::Malformed { file, message: e.to_string() })
}

fn set_eos(
    file: &'static str,
    text: &mut String,
    end_of_turn: &AddedToken,
    repairs: &mut Vec<Repair>,
) -> Result<(), TokenizerError> {
    let from = token_text(&parse_object(file, text)?, EOS_KEY);
    let to = &end_of_turn.content;
    if from.as_ref() != Some(to) {
        *text = edited(file, json_text::set_token(text, EOS_KEY, to))?;
        repairs.push(Repair::EosToken { file, from, to: to.clone() });
    }
    Ok(())
}

fn special_tokens_map(config: &Map<String, Value>) -> Result<String, TokenizerError> {
    let map: Map<String, Value> = SPECIAL_KEYS
        .iter()
        .filter_map(|&key| Some((key.to_owned(), config.get(key).filter(|v| !v.is_null())?.clone())))
        .collect();
    let mut text = serde_json::to_string_pretty(&map)
        .map_err(|e| TokenizerError::Malformed { file: SPECIAL_TOKENS_MAP, message: e.to_string() })?;
    text.push('\n');
    Ok(text)
}

fn with_id(mut ids: Vec<u64>, id: u64) -> Vec<u64> {
    if !ids.contains(&id) {
        ids.push(id);
    }
    ids
}

/// The text of a special token, which is a string or an object with `content`.
pub(crate) fn token_text(config: &Map<String, Value>, key: &str) -> Option<String> {
    let value = config.get(key)?;
    value.as_str().or_else(|| value.get("content")?.as_str()).map(str::to_owned)
}

/// The template inlined in `tokenizer_config.json`: a string, or the one called `default` of a list.
pub(crate) fn inline_template(config: &Map<String, Value>) -> Option<String> {
    match config.get(TEMPLATE_KEY)? {
        Value::String(template) => Some(template.clone()),
        Value::Array(named) => {
            let default =
                named.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"))?;
            default.get("template")?.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// The ids under `eos_token_id` of `generation_config.json`: one number or a list of them.
pub(crate) fn stop_ids(generation_config: &Map<String, Value>) -> Vec<u64> {
    match generation_config.get("eos_token_id") {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
        Some(id) => id.as_u64().into_iter().collect(),
        None => Vec::new(),
    }
}
