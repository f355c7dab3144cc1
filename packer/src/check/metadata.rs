//! Rules of a bundle's `metadata.json`.

use output::Digest;
use serde_json::{Map, Value};
use text::terminal::word;

use super::Rule;
use super::context::{Context, Folder};
use super::json::{self, Unreadable, kind, kind_of};
use super::rules;
use crate::metadata::{FILE_NAME, KIND, MAIN_ASSET, MAIN_FUNCTION, VERSION, asset_name, user_data};

/// Positions that the engine starts its cache with.
const FIRST_CACHE: u64 = 256;

/// What other rules need of the metadata.
#[derive(Default)]
pub(super) struct MetadataFacts {
    /// `assets.main`, if it stays inside the bundle.
    pub(super) main_asset: Option<String>,
    /// File names of all assets.
    pub(super) assets: Vec<String>,
    pub(super) vocab_size: Option<u64>,
    /// `language.eos_token_ids`, if it is a list of numbers.
    pub(super) eos_token_ids: Option<Vec<u64>>,
    /// Whether the bundle claims to hold its tokenizer.
    pub(super) embeds_tokenizer: bool,
    /// `compression.scheme`; None where compression is null or missing.
    pub(super) scheme: Option<String>,
    /// `compilation.targets`.
    pub(super) targets: Vec<String>,
    /// Stamp of the tables.
    pub(super) tables_digest: Option<Digest>,
    /// How the engine must fill further inputs.
    pub(super) engine_inputs: Option<String>,
    /// Tokens that `main` is said to take.
    pub(super) query_length: Option<String>,
    /// Tokens that `prefill` is said to take.
    pub(super) prefill_query_length: Option<String>,
    /// Pairs of caches that the graph is said to have.
    pub(super) cache_pairs: Option<String>,
    /// How prompts are cut; none without a `language` block.
    pub(super) chunk: Option<ChunkKeys>,
}

/// The keys of `language` that say how prompts are cut, as they are.
#[derive(Debug)]
pub(super) struct ChunkKeys {
    pub(super) size: Option<Value>,
    pub(super) threshold: Option<Value>,
}

/// Key of the longest chunk.
pub(super) const CHUNK_SIZE: &str = "prefill_chunk_size";
/// Key of the shortest prompt that is cut.
pub(super) const CHUNK_THRESHOLD: &str = "prefill_chunk_threshold";

/// Checks the file and returns what could be read from it; None if nothing could.
pub(super) fn check(context: &mut Context<'_>, folder: &Folder) -> Option<MetadataFacts> {
    let object = match json::object(&folder.path.join(FILE_NAME)) {
        Ok(object) => object,
        Err(Unreadable::Missing) => {
            context.report(&rules::METADATA_MISSING, folder, FILE_NAME, "the file is missing");
            return None;
        }
        Err(Unreadable::Malformed(reason)) => {
            context.report(&rules::METADATA_JSON, folder, FILE_NAME, reason);
            return None;
        }
    };
    let mut check = Check { context, folder, facts: MetadataFacts::default() };
    check.head(&object);
    check.assets(&object);
    match object.get("language") {
        Some(Value::Object(language)) => check.language(language),
        _ => check.report(&rules::METADATA_LANGUAGE, format!("language is {}", kind_of(&object, "language"))),
    }
    check.user_data(&object);
    check.source(&object);
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    check.facts.scheme = text(object.get("compression").and_then(|compression| compression.get("scheme")));
    let targets = object.get("compilation").and_then(|compilation| compilation.get("targets"));
    let targets = targets.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    check.facts.targets = targets.iter().filter_map(|target| text(Some(target))).collect();
    Some(check.facts)
}

/// Whether a text could be the name of a repository on the Hub.
fn is_hub_id(text: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    text.split('/').count() <= 2 && text.split('/').all(is_name)
}

