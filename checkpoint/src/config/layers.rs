//! Kinds of layers, and which cache slot each one reads.

use super::fields::Fields;
use super::overrides::FullHeads;
use super::{ConfigError, Layer, LayerKind, MAX_LAYERS};

/// In models without per-layer embeddings, one of this many layers is full unless `layer_types` says otherwise
/// (transformers 5.23, `configuration_gemma4.py`).
const DEFAULT_PERIOD: usize = 6;

/// Reads `layer_types` and compares it with the number of layers.
pub(super) fn kinds(text: &Fields<'_>, has_per_layer: bool) -> Result<Vec<LayerKind>, ConfigError> {
    let count = text.size_up_to("num_hidden_layers", MAX_LAYERS)?;
    // The E-series differs in it by size, so that it is not guessed there.
    if text.get("layer_types").is_none() && !has_per_layer {
        return Ok(default_kinds(count));
    }
    let names = text.list("layer_types")?;
    if names.len() != count {
        return Err(
            text.refuse("layer_types", format!("a list of {count}, one for each of num_hidden_layers"))
        );
    }
    let mut kinds = Vec::with_capacity(count);
    for (index, name) in names.iter().enumerate() {
        let kind = [LayerKind::Sliding, LayerKind::Full]
            .into_iter()
            .find(|kind| name.as_str() == Some(kind.name()))
            .ok_or_else(|| {
                let expected = "\"sliding_attention\" or \"full_attention\"";
                text.refuse_item("layer_types", index, name, expected)
            })?;
        kinds.push(kind);
    }
    // transformers silently makes such a layer a full one. What the weights were trained as is not guessed here.
    if kinds.last() != Some(&LayerKind::Full) {
        return Err(text.refuse("layer_types", "a list that ends with \"full_attention\""));
    }
    Ok(kinds)
}

/// The last layer is always full.
fn default_kinds(count: usize) -> Vec<LayerKind> {
    let is_full = |number: usize| number.is_multiple_of(DEFAULT_PERIOD) || number == count;
    (1..=count).map(|number| if is_full(number) { LayerKind::Full } else { LayerKind::Sliding }).collect()
}

/// Sizes that layers take from the common ones.
pub(super) struct Widths {
    pub(super) head_dim: usize,
    pub(super) kv_heads: usize,
    /// Heads of full layers.
    pub(super) full: FullHeads,
    /// Whether full layers take their values from the key projection.
    pub(super) values_from_keys: bool,
    pub(super) intermediate: usize,
    /// Width of the MLP in layers that share another's keys and values.
    pub(super) shared_intermediate: usize,
}

/// Order of the slots in a cache that all layers share: the published bundles of the two families differ in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum SlotOrder {
    /// Sliding owners in layer order, then full owners.
    SlidingFirst,
    /// Owners in layer order.
    Layers,
}

/// Gives each layer its slot. Owners are all but the last `num_kv_shared_layers`; a shared layer reads the slot of the last owner
/// of its kind.
///
/// Returns the layers and the owner of each slot.
pub(super) fn assign(
    text: &Fields<'_>,
    kinds: &[LayerKind],
    widths: &Widths,
    order: SlotOrder,
) -> Result<(Vec<Layer>, Vec<usize>), ConfigError> {
    let shared = text.count("num_kv_shared_layers")?;
    let Some(owning) = kinds.get(..kinds.len().saturating_sub(shared)).filter(|owning| !owning.is_empty())
    else {
        return Err(text.refuse("num_kv_shared_layers", format!("less than the {} layers", kinds.len())));
    };
    let owners_of = |wanted: LayerKind| {
        owning.iter().enumerate().filter(move |(_, kind)| **kind == wanted).map(|(index, _)| index)
    };
    let slot_owners: Vec<usize> = match order {
        SlotOrder::SlidingFirst => owners_of(LayerKind::Sliding).chain(owners_of(LayerKind::Full)).collect(),
        SlotOrder::Layers => (0..owning.len()).collect(),
    };

    let mut layers = Vec::with_capacity(kinds.len());
    for (index, &kind) in kinds.iter().enumerate() {
        let owner = if index < owning.len() { Some(index) } else { owners_of(kind).next_back() };
        let place = owner.and_then(|owner| {
            slot_owners.iter().position(|candidate| *candidate == owner).map(|slot| (owner, slot))
        });
        let Some((owner, slot)) = place else {
            let expected = format!("a number that leaves a {} layer for layer {index} to share", kind.name());
            return Err(text.refuse("num_kv_shared_layers", expected));
        };
        let (head_dim, kv_heads) = match kind {
            LayerKind::Sliding => (widths.head_dim, widths.kv_heads),
            LayerKind::Full => (widths.full.head_dim, widths.full.kv_heads),
        };
        layers.push(Layer {
            index,
            kind,
            head_dim,
            kv_heads,
            values_from_keys: widths.values_from_keys && kind == LayerKind::Full,
            intermediate: if owner == index { widths.intermediate } else { widths.shared_intermediate },
            slot,
            owner,
        });
    }
    Ok((layers, slot_owners))
}
