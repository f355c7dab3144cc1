//! What bundles and their checks need to know of `tokenizer.json`: the added tokens and the largest id.

use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::normalizer::Steps;
use crate::template::AddedToken;

/// The end of a turn in the Gemma 4 family, looked up by text where there is no template to render.
pub(crate) const TURN_END: &str = "<turn|>";

/// The tokens of a `tokenizer.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vocabulary {
    pub(crate) added_tokens: Vec<AddedToken>,
    largest_id: Option<u64>,
}

impl Vocabulary {
    /// Reads the bytes of a `tokenizer.json`, and refuses one whose steps must not be run.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let file: TokenizerFile = serde_json::from_slice(bytes)?;
        if let Some(reason) = file.steps.refusal() {
            return Err(serde_json::Error::custom(reason));
        }
        let added = file.added_tokens.iter().map(|token| token.id).max();
        let model = file.model.and_then(|model| model.vocab).and_then(|vocab| vocab.0);
        Ok(Self { largest_id: added.max(model), added_tokens: file.added_tokens })
    }

    /// The added token with this text.
    pub(crate) fn named(&self, content: &str) -> Option<&AddedToken> {
        self.added_tokens.iter().find(|token| token.content == content)
    }

    /// The token that ends a turn where there is no template to show it.
    pub(crate) fn usual_turn_end(&self) -> Option<&AddedToken> {
        self.named(TURN_END)
    }

    /// The largest id, if a graph with `size` embeddings has no embedding for it.
    pub(crate) fn id_beyond(&self, size: u64) -> Option<u64> {
        self.largest_id.filter(|largest| *largest >= size)
    }
}

#[derive(Deserialize)]
struct TokenizerFile {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    model: Option<Model>,
    #[serde(flatten)]
    steps: Steps,
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
