//! The head width of full layers, in the two ways that configurations express it.
//!
//! Releases have `global_head_dim`. A configuration that transformers 5.23 has saved again has `per_layer_config`
//! instead: for each full layer, by its number, the settings that differ from the common ones.

use super::fields::Fields;
use super::{ConfigError, LayerKind};

/// Head width of full layers.
pub(super) fn global_head_dim(
    text: &Fields<'_>,
    kinds: &[LayerKind],
    kv_heads: usize,
) -> Result<usize, ConfigError> {
    let named = text.get("global_head_dim").map(|_| text.even_size("global_head_dim")).transpose()?;
    if text.get("per_layer_config").is_none() {
        return named.map_or_else(|| text.even_size("global_head_dim"), Ok);
    }
    let overridden = per_layer(text, kinds, kv_heads)?;
    match named {
        Some(named) if named != overridden => {
            let expected = format!("{overridden}, as per_layer_config says");
            Err(text.refuse("global_head_dim", expected))
        }
        _ => Ok(overridden),
    }
}

/// The single head width that `per_layer_config` sets for exactly the full layers.
fn per_layer(text: &Fields<'_>, kinds: &[LayerKind], kv_heads: usize) -> Result<usize, ConfigError> {
    let overrides = text.object("per_layer_config")?;
    let mut head_dims = vec![None; kinds.len()];
    for (key, _) in overrides.iter() {
        let layer = overrides.object(key)?;
        let index = key.parse::<usize>().ok().filter(|index| kinds.get(*index) == Some(&LayerKind::Full));
        let Some(slot) = index.and_then(|index| head_dims.get_mut(index)) else {
            return Err(overrides.refuse(key, "the number of a full_attention layer as its name"));
        };
        if slot.is_some() {
            return Err(overrides.refuse(key, "none: the layer is given twice"));
        }
        for (name, _) in layer.iter() {
            match name {
                "head_dim" => *slot = Some(layer.even_size(name)?),
                "num_key_value_heads" if layer.size(name)? == kv_heads => {}
                "num_key_value_heads" => {
                    return Err(layer.refuse(name, format!("{kv_heads}, as in every other layer")));
                }
                _ => return Err(layer.refuse(name, "no override but head_dim")),
            }
        }
    }
    let mut full = kinds.iter().zip(&head_dims).filter(|(kind, _)| **kind == LayerKind::Full);
    let first = full.next().and_then(|(_, head_dim)| *head_dim);
    match first {
        Some(head_dim) if full.all(|(_, other)| *other == first) => Ok(head_dim),
        _ => Err(text.refuse("per_layer_config", "one head_dim for every full_attention layer")),
    }
}
