//! How keys and values are kept: which caches there are, and where each layer's slot is.

use super::{DecoderConfig, Layer, LayerKind};

/// How many pairs of caches hold the keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheForm {
    /// One pair for all layers, as large as the largest needs it: narrower heads are padded with zeros, fewer heads are repeated.
    #[default]
    Padded,
    /// A pair for sliding layers, then one for full layers, each of the size of its layers.
    Split,
}

impl CacheForm {
    /// Both, the default first.
    pub const ALL: [Self; 2] = [Self::Padded, Self::Split];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Padded => "padded",
            Self::Split => "split",
        }
    }
}

/// Names of the states of each pair: keys, values.
const NAMES: [[&str; 2]; 2] = [["keyCache", "valueCache"], ["keyCacheFull", "valueCacheFull"]];

/// Bytes of an element: f16.
const ELEMENT_BYTES: u64 = 2;

/// A cache of keys and one of values, f16 `[slots, 1, kv_heads, positions, head_dim]` each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CachePair {
    /// Names of the two states: keys, values.
    pub names: [&'static str; 2],
    /// Number of slots.
    pub slots: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl CachePair {
    /// Bytes of both caches for each position.
    pub fn position_bytes(&self) -> u64 {
        2 * ELEMENT_BYTES * self.slots as u64 * self.kv_heads as u64 * self.head_dim as u64
    }
}

/// Where a layer's keys and values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePlace {
    /// Number of the pair among [`DecoderConfig::cache_pairs`].
    pub pair: usize,
    /// Slot in both of its caches.
    pub slot: usize,
}

impl DecoderConfig {
    /// The caches, in the order of the graph's states.
    pub fn cache_pairs(&self, form: CacheForm) -> Vec<CachePair> {
        let pair = |(owners, names): (Vec<usize>, [&'static str; 2])| {
            let layers = || owners.iter().filter_map(|owner| self.layers.get(*owner));
            CachePair {
                names,
                slots: owners.len(),
                kv_heads: layers().map(|layer| layer.kv_heads).max().unwrap_or(1),
                head_dim: layers().map(|layer| layer.head_dim).max().unwrap_or(1),
            }
        };
        self.slot_owners_of_pairs(form).into_iter().zip(NAMES).map(pair).collect()
    }

    /// The slot that a layer reads, and writes if it owns it.
    pub fn cache_place(&self, layer: &Layer, form: CacheForm) -> CachePlace {
        let pairs = self.slot_owners_of_pairs(form);
        let places = pairs.iter().enumerate().filter_map(|(pair, owners)| {
            let slot = owners.iter().position(|owner| *owner == layer.owner)?;
            Some(CachePlace { pair, slot })
        });
        // Every layer of a configuration has an owner, and every owner a slot.
        places.into_iter().next().unwrap_or(CachePlace { pair: 0, slot: layer.slot })
    }

    /// Bytes of all caches for each position.
    pub fn cache_position_bytes(&self, form: CacheForm) -> u64 {
        self.cache_pairs(form).iter().map(CachePair::position_bytes).sum()
    }

    /// Layers that own the slots of each pair, by slot. A model without layers of a kind has no pair for it.
    fn slot_owners_of_pairs(&self, form: CacheForm) -> Vec<Vec<usize>> {
        let of_kind = |kind: LayerKind| {
            let is_kind = |owner: &usize| self.layers.get(*owner).is_some_and(|layer| layer.kind == kind);
            self.slot_owners.iter().copied().filter(is_kind).collect::<Vec<usize>>()
        };
        match form {
            CacheForm::Padded => vec![self.slot_owners.clone()],
            CacheForm::Split => {
                let pairs = [LayerKind::Sliding, LayerKind::Full].map(of_kind).into_iter();
                pairs.filter(|owners| !owners.is_empty()).collect()
            }
        }
    }
}
