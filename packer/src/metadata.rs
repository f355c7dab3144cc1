//! `metadata.json` of a bundle, schema 0.2: what the loader on the device reads first.

use std::fmt;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use output::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use text::names::{self, NameError};

use crate::FileError;
use crate::files;

/// File name inside a bundle.
pub const FILE_NAME: &str = "metadata.json";
/// The only schema version that loaders accept.
pub const VERSION: &str = "0.2";
/// The kind of bundle this project makes.
pub const KIND: &str = "llm";
/// Key of the graph in `assets`.
pub const MAIN_ASSET: &str = "main";
/// The function that every graph has, and its role.
pub const MAIN_FUNCTION: &str = "main";
/// The function that reads prompts, where a graph has one. Engines find it by this name; `function_map` does not list it.
pub const PREFILL_FUNCTION: &str = "prefill";

/// Keys that this project writes into `user_data`.
pub mod user_data {
    /// How the engine must fill inputs beyond ids and positions; see [`EngineInputs`](super::EngineInputs).
    pub const ENGINE_INPUTS: &str = "engine_inputs";
    /// Tokens that a call of `main` takes: `1`, or `dynamic`.
    pub const QUERY_LENGTH: &str = "query_length";
    /// Tokens that a call of `prefill` takes: a number, or `dynamic`. Graphs without that function have no such entry.
    pub const PREFILL_QUERY_LENGTH: &str = "prefill_query_length";
    /// Pairs of caches that the graph has as states, where it has more than one.
    pub const CACHE_PAIRS: &str = "cache_pairs";
    /// SHA-256 stamp of the gather tables that belong to the bundle.
    pub const TABLES_DIGEST: &str = "tables_digest";
    /// Name and version of the tool that wrote the bundle.
    pub const TOOL: &str = "tool";
}

/// A `metadata.json` that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// The file system refused.
    #[error(transparent)]
    File(#[from] FileError),
    /// The text is not the expected JSON.
    #[error("{} is not bundle metadata: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// An asset that is not in the bundle.
    #[error("{}: asset {role:?}: {source}", path.display())]
    Asset {
        /// The file.
        path: PathBuf,
        /// Key in `assets`.
        role: String,
        /// Which name, and why.
        source: NameError,
    },
}

/// What the engine must do for the graph's inputs beyond `input_ids` and `position_ids`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineInputs {
    /// Nothing: Apple's unpatched engine runs the graph.
    None,
    /// Fill fixed-shape inputs at every step (the community fork's per-token patch).
    PerToken,
    /// Bind named inputs once (the community fork's static patch).
    Static,
}

impl EngineInputs {
    /// The value of [`user_data::ENGINE_INPUTS`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::PerToken => "per-token",
            Self::Static => "static",
        }
    }

    /// What the names of a graph's inputs require.
    pub fn of_inputs<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut required = Self::None;
        for name in names {
            match name {
                "input_ids" | "position_ids" => {}
                "ple_table" | "ple_scale" => return Self::Static,
                _ => required = Self::PerToken,
            }
        }
        required
    }
}

/// Accepts the path of an asset within the bundle; folders may end with a slash.
pub(crate) fn asset_name(file: &str) -> Result<(), NameError> {
    names::path(file.strip_suffix('/').unwrap_or(file))
}

/// The whole file. Keys that this project does not know are kept, after the known ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BundleMetadata {
    /// [`VERSION`].
    pub metadata_version: String,
    /// [`KIND`].
    pub kind: String,
    /// The bundle's name, that of its folder.
    pub name: String,
    /// Role to file name inside the bundle; [`MAIN_ASSET`] is the graph.
    pub assets: IndexMap<String, String>,
    /// What the language engine needs to know.
    pub language: LanguageMetadata,
    /// Where the weights come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceMetadata>,
    /// How weights are stored; written as null where they are not compressed.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// What the graph was compiled for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compilation: Option<Compilation>,
    /// Free-form strings; see [`user_data`].
    #[serde(default)]
    pub user_data: IndexMap<String, String>,
    /// Unknown keys, kept.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The `language` block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LanguageMetadata {
    /// Hub id of the tokenizer, asked for over the network only where none is embedded.
    pub tokenizer: String,
    /// Length of the logits' last axis.
    pub vocab_size: u64,
    /// Positions the cache may grow to.
    pub max_context_length: u64,
    /// Whether `tokenizer/` is in the bundle.
    #[serde(default = "default_true")]
    pub embedded_tokenizer: bool,
    /// Role to names of graph functions.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub function_map: IndexMap<String, Vec<String>>,
    /// Largest number of tokens in a chunk of a prompt: 1 if the graph takes one at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_chunk_size: Option<u64>,
    /// Prompt length from which prefill is chunked; the engine needs none where the graph has a dynamic function to read prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefill_chunk_threshold: Option<u64>,
    /// Token ids that end a reply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub eos_token_ids: Vec<u64>,
    /// Unknown keys, kept.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn default_true() -> bool {
    true
}

