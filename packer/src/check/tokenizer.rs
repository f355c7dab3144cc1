//! Rules of the `tokenizer/` folder.

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
use crate::vocabulary::Vocabulary;

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

/// Whether a file belongs in the folder.
pub(super) fn expects(name: &str) -> bool {
    FILES.contains(&name) || FURTHER_FILES.contains(&name)
}

/// Checks the folder against itself and against the bundle's metadata.
pub(super) fn check(context: &mut Context<'_>, bundle: &Folder, metadata: &MetadataFacts) {
    let folder = bundle.part(FOLDER);
    if !paths::is_folder(&folder.path) {
        let what = "the bundle holds no tokenizer";
        context.report(&rules::TOKENIZER_MISSING, bundle, FOLDER, what);
        return;
    }
    let Some(vocabulary) = read_vocabulary(context, &folder) else { return };
    if let Some(size) = metadata.vocab_size
        && let Some(largest) = vocabulary.id_beyond(size)
    {
        let what =
            format!("the largest token id is {largest}, but the vocabulary of the graph has {size} entries");
        context.report(&rules::TOKENIZER_IDS, &folder, TOKENIZER, what);
    }
    let config = read_object(context, &folder, CONFIG, &rules::TOKENIZER_FILE);
    let special_map = read_object(context, &folder, SPECIAL_TOKENS_MAP, &rules::TOKENIZER_FILE_NOTE);
    let generation = read_object(context, &folder, GENERATION_CONFIG, &rules::TOKENIZER_FILE_NOTE);

    let template = check_template(context, &folder, config.as_ref());
    let bos_token = config.as_ref().and_then(|config| token_text(config, "bos_token")).unwrap_or_default();
    let usual = || vocabulary.usual_turn_end().cloned();
    let render = context.options.render;
    let turn_end = match &template {
        Some(template) => match end_of_turn(template, &vocabulary.added_tokens, &bos_token, render) {
            Ok(token) => Some(token),
            Err(e) => {
                report_template_error(context, &folder, &e);
                usual()
            }
        },
        None => usual(),
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

/// Checks where the template is; returns it, preferably from its own file.
fn check_template(
    context: &mut Context<'_>,
    folder: &Folder,
    config: Option<&Map<String, Value>>,
) -> Option<String> {
    let file = paths::read_text(&folder.path.join(CHAT_TEMPLATE), small::TEXT).ok();
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

fn read_vocabulary(context: &mut Context<'_>, folder: &Folder) -> Option<Vocabulary> {
    let Ok(bytes) = paths::read(&folder.path.join(TOKENIZER), small::TOKENIZER) else {
        context.report(&rules::TOKENIZER_FILE, folder, TOKENIZER, "the file is missing");
        return None;
    };
    match Vocabulary::read(&bytes) {
        Ok(vocabulary) => Some(vocabulary),
        Err(e) => {
            context.report(&rules::TOKENIZER_JSON, folder, TOKENIZER, e.to_string());
            None
        }
    }
}
