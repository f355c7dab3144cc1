//! Names of outputs, as the published bundles have them.

use crate::decoder::Variant;
use crate::plan::GraphPlan;
use crate::recipe::Treatment;
use checkpoint::config::{CacheForm, DecoderConfig};

/// What the outputs of one checkpoint are called: `gemma4_e4b_qat`, and suffixes to that.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ModelName(String);

impl ModelName {
    /// The name of a model that a repository or folder called `origin` holds.
    ///
    /// The size (`e4b`) is taken from the origin, else from the configuration's shape; `_qat` only from the origin.
    pub fn new(origin: &str, config: &DecoderConfig) -> Self {
        let words: Vec<String> = origin
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .split(|letter: char| !letter.is_ascii_alphanumeric())
            .map(str::to_ascii_lowercase)
            .collect();
        let size = words.iter().find(|word| is_size(word)).cloned().unwrap_or_else(|| size_of_shape(config));
        let qat = if words.iter().any(|word| word == "qat") { "_qat" } else { "" };
        ModelName(format!("gemma4_{size}{qat}"))
    }

    /// A name that the user chose; `None` if it cannot be part of a path.
    pub fn given(name: &str) -> Option<Self> {
        let plain = text::names::component(name).is_ok() && !name.starts_with('.');
        plain.then(|| ModelName(name.to_owned()))
    }

    /// What all names begin with.
    pub fn base(&self) -> &str {
        &self.0
    }

    /// Name of a graph's bundle, and of its folder. The only graph of a model without tables has no suffix.
    pub fn bundle(&self, graph: &GraphPlan) -> String {
        let weights = match graph.recipe.projections {
            Treatment::Int4(_) => "int4lin",
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
