//! From JSON to [`DecoderConfig`].

use serde_json::Value;
use text::terminal::word;

use super::fields::{Fields, MAX_SIZE, QUOTED, shortened};
use super::layers::{self, SlotOrder, Widths};
use super::unique::Unique;
use super::{ConfigError, DecoderConfig, LayerKind, MAX_CONFIG_BYTES, PerLayer, members, overrides, rope};

/// `model_type` of a whole model and of its text part.
const TYPES: [(&str, &str); 2] = [("gemma4", "gemma4_text"), ("gemma4_unified", "gemma4_unified_text")];

/// Width of the per-layer embeddings; 0 or absent in models without them.
const PER_LAYER: &str = "hidden_size_per_layer_input";

/// Bounds of `rms_norm_eps`: released models have 1e-6 and 1e-5. A smaller number vanishes next to a mean square in f32, a larger
/// one dampens every norm.
const RMS_EPS: (f64, f64) = (1e-12, 1e-2);

/// Bounds of `final_logit_softcapping`, which the graph holds in f16: released models have 30.
const SOFTCAP: (f64, f64) = (5.0, 1e3);

pub(super) fn decoder_config(bytes: &[u8]) -> Result<DecoderConfig, ConfigError> {
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(ConfigError::TooLarge { len: bytes.len(), limit: MAX_CONFIG_BYTES });
    }
    let Unique(root) = serde_json::from_slice(bytes)?;
    let root = Fields::root(&root)?;
    let Parts { types: (outer_type, text_type), outer, text } = parts(&root)?;
    let (outer, text) = (outer.as_ref(), &text);
    let has_per_layer = text.count(PER_LAYER)? > 0;
    members::refuse_others(outer, text, has_per_layer)?;

    let kinds = layers::kinds(text, has_per_layer)?;
    let hidden = text.size("hidden_size")?;
    let (heads, kv_heads) = heads(text)?;
    let head_dim = text.even_size("head_dim")?;
    let values_from_keys = text.flag("attention_k_eq_v", false)?;
    let full = overrides::full_heads(text, &kinds, kv_heads, values_from_keys)?;
    let global_head_dim = full.head_dim;
    if head_dim > global_head_dim {
        let expected = format!("at most the {global_head_dim} of full layers, which is the cache's width");
        return Err(text.refuse("head_dim", expected));
    }
    bounded(text, "num_attention_heads", heads, global_head_dim, "head width")?;
    let per_layer = if has_per_layer { Some(per_layer(text, kinds.len())?) } else { None };
    let vocab = vocabulary(text, has_per_layer)?;

    let (intermediate, shared_intermediate) = intermediate(text)?;
    let widths = Widths { head_dim, kv_heads, full, values_from_keys, intermediate, shared_intermediate };
    let order = if has_per_layer { SlotOrder::SlidingFirst } else { SlotOrder::Layers };
    let (layers, slot_owners) = layers::assign(text, &kinds, &widths, order)?;
    Ok(DecoderConfig {
        text_model_type: text_type.to_owned(),
        outer_model_type: outer.map(|_| outer_type.to_owned()),
        architecture: architecture(&root)?,
        hidden,
        heads,
        kv_heads,
        head_dim,
        global_head_dim,
        per_layer,
        vocab,
        softcap: text.number("final_logit_softcapping", SOFTCAP.0, SOFTCAP.1)?,
        sliding_window: text.size("sliding_window")?,
        rms_eps: text.number("rms_norm_eps", RMS_EPS.0, RMS_EPS.1)?,
        sliding_rope: rope::read(text, LayerKind::Sliding, head_dim)?,
        full_rope: rope::read(text, LayerKind::Full, global_head_dim)?,
        tied_head: nearest(outer, text, "tie_word_embeddings").flag("tie_word_embeddings", true)?,
        max_positions: text.size("max_position_embeddings")?,
        eos_ids: nearest(outer, text, "eos_token_id").tokens("eos_token_id", vocab)?,
        bos_id: nearest(outer, text, "bos_token_id").token("bos_token_id", vocab)?,
        pad_id: nearest(outer, text, "pad_token_id").token("pad_token_id", vocab)?,
        layers,
        slot_owners,
    })
}

