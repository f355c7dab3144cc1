//! The caches: `[slots, 1, kv_heads, ?, global_head_dim]`, one slot for each layer that owns one.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Dim, Element, TensorType, ValueId};

use super::{Decoder, TO_END, si32, ui32};
use checkpoint::config::{DecoderConfig, Layer};

/// Type of either cache.
pub(super) fn tensor_type(config: &DecoderConfig) -> TensorType {
    let fixed = |extent: usize| Dim::Fixed(extent as u64);
    let shape = vec![
        fixed(config.slots()),
        Dim::Fixed(1),
        fixed(config.kv_heads),
        Dim::Dynamic,
        fixed(config.global_head_dim),
    ];
    TensorType::new(shape, Element::F16)
}

impl Decoder<'_> {
    /// Writes this step's key and value, each `[1, kv_heads, 1, head_dim]`, to a layer's slot.
    pub(super) fn store(&mut self, layer: &Layer, key: ValueId, value: ValueId) -> Result<(), BuildError> {
        let key = self.widen(layer, key)?;
        let value = self.widen(layer, value)?;
        let key = self.as_cache_entry(layer, key)?;
        let bounds = self.entry_bounds(layer)?;
        let updated = self.graph.slice_update(self.keys.tensor, bounds, key)?;
        let token = self.graph.write_handle(self.keys.handle, updated, self.keys.token)?;
        (self.keys.tensor, self.keys.token) = self.graph.read_handle(self.keys.handle, token)?;
        let value = self.as_cache_entry(layer, value)?;
        let updated = self.graph.slice_update(self.values.tensor, bounds, value)?;
        let token = self.graph.write_handle(self.values.handle, updated, self.values.token)?;
        (self.values.tensor, self.values.token) = self.graph.read_handle(self.values.handle, token)?;
        Ok(())
    }

    /// Pads heads narrower than the cache with zeros.
    fn widen(&mut self, layer: &Layer, x: ValueId) -> Result<ValueId, BuildError> {
        let missing = self.config.global_head_dim - layer.head_dim;
        if missing == 0 {
            return Ok(x);
        }
        let amounts = self.graph.ui32(&[0, 0, 0, 0, 0, 0, 0, ui32(missing)]);
        let zero = self.graph.scalar(Scalar::F16(0.0));
        self.graph.pad(x, amounts, zero)
    }

    fn as_cache_entry(&mut self, layer: &Layer, x: ValueId) -> Result<ValueId, BuildError> {
        let shape = [1, 1, ui32(layer.kv_heads), 1, ui32(self.config.global_head_dim)];
        let shape = self.graph.ui32(&shape);
        self.graph.reshape(x, shape)
    }

    /// Start, end and stride of this step's entry in a layer's slot.
    fn entry_bounds(&mut self, layer: &Layer) -> Result<[ValueId; 3], BuildError> {
        let slot = si32(layer.slot);
        let axis = self.graph.scalar(Scalar::Si32(0));
        let (zero, one) = (self.graph.si32(&[0]), self.graph.si32(&[1]));
        let last = self.last_position()?;
        let first_slot = self.graph.si32(&[slot]);
        let start = self.graph.concat(axis, &[first_slot, zero, zero, last, zero])?;
        let next_slot = self.graph.si32(&[slot + 1]);
        let heads = self.graph.si32(&[si32(layer.kv_heads)]);
        let width = self.graph.si32(&[si32(self.config.global_head_dim)]);
        let end = self.graph.concat(axis, &[next_slot, one, heads, self.length, width])?;
        let stride = self.graph.si32(&[1; 5]);
        Ok([start, end, stride])
    }

    /// What a layer's slot holds of all positions so far, repeated for the query heads: `[1, heads, ?, head_dim]`.
    pub(super) fn load(&mut self, layer: &Layer, cache: ValueId) -> Result<ValueId, BuildError> {
        let slot = si32(layer.slot);
        let stride = self.graph.si32(&[1; 5]);
        let start = self.graph.si32(&[slot, 0, 0, 0, 0]);
        let end = self.graph.si32(&[slot + 1, TO_END, TO_END, TO_END, TO_END]);
        let entry = self.graph.slice(cache, start, end, stride)?;
        let start = self.graph.si32(&[0; 5]);
        let axis = self.graph.scalar(Scalar::Si32(0));
        let (all, rest) = (self.graph.si32(&[TO_END; 3]), self.graph.si32(&[TO_END]));
        let end = self.graph.concat(axis, &[all, self.length, rest])?;
        let filled = self.graph.slice(entry, start, end, stride)?;
        let first = self.graph.si32(&[0]);
        let mut heads = self.graph.shrink_dims(filled, first)?;
        if layer.head_dim < self.config.global_head_dim {
            heads = self.columns(heads, 0, layer.head_dim)?;
        }
        self.repeat_heads(layer, heads)
    }

    /// Query head j reads KV head `j / heads_per_kv`.
    fn repeat_heads(&mut self, layer: &Layer, heads: ValueId) -> Result<ValueId, BuildError> {
        let shape = self.graph.get_shape(heads)?;
        let one = self.graph.si32(&[1]);
        let mut extents = Vec::with_capacity(3);
        for axis in [0, 2, 3] {
            let (start, end) = (self.graph.si32(&[axis]), self.graph.si32(&[axis + 1]));
            extents.push(self.graph.slice(shape, start, end, one)?);
        }
        let axis = self.graph.scalar(Scalar::Si32(0));
        let sizes = self.graph.concat(axis, &extents)?;
        let sources: Vec<u8> = (0..self.config.heads)
            .flat_map(|head| si32(head / self.config.heads_per_kv(layer)).to_le_bytes())
            .collect();
        let indices =
            self.graph.elements(&super::fixed(&[1, self.config.heads, 1, 1], Element::Si32), sources)?;
        let axes = self.graph.si32(&[0, 2, 3]);
        let indices = self.graph.broadcast_in_dims(indices, sizes, axes)?;
        let axis = self.graph.scalar(Scalar::Si32(1));
        self.graph.gather_along_axis(heads, indices, axis)
    }
}
