//! What full layers have instead of the common sizes, in the two ways that configurations express it.
//!
//! Releases have `global_head_dim` and `num_global_key_value_heads`. A configuration that transformers 5.15 or later has saved has
//! `per_layer_config` instead: for each full layer, by its number, the settings that differ from the common ones.

use super::fields::{Fields, MAX_SIZE};
use super::{ConfigError, LayerKind};

const GLOBAL_HEAD_DIM: &str = "global_head_dim";
const GLOBAL_KV_HEADS: &str = "num_global_key_value_heads";
const OVERRIDES: &str = "per_layer_config";

/// Sizes of heads in full layers.
pub(super) struct FullHeads {
    pub(super) head_dim: usize,
    pub(super) kv_heads: usize,
}

/// Reads the sizes of full layers, whose key and value heads may be fewer than `kv_heads` only if `values_from_keys`.
pub(super) fn full_heads(
    text: &Fields<'_>,
    kinds: &[LayerKind],
    kv_heads: usize,
    values_from_keys: bool,
) -> Result<FullHeads, ConfigError> {
    let has = |name: &str| text.get(name).is_some();
    let head_dim = if has(GLOBAL_HEAD_DIM) { Some(text.even_size(GLOBAL_HEAD_DIM)?) } else { None };
    // transformers ignores it in layers that project values.
    let named_heads =
        if values_from_keys && has(GLOBAL_KV_HEADS) { Some(text.size(GLOBAL_KV_HEADS)?) } else { None };
    let (heads, field) = if has(OVERRIDES) {
        let heads = per_layer(text, kinds, kv_heads, values_from_keys)?;
        agree(text, GLOBAL_HEAD_DIM, head_dim, heads.head_dim)?;
        agree(text, GLOBAL_KV_HEADS, named_heads, heads.kv_heads)?;
        (heads, OVERRIDES)
    } else {
        let Some(head_dim) = head_dim else {
            return Err(
                text.refuse(GLOBAL_HEAD_DIM, format!("an integer from 1 to {MAX_SIZE}, or {OVERRIDES}"))
            );
        };
        (FullHeads { head_dim, kv_heads: named_heads.unwrap_or(kv_heads) }, GLOBAL_KV_HEADS)
    };
    if !kv_heads.is_multiple_of(heads.kv_heads) {
        let expected = format!(
            "a number of key and value heads in full layers that divides the {kv_heads} of sliding layers, not {}",
            heads.kv_heads
        );
        return Err(text.refuse(field, expected));
    }
    Ok(heads)
}

/// Refuses a field that contradicts the overrides.
fn agree(text: &Fields<'_>, name: &str, named: Option<usize>, overridden: usize) -> Result<(), ConfigError> {
    if named.is_some_and(|named| named != overridden) {
        return Err(text.refuse(name, format!("{overridden}, as {OVERRIDES} says")));
    }
    Ok(())
}

/// Settings of one full layer in `per_layer_config`.
#[derive(Clone, Copy)]
struct Override {
    head_dim: Option<usize>,
    kv_heads: usize,
}

/// The sizes that `per_layer_config` sets for exactly the full layers, the same for each.
fn per_layer(
    text: &Fields<'_>,
    kinds: &[LayerKind],
    kv_heads: usize,
    values_from_keys: bool,
) -> Result<FullHeads, ConfigError> {
    let overrides = text.object(OVERRIDES)?;
    let mut found: Vec<Option<Override>> = vec![None; kinds.len()];
    for (key, _) in overrides.iter() {
        let layer = overrides.object(key)?;
        let index = key.parse::<usize>().ok().filter(|index| kinds.get(*index) == Some(&LayerKind::Full));
        let Some(slot) = index.and_then(|index| found.get_mut(index)) else {
            return Err(overrides.refuse(key, "the number of a full_attention layer as its name"));
        };
        if slot.is_some() {
            return Err(overrides.refuse(key, "none: the layer is given twice"));
        }
        *slot = Some(override_of(&layer, kv_heads, values_from_keys)?);
    }
    let full = kinds.iter().zip(found).enumerate().filter(|(_, (kind, _))| **kind == LayerKind::Full);
    let mut first: Option<Override> = None;
    for (index, (_, own)) in full {
        let own = own.unwrap_or(Override { head_dim: None, kv_heads });
        let common = *first.get_or_insert(own);
        for (name, is_same) in [
            ("head_dim", own.head_dim.is_some() && own.head_dim == common.head_dim),
            ("num_key_value_heads", own.kv_heads == common.kv_heads),
        ] {
            if !is_same {
                let expected = format!("one {name} for every full_attention layer, layer {index} included");
                return Err(text.refuse(OVERRIDES, expected));
            }
        }
    }
    let Some(Override { head_dim: Some(head_dim), kv_heads }) = first else {
        return Err(text.refuse(OVERRIDES, "an entry for each full_attention layer"));
    };
    Ok(FullHeads { head_dim, kv_heads })
}

fn override_of(layer: &Fields<'_>, kv_heads: usize, values_from_keys: bool) -> Result<Override, ConfigError> {
    let mut found = Override { head_dim: None, kv_heads };
    for (name, _) in layer.iter() {
        match name {
            "head_dim" => found.head_dim = Some(layer.even_size(name)?),
            "num_key_value_heads" => {
                found.kv_heads = layer.size(name)?;
                if found.kv_heads != kv_heads && !values_from_keys {
                    let expected =
                        format!("{kv_heads}, as in every other layer unless attention_k_eq_v is true");
                    return Err(layer.refuse(name, expected));
                }
            }
            _ => return Err(layer.refuse(name, "no override but head_dim and num_key_value_heads")),
        }
    }
    Ok(found)
}