struct Check<'c, 'a> {
    context: &'c mut Context<'a>,
    folder: &'c Folder,
    facts: MetadataFacts,
}

impl Check<'_, '_> {
    fn report(&mut self, rule: &Rule, what: impl Into<String>) {
        self.context.report(rule, self.folder, FILE_NAME, what);
    }

    fn head(&mut self, object: &Map<String, Value>) {
        let expected =
            [("metadata_version", VERSION, &rules::METADATA_VERSION), ("kind", KIND, &rules::METADATA_KIND)];
        for (key, value, rule) in expected {
            if object.get(key).is_none_or(|found| found != value) {
                let found = object.get(key).map_or("missing".to_owned(), Value::to_string);
                self.report(rule, format!("{key} is {found}, not \"{value}\""));
            }
        }
        let folder_name = self.folder.name();
        match object.get("name").and_then(Value::as_str) {
            None | Some("") => {
                self.report(&rules::METADATA_NAME, format!("name is {}", kind_of(object, "name")));
            }
            Some(name) if name != folder_name => {
                let what = format!("the bundle is called {name}, but its folder {folder_name}");
                self.report(&rules::METADATA_NAME_DIFFERS, what);
            }
            Some(_) => {}
        }
    }

    fn assets(&mut self, object: &Map<String, Value>) {
        let Some(assets) = object.get("assets").and_then(Value::as_object) else {
            self.report(&rules::METADATA_ASSETS, format!("assets is {}", kind_of(object, "assets")));
            return;
        };
        for (role, file) in assets {
            match file.as_str() {
                None => {
                    let what = format!("assets.{role} is {}, not a string", kind(file));
                    self.report(&rules::METADATA_ASSET_VALUE, what);
                }
                Some(file) if asset_name(file).is_err() => {
                    let what = format!("assets.{role} is '{}', which is not inside the bundle", word(file));
                    self.report(&rules::METADATA_ASSET_PLACE, what);
                }
                Some(file) => {
                    self.facts.assets.push(file.to_owned());
                    if role == MAIN_ASSET {
                        self.facts.main_asset = Some(file.to_owned());
                    }
                }
            }
        }
        if !assets.contains_key(MAIN_ASSET) {
            self.report(&rules::METADATA_MAIN_ASSET, format!("assets has no entry {MAIN_ASSET}"));
        }
    }

    fn language(&mut self, language: &Map<String, Value>) {
        self.facts.vocab_size = self.positive(language, "vocab_size", &rules::METADATA_VOCAB_SIZE);
        let context = self.positive(language, "max_context_length", &rules::METADATA_MAX_CONTEXT);
        if let Some(context) = context
            && !(context.is_multiple_of(FIRST_CACHE) && context.is_power_of_two())
        {
            let what = format!("max_context_length is {context}, not {FIRST_CACHE} times a power of 2");
            self.report(&rules::METADATA_MAX_CONTEXT_STEP, what);
        }
        match language.get("tokenizer").and_then(Value::as_str) {
            None => {
                let what = format!("language.tokenizer is {}", kind_of(language, "tokenizer"));
                self.report(&rules::METADATA_TOKENIZER, what);
            }
            Some(id) if !is_hub_id(id) => {
                self.report(
                    &rules::METADATA_TOKENIZER_ID,
                    format!("language.tokenizer is '{id}', which is not a Hub id"),
                );
            }
            Some(_) => {}
        }
        self.facts.embeds_tokenizer = match language.get("embedded_tokenizer") {
            None | Some(Value::Bool(true)) => true,
            Some(other) => {
                self.report(&rules::METADATA_EMBEDDED, format!("language.embedded_tokenizer is {other}"));
                false
            }
        };
        self.function_map(language);
        let keep = |key: &str| language.get(key).cloned();
        self.facts.chunk = Some(ChunkKeys { size: keep(CHUNK_SIZE), threshold: keep(CHUNK_THRESHOLD) });
        self.eos_token_ids(language);
    }

