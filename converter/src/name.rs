//! Names of outputs, as the published bundles have them.

use std::fmt;

use quantizer::Int4Rule;

use crate::decoder::Variant;
use crate::plan::GraphPlan;
use crate::recipe::Treatment;
use checkpoint::config::{CacheForm, DecoderConfig};

/// Who publishes the checkpoints that have a name of their own here.
const PUBLISHER: &str = "google";
/// Words of those checkpoints' names besides the size, of the small one that comes with this project, and of folders whose name says
/// nothing about what is in them.
const PUBLISHED: [&str; 21] = [
    "gemma",
    "gemma4",
    "4",
    "it",
    "pt",
    "qat",
    "q4",
    "0",
    "q4_0",
    "int4",
    "mobile",
    "unquantized",
    "hf",
    "bf16",
    "ct",
    "tiny",
    "model",
    "models",
    "checkpoint",
    "weights",
    "source",
];
/// Characters of a checkpoint's own name that are kept: file names with suffixes must not become too long.
const LONGEST: usize = 100;

/// What the outputs of one checkpoint are called: `gemma4_e4b_qat`, and suffixes to that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelName(String);

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ModelName {
    /// The name of a model that a repository `owner/name` or a folder is called after.
    ///
    /// Google's own checkpoints have the names of the published bundles: `gemma4_`, the size (`e4b`) from the name, else from the
    /// configuration's shape, and `_qat` if the name says so. Folders count as theirs if their name has no other word. Every other
    /// checkpoint, such as a fine-tune, keeps its own name.
    pub fn new(origin: &str, config: &DecoderConfig) -> Self {
        let (owner, name) =
            origin.rsplit_once('/').map_or((None, origin), |(owner, name)| (Some(owner), name));
        let words: Vec<String> = name
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_ascii_lowercase)
            .collect();
        let is_known = |word: &String| PUBLISHED.contains(&word.as_str()) || is_size(word);
        let is_published = owner == Some(PUBLISHER) || owner.is_none() && words.iter().all(is_known);
        if let (false, Some(own)) = (is_published, own_name(name)) {
            return ModelName(own);
        }
        let size = words.iter().find(|word| is_size(word)).cloned().unwrap_or_else(|| size_of_shape(config));
        let qat = if words.iter().any(|word| word == "qat") { "_qat" } else { "" };
        ModelName(format!("gemma4_{size}{qat}"))
    }

    /// A name that the user chose; `None` if it cannot be part of a path.
    pub fn given(name: &str) -> Option<Self> {
        let plain = text::names::component(name).is_ok() && !name.starts_with('.');
        plain.then(|| ModelName(name.to_owned()))
    }

    /// Name of a graph's bundle, and of its folder. The only graph of a model without tables has no suffix.
    pub fn bundle(&self, graph: &GraphPlan) -> String {
        let weights = match graph.recipe.projections {
            Treatment::Int4(Int4Rule::Lattice) => "int4lin",
            Treatment::Int4(Int4Rule::Q4_0) => "int4q4_0",
            Treatment::Int4(Int4Rule::Absmax) => "int4absmax",
            Treatment::Int8 => "int8lin",
            Treatment::F16 => "f16",
        };
        let suffix = match graph.variant {
            Variant::Table => "_tbl",
            Variant::Stock if graph.has_tables => "_stock",
            Variant::Provider | Variant::Stock => "",
        };
        let caches = match graph.caches {
            CacheForm::Padded => "",
            CacheForm::Split => "_split",
        };
        let mixed = if graph.recipe.overrides.is_empty() { "" } else { "_mixed" };
        format!("{}_decode_{weights}{mixed}{suffix}{caches}", self.0)
    }

    /// Name of the per-layer table as one file.
    pub fn table_file(&self) -> String {
        format!("{}_ple.safetensors", self.0)
    }

    /// Name of the table folder.
    pub fn tables(&self) -> String {
        format!("{}_gather_raw", self.0)
    }
}

/// A checkpoint's own name as a file name; none if nothing of it can be one.
fn own_name(name: &str) -> Option<String> {
    let plain =
        |letter: char| if letter.is_ascii_alphanumeric() || "-_.".contains(letter) { letter } else { '_' };
    let name: String = name.chars().map(plain).take(LONGEST).collect();
    let name = name.trim_matches(['.', '_', '-']);
    ModelName::given(name).map(|name| name.0)
}

/// Digits and `b`, perhaps after an `e`: e2b, 31b.
fn is_size(word: &str) -> bool {
    let digits = word.strip_prefix('e').unwrap_or(word).strip_suffix('b');
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn size_of_shape(config: &DecoderConfig) -> String {
    match (config.layers.len(), config.hidden) {
        (42, 2560) => "e4b".to_owned(),
        (35, 1536) => "e2b".to_owned(),
        (48, 3840) => "12b".to_owned(),
        (60, 5376) => "31b".to_owned(),
        (layers, hidden) => format!("l{layers}h{hidden}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(origin: &str) -> String {
        let config = fixtures::data::folder().join("configs");
        let config = std::fs::read_dir(config).unwrap().map(|entry| entry.unwrap().path()).min().unwrap();
        ModelName::new(origin, &DecoderConfig::from_json(&std::fs::read(config).unwrap()).unwrap())
            .to_string()
    }

    #[test]
    fn published_checkpoints_have_published_names_and_others_keep_theirs() {
        for (origin, expected) in [
            ("google/gemma-4-E4B-it-qat-q4_0-unquantized", "gemma4_e4b_qat"),
            ("google/gemma-4-31B-it", "gemma4_31b"),
            ("gemma-4-E4B-it-qat", "gemma4_e4b_qat"),
            ("tiny-e4b-qat", "gemma4_e4b_qat"),
            ("me/gemma-4-E4B-it-qat", "gemma-4-E4B-it-qat"),
            ("me/Support-Bot.v2", "Support-Bot.v2"),
            ("my bot (e4b)", "my_bot__e4b"),
            ("gemma-4-E4B-it-medical", "gemma-4-E4B-it-medical"),
            ("..", "gemma4_"),
            ("me/...", "gemma4_"),
            ("nul", "gemma4_"),
        ] {
            let name = name(origin);
            let is_shaped = expected.ends_with('_') && name.starts_with(expected);
            assert!(name == expected || is_shaped, "{origin}: {name}");
        }
        assert_eq!(name(&"x".repeat(300)).len(), LONGEST);
    }
}
