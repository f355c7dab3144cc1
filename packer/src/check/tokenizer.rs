//! Rules of the `tokenizer/` folder.

use std::fmt;

use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use text::small;

use super::context::{Context, Folder};
use super::json::{self, Unreadable};
use super::metadata::MetadataFacts;
use super::rules;
use crate::template::{AddedToken, TemplateError, end_of_turn};
use crate::tokenizer::{
    CHAT_TEMPLATE, CONFIG, FILES, FOLDER, GENERATION_CONFIG, SPECIAL_TOKENS_MAP, TOKENIZER, inline_template,
    stop_ids, token_text,
};

/// The end of a turn in the Gemma 4 family, looked for where no template can be rendered.
const TURN_END: &str = "<turn|>";

/// Files that tokenizer libraries write besides [`FILES`].
const FURTHER_FILES: [&str; 7] = [
    "added_tokens.json",
    "chat_template.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.model",
    "vocab.json",
];

/// Whether a file belongs into the folder.
pub(super) fn expects(name: &str) -> bool {
    FILES.contains(&name) || FURTHER_FILES.contains(&name)
}

/// Checks the folder against itself and against the bundle's metadata.
pub(super) fn check(context: &mut Context<'_>, bundle: &Folder, metadata: &MetadataFacts) {
    let folder = bundle.part(FOLDER);
    if !folder.path.is_dir() {
        let what = "the bundle holds no tokenizer";
        context.report(&rules::TOKENIZER_MISSING, bundle, FOLDER, what);
        return;
    }
    let Some(vocabulary) = read_vocabulary(context, &folder) else { return };
    if let (Some(largest), Some(size)) = (vocabulary.largest_id, metadata.vocab_size)
        && largest >= size
    {
        let what =
            format!("the largest token id is {largest}, the vocabulary of the graph has {size} entries");
        context.report(&rules::TOKENIZER_IDS, &folder, TOKENIZER, what);
    }
    let config = read_object(context, &folder, CONFIG, &rules::TOKENIZER_FILE);
    let special_map = read_object(context, &folder, SPECIAL_TOKENS_MAP, &rules::TOKENIZER_FILE_NOTE);
    let generation = read_object(context, &folder, GENERATION_CONFIG, &rules::TOKENIZER_FILE_NOTE);

    let template = check_template(context, &folder, config.as_ref());
    let bos_token = config.as_ref().and_then(|config| token_text(config, "bos_token")).unwrap_or_default();
    let turn_end = match &template {
        Some(template) => match end_of_turn(template, &vocabulary.added_tokens, &bos_token) {
            Ok(token) => Some(token),
            Err(e) => {
                report_template_error(context, &folder, &e);
                vocabulary.named(TURN_END)
            }
        },
        None => vocabulary.named(TURN_END),
    };
    if let Some(turn_end) = turn_end {
        let files = Files { config, special_map, generation };
        check_turn_end(context, &folder, &turn_end, &files, &vocabulary);
        check_metadata_ids(context, bundle, &turn_end, metadata);
    }
}

struct Files {
    config: Option<Map<String, Value>>,
    special_map: Option<Map<String, Value>>,
    generation: Option<Map<String, Value>>,
}

fn report_template_error(context: &mut Context<'_>, folder: &Folder, error: &TemplateError) {
    context.report(&rules::TOKENIZER_TEMPLATE_BROKEN, folder, CHAT_TEMPLATE, error.to_string());
}

/// Checks where the template is; gives it, its own file first.
fn check_template(
    context: &mut Context<'_>,
    folder: &Folder,
    config: Option<&Map<String, Value>>,
) -> Option<String> {
    let file = small::read_text(&folder.path.join(CHAT_TEMPLATE), small::TEXT).ok();
    let inline = config.and_then(inline_template);
    match (&file, &inline) {
        (None, None) => {
            let what = "there is no chat template, neither as a file nor inlined";
            context.report(&rules::TOKENIZER_TEMPLATE, folder, CHAT_TEMPLATE, what);
        }
        (Some(_), None) if config.is_some() => {
            let what = format!("{CHAT_TEMPLATE} is not inlined as chat_template");
            context.report(&rules::TOKENIZER_INLINE, folder, CONFIG, what);
        }
        (None, Some(_)) => {
            let what = "the template is inlined only";
            context.report(&rules::TOKENIZER_FILE_NOTE, folder, CHAT_TEMPLATE, what);
        }
        (Some(file), Some(inline)) if file != inline => {
            let what = format!("chat_template is not the text of {CHAT_TEMPLATE}");
            context.report(&rules::TOKENIZER_TEMPLATE_DIFFERS, folder, CONFIG, what);
        }
        _ => {}
    }
    file.or(inline)
}