    fn positive(&mut self, language: &Map<String, Value>, key: &str, rule: &Rule) -> Option<u64> {
        let value = language.get(key).and_then(Value::as_u64).filter(|&value| value > 0);
        if value.is_none() {
            let found = language.get(key).map_or("missing".to_owned(), Value::to_string);
            self.report(rule, format!("language.{key} is {found}, not a positive whole number"));
        }
        value
    }

    fn function_map(&mut self, language: &Map<String, Value>) {
        let Some(map) = language.get("function_map") else {
            self.report(&rules::METADATA_FUNCTION_MAP_MISSING, "language.function_map is missing");
            return;
        };
        let names = map.get(MAIN_FUNCTION).and_then(Value::as_array);
        if !names.is_some_and(|names| names.iter().any(|name| name == MAIN_FUNCTION)) {
            let what = format!("language.function_map is {map}, not {{\"main\": [\"main\"]}}");
            self.report(&rules::METADATA_FUNCTION_MAP, what);
        }
    }

    fn eos_token_ids(&mut self, language: &Map<String, Value>) {
        let Some(value) = language.get("eos_token_ids") else {
            self.report(&rules::METADATA_EOS_IDS_MISSING, "language.eos_token_ids is missing");
            return;
        };
        let ids: Option<Vec<u64>> = value.as_array().and_then(|ids| ids.iter().map(Value::as_u64).collect());
        if ids.as_ref().is_none_or(Vec::is_empty) {
            let what = format!("language.eos_token_ids is {value}, not a list of token ids");
            self.report(&rules::METADATA_EOS_IDS, what);
        }
        self.facts.eos_token_ids = ids;
    }

    fn user_data(&mut self, object: &Map<String, Value>) {
        let empty = Map::new();
        let entries = match object.get("user_data") {
            Some(Value::Object(entries)) => entries,
            None => &empty,
            Some(other) => {
                self.report(&rules::METADATA_USER_DATA, format!("user_data is {}", kind(other)));
                &empty
            }
        };
        for (key, value) in entries.iter().filter(|(_, value)| !value.is_string()) {
            let what = format!("user_data.{key} is {} ({value}), not a string", kind(value));
            self.report(&rules::METADATA_USER_DATA, what);
        }
        let text = |key: &str| entries.get(key).and_then(Value::as_str);
        self.facts.engine_inputs = text(user_data::ENGINE_INPUTS).map(str::to_owned);
        self.facts.cache_pairs = text(user_data::CACHE_PAIRS).map(str::to_owned);
        self.facts.query_length = text(user_data::QUERY_LENGTH).map(str::to_owned);
        self.facts.prefill_query_length = text(user_data::PREFILL_QUERY_LENGTH).map(str::to_owned);
        self.facts.tables_digest = text(user_data::TABLES_DIGEST).and_then(|digest| digest.parse().ok());
    }

    fn source(&mut self, object: &Map<String, Value>) {
        let Some(source) = object.get("source").and_then(Value::as_object) else {
            self.report(&rules::METADATA_SOURCE, format!("source is {}", kind_of(object, "source")));
            return;
        };
        if let Some(id) = source.get("hf_model_id").and_then(Value::as_str)
            && !is_hub_id(id)
        {
            self.report(
                &rules::METADATA_SOURCE_ID,
                format!("source.hf_model_id is '{id}', which is not a Hub id"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_hub_id;

    #[test]
    fn hub_ids_are_distinguished_from_paths() {
        for id in ["google/gemma-4-E4B-it-qat-q4_0-unquantized", "gpt2", "a.b/c_d"] {
            assert!(is_hub_id(id), "{id}");
        }
        for path in ["/models/x", "./x", "../x", "a/b/c", "C:\\x", "~/x", "", "owner/", "models/x y"] {
            assert!(!is_hub_id(path), "{path}");
        }
    }
}