/// The `source` block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceMetadata {
    /// Who defined the graph: the name of the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_definition: Option<String>,
    /// Repository of the checkpoint. None, and never a local path, for a checkpoint of unknown origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hf_model_id: Option<String>,
    /// Commit of the checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hf_revision: Option<String>,
    /// Which weights: the checkpoint's files, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Unknown keys, kept.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The `compression` block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compression {
    /// Name of the scheme.
    pub scheme: String,
    /// Unknown keys, kept.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The `compilation` block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compilation {
    /// When, if that is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// Architectures such as `h18p`; empty for a portable graph.
    #[serde(default)]
    pub targets: Vec<String>,
    /// Unknown keys, kept.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// Tokens that a call of a function takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryLength {
    /// This many.
    Fixed(u64),
    /// Any number.
    Dynamic,
}

impl fmt::Display for QueryLength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(tokens) => tokens.fmt(f),
            Self::Dynamic => f.write_str("dynamic"),
        }
    }
}

/// How the engine reads prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptReading {
    /// Tokens that a call of `main` takes.
    pub main: QueryLength,
    /// Tokens that a call of `prefill` takes, if there is that function.
    pub prefill: Option<QueryLength>,
    /// Largest number of tokens in a chunk of a prompt, where a function takes any number.
    pub chunk: u64,
}

impl PromptReading {
    /// One token at a time.
    pub const ONE_BY_ONE: Self = Self { main: QueryLength::Fixed(1), prefill: None, chunk: 1 };

    /// What reads prompts: `prefill`, or `main` if it is alone.
    fn reader(&self) -> QueryLength {
        self.prefill.unwrap_or(self.main)
    }

    /// `prefill_chunk_size`.
    pub fn chunk_size(&self) -> u64 {
        match self.reader() {
            QueryLength::Fixed(tokens) => tokens,
            QueryLength::Dynamic => self.chunk,
        }
    }

    /// `prefill_chunk_threshold`: a function of fixed width is used from the first prompt that fills it.
    pub fn chunk_threshold(&self) -> Option<u64> {
        match self.reader() {
            QueryLength::Fixed(tokens) => Some(tokens),
            QueryLength::Dynamic => None,
        }
    }
}

/// What differs from one language bundle of this project to the next.
#[derive(Clone, Debug)]
pub struct LanguageBundle<'a> {
    /// Name of the bundle and of its folder.
    pub name: &'a str,
    /// File name of the graph package inside the bundle.
    pub asset: &'a str,
    /// Hub id for [`LanguageMetadata::tokenizer`].
    pub tokenizer: &'a str,
    /// Length of the logits' last axis.
    pub vocab_size: u64,
    /// Positions the cache may grow to.
    pub max_context_length: u64,
    /// Token ids that end a reply.
    pub eos_token_ids: &'a [u64],
    /// What the engine must do for further inputs.
    pub engine_inputs: EngineInputs,
    /// How prompts are read.
    pub prompts: PromptReading,
    /// Where the weights come from.
    pub source: SourceMetadata,
    /// Name of the weight scheme; None for uncompressed weights.
    pub scheme: Option<&'a str>,
    /// Name and version of the tool.
    pub tool: &'a str,
}