/// The two parts of a configuration.
struct Parts<'a> {
    /// `model_type` of a whole model, and of its text part.
    types: (&'static str, &'static str),
    /// The whole model's part, if the text part is nested in one.
    outer: Option<Fields<'a>>,
    text: Fields<'a>,
}

fn parts<'a>(root: &Fields<'a>) -> Result<Parts<'a>, ConfigError> {
    let found = root.text("model_type")?;
    for types @ (outer_type, text_type) in TYPES {
        if found == outer_type {
            let text = root.object("text_config")?;
            text.only("model_type", text_type)?;
            return Ok(Parts { types, outer: Some(root.clone()), text });
        }
        if found == text_type {
            return Ok(Parts { types, outer: None, text: root.clone() });
        }
    }
    let architecture = root.get("architectures").and_then(|list| list.as_array()?.first()?.as_str());
    let shown = |text: &str| word(&shortened(text, QUOTED)).to_string();
    let architecture = architecture.map(|name| format!(" ({})", shown(name))).unwrap_or_default();
    Err(ConfigError::Family {
        found: format!("model_type {}{architecture}", shown(found)),
        supported: TYPES.map(|(outer, text)| format!("{outer}, {text}")).join(", "),
    })
}

/// The part that decides about a field that both parts may have: the whole model's wins, as in transformers.
fn nearest<'f, 'a>(outer: Option<&'f Fields<'a>>, text: &'f Fields<'a>, name: &str) -> &'f Fields<'a> {
    outer.filter(|outer| outer.get(name).is_some()).unwrap_or(text)
}

fn heads(text: &Fields<'_>) -> Result<(usize, usize), ConfigError> {
    let heads = text.size("num_attention_heads")?;
    let kv_heads = text.size("num_key_value_heads")?;
    if heads % kv_heads != 0 {
        return Err(text.refuse("num_key_value_heads", format!("a divisor of the {heads} query heads")));
    }
    Ok((heads, kv_heads))
}

fn vocabulary(text: &Fields<'_>, has_per_layer: bool) -> Result<usize, ConfigError> {
    let vocab = text.size("vocab_size")?;
    if has_per_layer && text.size("vocab_size_per_layer_input")? != vocab {
        let expected = format!("{vocab}, as vocab_size: one id looks up both tables");
        return Err(text.refuse("vocab_size_per_layer_input", expected));
    }
    Ok(vocab)
}

fn per_layer(text: &Fields<'_>, layers: usize) -> Result<PerLayer, ConfigError> {
    let width = text.size(PER_LAYER)?;
    Ok(PerLayer { width, total: bounded(text, PER_LAYER, width, layers, "number of layers")? })
}

/// Widths of the MLP in layers that own their keys and values, and in those that share another's.
fn intermediate(text: &Fields<'_>) -> Result<(usize, usize), ConfigError> {
    let intermediate = text.size("intermediate_size")?;
    let mut shared_intermediate = intermediate;
    if text.flag("use_double_wide_mlp", false)? {
        shared_intermediate =
            bounded(text, "intermediate_size", intermediate, 2, "doubling in shared layers")?;
    }
    Ok((intermediate, shared_intermediate))
}

/// The product of a field's value and `times`, if it is still a possible axis of a tensor.
fn bounded(
    text: &Fields<'_>,
    name: &str,
    value: usize,
    times: usize,
    what: &str,
) -> Result<usize, ConfigError> {
    let product = value.checked_mul(times).filter(|product| *product <= MAX_SIZE);
    product.ok_or_else(|| text.refuse(name, format!("at most {} (times {times}: {what})", MAX_SIZE / times)))
}

fn architecture(root: &Fields<'_>) -> Result<Option<String>, ConfigError> {
    if root.get("architectures").is_none() {
        return Ok(None);
    }
    let first = root.list("architectures")?.first();
    Ok(first.and_then(Value::as_str).map(str::to_owned))
}