fn check_turn_end(
    context: &mut Context<'_>,
    folder: &Folder,
    turn_end: &AddedToken,
    files: &Files,
    vocabulary: &Vocabulary,
) {
    let ends = format!("the chat template ends a turn with {} (id {})", turn_end.content, turn_end.id);
    let eos = [
        (&files.config, CONFIG, &rules::TOKENIZER_EOS),
        (&files.special_map, SPECIAL_TOKENS_MAP, &rules::TOKENIZER_EOS_MAP),
    ];
    for (object, name, rule) in eos {
        let Some(object) = object else { continue };
        let found = token_text(object, "eos_token");
        if found.as_ref() != Some(&turn_end.content) {
            let id = found.as_ref().and_then(|text| vocabulary.named(text)).map(|token| token.id);
            let id = id.map_or(String::new(), |id| format!(" (id {id})"));
            let found = found.unwrap_or_else(|| "missing".to_owned());
            context.report(rule, folder, name, format!("eos_token is {found}{id}, {ends}"));
        }
    }
    if let Some(generation) = &files.generation {
        let stops = stop_ids(generation);
        if !stops.contains(&turn_end.id) {
            let what = format!("eos_token_id is {stops:?}, {ends}");
            context.report(&rules::TOKENIZER_STOPS, folder, GENERATION_CONFIG, what);
        }
    }
}

fn check_metadata_ids(
    context: &mut Context<'_>,
    bundle: &Folder,
    turn_end: &AddedToken,
    metadata: &MetadataFacts,
) {
    if let Some(ids) = metadata.eos_token_ids.as_ref().filter(|ids| !ids.is_empty())
        && !ids.contains(&turn_end.id)
    {
        let AddedToken { content, id } = turn_end;
        let what = format!("language.eos_token_ids is {ids:?}, without {id} ({content}) that ends a turn");
        context.report(&rules::METADATA_EOS_IDS, bundle, crate::metadata::FILE_NAME, what);
    }
}

fn read_object(
    context: &mut Context<'_>,
    folder: &Folder,
    name: &str,
    missing: &super::Rule,
) -> Option<Map<String, Value>> {
    match json::object(&folder.path.join(name)) {
        Ok(object) => Some(object),
        Err(Unreadable::Missing) => {
            context.report(missing, folder, name, "the file is missing");
            None
        }
        Err(Unreadable::Malformed(reason)) => {
            context.report(&rules::TOKENIZER_JSON, folder, name, reason);
            None
        }
    }
}

/// What the rules need of `tokenizer.json`.
struct Vocabulary {
    added_tokens: Vec<AddedToken>,
    largest_id: Option<u64>,
}

impl Vocabulary {
    fn named(&self, content: &str) -> Option<AddedToken> {
        self.added_tokens.iter().find(|token| token.content == content).cloned()
    }
}

fn read_vocabulary(context: &mut Context<'_>, folder: &Folder) -> Option<Vocabulary> {
    let Ok(bytes) = small::read(&folder.path.join(TOKENIZER), small::TOKENIZER) else {
        context.report(&rules::TOKENIZER_FILE, folder, TOKENIZER, "the file is missing");
        return None;
    };
    match serde_json::from_slice::<TokenizerFile>(&bytes) {
        Ok(file) => {
            let added = file.added_tokens.iter().map(|token| token.id).max();
            let model = file.model.and_then(|model| model.vocab).and_then(|vocab| vocab.0);
            Some(Vocabulary { largest_id: added.max(model), added_tokens: file.added_tokens })
        }
        Err(e) => {
            context.report(&rules::TOKENIZER_JSON, folder, TOKENIZER, e.to_string());
            None
        }
    }
}

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    vocab: Option<LargestId>,
}

/// The largest id of a vocabulary: a map from text to id, or a list whose positions are the ids.
struct LargestId(Option<u64>);

impl<'de> Deserialize<'de> for LargestId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LargestIdVisitor)
    }
}

struct LargestIdVisitor;

impl<'de> Visitor<'de> for LargestIdVisitor {
    type Value = LargestId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<LargestId, A::Error> {
        let mut largest = None;
        while let Some((_, id)) = map.next_entry::<IgnoredAny, u64>()? {
            largest = largest.max(Some(id));
        }
        Ok(LargestId(largest))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<LargestId, A::Error> {
        let mut count: u64 = 0;
        while list.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(LargestId(count.checked_sub(1)))
    }
}
