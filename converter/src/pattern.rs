//! Which tensors a format is for: a group of roles, or names with wildcards.

use std::fmt;
use std::str::FromStr;

use checkpoint::{LayerRole, Role};

/// A group of roles: its name, and which ones it holds.
type Group = (&'static str, fn(Role) -> bool);

/// Groups of roles that have a name of their own.
const GROUPS: [Group; 4] = [
    ("head", |role| role == Role::Head),
    ("attention", |role| matches!(role, Role::Layer(_, layer) if is_attention(layer))),
    ("mlp", |role| {
        matches!(role, Role::Layer(_, LayerRole::GateProj | LayerRole::UpProj | LayerRole::DownProj))
    }),
    ("per-layer", |role| role.is_projection() && role.is_per_layer()),
];

/// Suffix of most names, which a pattern may leave out.
const SUFFIX: &str = ".weight";

/// Longest pattern, in bytes.
const LONGEST: usize = 200;

/// Tensors that may be quantized: those of a group (`head`, `attention`, `mlp`, `per-layer`), or those whose short name
/// (`layers.5.mlp.down_proj`) matches, where `*` stands for any characters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorPattern(String);

/// A text that is not a pattern.
#[derive(Debug, thiserror::Error)]
#[error(
    "{text:?} is not a pattern: give head, attention, mlp, per-layer, or a name such as layers.*.mlp.down_proj, where * stands for \
     any characters"
)]
pub struct PatternError {
    text: String,
}

impl FromStr for TensorPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
        if text.is_empty() || text.len() > LONGEST || !text.bytes().all(is_plain) {
            return Err(PatternError { text: text.chars().take(LONGEST).collect() });
        }
        Ok(TensorPattern(text.to_owned()))
    }
}

impl fmt::Display for TensorPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TensorPattern {
    /// Whether it is for the tensor of a role. Embeddings and norms are never meant: they are not quantized.
    pub fn matches(&self, role: Role) -> bool {
        if !role.is_projection() {
            return false;
        }
        if let Some((_, is_in)) = GROUPS.iter().find(|(name, _)| *name == self.0) {
            return is_in(role);
        }
        let name = role.short_name();
        let bare = name.strip_suffix(SUFFIX).unwrap_or(&name);
        let pattern = self.0.strip_suffix(SUFFIX).unwrap_or(&self.0);
        matches_wildcards(pattern.as_bytes(), bare.as_bytes())
    }
}

fn is_attention(role: LayerRole) -> bool {
    matches!(role, LayerRole::QProj | LayerRole::KProj | LayerRole::VProj | LayerRole::OProj)
}

/// Whether all of a text matches. A `*` is tried with as few bytes as possible first; only the last one is ever tried with more, since
/// what follows an earlier one was matched as early as it could be.
fn matches_wildcards(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut here) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while here < text.len() {
        if pattern.get(at) == Some(&b'*') {
            star = Some((at, here));
            at += 1;
        } else if pattern.get(at) == Some(&text[here]) {
            (at, here) = (at + 1, here + 1);
        } else if let Some((after, taken)) = star {
            star = Some((after, taken + 1));
            (at, here) = (after + 1, taken + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> TensorPattern {
        text.parse().unwrap()
    }

    #[test]
    fn names_match_with_wildcards_and_without_suffix() {
        let down = Role::Layer(12, LayerRole::DownProj);
        for text in [
            "layers.12.mlp.down_proj",
            "layers.12.mlp.down_proj.weight",
            "layers.*.mlp.*",
            "*down_proj",
            "*.1*.*.d*",
            "*",
            "mlp",
        ] {
            assert!(pattern(text).matches(down), "{text}");
        }
        for text in
            ["layers.1.mlp.down_proj", "down_proj", "layers.*.mlp", "attention", "head", "*.weight.weight"]
        {
            assert!(!pattern(text).matches(down), "{text}");
        }
    }

    #[test]
    fn only_what_may_be_quantized_matches() {
        assert!(!pattern("*").matches(Role::FinalNorm));
        assert!(!pattern("*").matches(Role::EmbedTokens));
        assert!(!pattern("*").matches(Role::Layer(0, LayerRole::LayerScalar)));
        assert!(pattern("*").matches(Role::Head) && pattern("lm_head").matches(Role::Head));
        assert!(pattern("per-layer").matches(Role::PerLayerModelProjection));
    }

    #[test]
    fn many_wildcards_take_no_time() {
        let text = "a".repeat(10_000);
        let pattern = format!("{}b", "*a".repeat(90));
        assert!(!matches_wildcards(pattern.as_bytes(), text.as_bytes()));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "a b", "layers.[0-9]", "ä", &"x".repeat(201)] {
            assert!(text.parse::<TensorPattern>().is_err(), "{text}");
        }
    }
}