impl BundleMetadata {
    /// The metadata of a decoder bundle with an embedded tokenizer.
    pub fn language_bundle(bundle: &LanguageBundle<'_>) -> Self {
        let inputs = (user_data::ENGINE_INPUTS.to_owned(), bundle.engine_inputs.as_str().to_owned());
        let mut metadata = Self {
            metadata_version: VERSION.to_owned(),
            kind: KIND.to_owned(),
            name: bundle.name.to_owned(),
            assets: IndexMap::from([(MAIN_ASSET.to_owned(), bundle.asset.to_owned())]),
            language: LanguageMetadata {
                tokenizer: bundle.tokenizer.to_owned(),
                vocab_size: bundle.vocab_size,
                max_context_length: bundle.max_context_length,
                embedded_tokenizer: true,
                function_map: IndexMap::from([(MAIN_FUNCTION.to_owned(), vec![MAIN_FUNCTION.to_owned()])]),
                prefill_chunk_size: None,
                prefill_chunk_threshold: None,
                eos_token_ids: bundle.eos_token_ids.to_vec(),
                other: Map::new(),
            },
            source: Some(bundle.source.clone()),
            compression: bundle
                .scheme
                .map(|scheme| Compression { scheme: scheme.to_owned(), other: Map::new() }),
            compilation: None,
            user_data: IndexMap::from([inputs]),
            other: Map::new(),
        };
        metadata.set_prompts(bundle.prompts);
        metadata.user_data.insert(user_data::TOOL.to_owned(), bundle.tool.to_owned());
        metadata
    }

    /// Says how many pairs of caches the graph has: nothing if it is one, as in most graphs.
    pub fn set_cache_pairs(&mut self, pairs: usize) {
        if pairs > 1 {
            self.user_data.insert(user_data::CACHE_PAIRS.to_owned(), pairs.to_string());
        }
    }

    /// Says how prompts are read.
    pub fn set_prompts(&mut self, prompts: PromptReading) {
        self.language.prefill_chunk_size = Some(prompts.chunk_size());
        self.language.prefill_chunk_threshold = prompts.chunk_threshold();
        let lengths = [
            (user_data::QUERY_LENGTH, Some(prompts.main)),
            (user_data::PREFILL_QUERY_LENGTH, prompts.prefill),
        ];
        for (key, length) in lengths {
            match length {
                Some(length) => self.user_data.insert(key.to_owned(), length.to_string()),
                None => self.user_data.shift_remove(key),
            };
        }
    }

    /// Reads `metadata.json` of the bundle at `folder`.
    ///
    /// # Errors
    /// When the file is missing or lacks what a loader needs.
    pub fn read(folder: &Path) -> Result<Self, MetadataError> {
        let path = folder.join(FILE_NAME);
        let bytes = files::read_json(&path)?;
        let metadata: Self = serde_json::from_slice(&bytes)
            .map_err(|source| MetadataError::Json { path: path.clone(), source })?;
        for (role, file) in &metadata.assets {
            asset_name(file).map_err(|source| MetadataError::Asset {
                path: path.clone(),
                role: role.clone(),
                source,
            })?;
        }
        Ok(metadata)
    }

    /// The file's bytes: known keys in the order of this structure, two-space indentation, a final newline.
    ///
    /// # Errors
    /// When a kept unknown value cannot be written as JSON.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Writes `metadata.json` into `folder`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), MetadataError> {
        let path = folder.join(FILE_NAME);
        let bytes = self.to_bytes().map_err(|source| MetadataError::Json { path: path.clone(), source })?;
        Ok(files::write(&path, &bytes)?)
    }

    /// The stamp of the tables that belong to the bundle, if it has one.
    pub fn tables_digest(&self) -> Option<Digest> {
        self.user_data.get(user_data::TABLES_DIGEST)?.parse().ok()
    }

    /// Stamps the bundle with the digest of its tables.
    pub fn set_tables_digest(&mut self, digest: &Digest) {
        self.user_data.insert(user_data::TABLES_DIGEST.to_owned(), digest.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> BundleMetadata {
        let mut metadata = BundleMetadata::language_bundle(&LanguageBundle {
            name: "gemma4_e4b_qat_decode_int4lin",
            asset: "gemma4_e4b_qat_decode_int4lin.aimodel",
            tokenizer: "google/gemma-4-E4B-it-qat-q4_0-unquantized",
            vocab_size: 262_144,
            max_context_length: 4096,
            eos_token_ids: &[1, 106],
            engine_inputs: EngineInputs::PerToken,
            prompts: PromptReading::ONE_BY_ONE,
            source: SourceMetadata {
                model_definition: Some("coreai-bundle".into()),
                hf_model_id: Some("google/gemma-4-E4B-it-qat-q4_0-unquantized".into()),
                hf_revision: Some("0123456789abcdef".into()),
                weights: Some("model.safetensors".into()),
                other: Map::new(),
            },
            scheme: Some("int4-lattice-block32"),
            tool: "coreai-bundle 0.1.0",
        });
        metadata.set_tables_digest(&Digest::of_bytes(b"tables"));
        metadata
    }

    #[test]
    fn written_text_is_fixed() {
        let expected = r#"{
  "metadata_version": "0.2",
  "kind": "llm",
  "name": "gemma4_e4b_qat_decode_int4lin",
  "assets": {
    "main": "gemma4_e4b_qat_decode_int4lin.aimodel"
  },
  "language": {
    "tokenizer": "google/gemma-4-E4B-it-qat-q4_0-unquantized",
    "vocab_size": 262144,
    "max_context_length": 4096,
    "embedded_tokenizer": true,
    "function_map": {
      "main": [
        "main"
      ]
    },
    "prefill_chunk_size": 1,
    "prefill_chunk_threshold": 1,
    "eos_token_ids": [
      1,
      106
    ]
  },
  "source": {
    "model_definition": "coreai-bundle",
    "hf_model_id": "google/gemma-4-E4B-it-qat-q4_0-unquantized",
    "hf_revision": "0123456789abcdef",
    "weights": "model.safetensors"
  },
  "compression": {
    "scheme": "int4-lattice-block32"
  },
  "user_data": {
    "engine_inputs": "per-token",
    "query_length": "1",
    "tool": "coreai-bundle 0.1.0",
    "tables_digest": "TABLES"
  }
}
"#;
        let expected = expected.replace("TABLES", &Digest::of_bytes(b"tables").to_string());
        assert_eq!(String::from_utf8(example().to_bytes().unwrap()).unwrap(), expected);
    }

    #[test]
    fn chunk_keys_follow_from_what_reads_prompts() {
        use QueryLength::{Dynamic, Fixed};
        let reading = |main, prefill| PromptReading { main, prefill, chunk: 512 };
        let cases = [
            (reading(Fixed(1), None), 1, Some(1)),
            (reading(Fixed(1), Some(Dynamic)), 512, None),
            (reading(Dynamic, Some(Dynamic)), 512, None),
            (reading(Dynamic, None), 512, None),
            (reading(Fixed(1), Some(Fixed(64))), 64, Some(64)),
        ];
        for (reading, size, threshold) in cases {
            assert_eq!((reading.chunk_size(), reading.chunk_threshold()), (size, threshold), "{reading:?}");
        }
    }

    #[test]
    fn reading_is_tolerant_and_keeps_unknown_keys() {
        let scratch = tempfile::tempdir().unwrap();
        let text = r#"{"kind":"llm","new_block":{"b":1,"a":[2]},"metadata_version":"0.2","name":"n",
            "assets":{"main":"n.aimodel"},"compression":null,
            "language":{"tokenizer":"o/n","vocab_size":512,"max_context_length":1024,"overrides":{"x":1.5}}}"#;
        std::fs::write(scratch.path().join(FILE_NAME), text).unwrap();
        let metadata = BundleMetadata::read(scratch.path()).unwrap();
        assert!(metadata.language.embedded_tokenizer);
        metadata.write(scratch.path()).unwrap();
        let written: Value =
            serde_json::from_slice(&std::fs::read(scratch.path().join(FILE_NAME)).unwrap()).unwrap();
        assert_eq!(written["new_block"].to_string(), r#"{"b":1,"a":[2]}"#);
        assert_eq!(written["language"]["overrides"]["x"], 1.5);
        assert!(written["compression"].is_null());
        assert_eq!(BundleMetadata::read(scratch.path()).unwrap(), metadata);
    }

    #[test]
    fn unreadable_metadata_names_the_file() {
        let scratch = tempfile::tempdir().unwrap();
        let missing = BundleMetadata::read(scratch.path()).unwrap_err();
        assert!(missing.to_string().contains("metadata.json"), "{missing}");
        std::fs::write(scratch.path().join(FILE_NAME), "{\"name\": 3}").unwrap();
        let wrong = BundleMetadata::read(scratch.path()).unwrap_err();
        assert!(wrong.to_string().contains("metadata.json"), "{wrong}");
    }

    #[test]
    fn engine_inputs_follow_the_names() {
        let of = |names: &[&str]| EngineInputs::of_inputs(names.iter().copied());
        assert_eq!(of(&["input_ids", "position_ids"]), EngineInputs::None);
        assert_eq!(of(&["input_ids", "position_ids", "ple_tokens"]), EngineInputs::PerToken);
        assert_eq!(of(&["input_ids", "position_ids", "ple_table", "ple_scale"]), EngineInputs::Static);
    }
}
