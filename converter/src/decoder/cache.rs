//! The caches: `[slots, 1, kv_heads, ?, global_head_dim]`, one slot for each layer that owns one.

use aimodel::build::{BuildError, FunctionBuilder, Scalar};
use aimodel::{Dim, Element, TensorType, ValueId};

use super::{Decoder, TO_END, si32, ui32};
use checkpoint::config::{DecoderConfig, Layer};

/// Which of the caches.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Cache {
    Keys,
    Values,
}

/// A cache: its handle, the tensor as last read, and the token of that read.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) handle: ValueId,
    pub(super) tensor: ValueId,
    pub(super) token: ValueId,
}

impl State {
    /// Reads a cache after what a token stands for.
    pub(super) fn read(
        graph: &mut FunctionBuilder,
        handle: ValueId,
        token: ValueId,
    ) -> Result<Self, BuildError> {
        let (tensor, token) = graph.read_handle(handle, token)?;
        Ok(State { handle, tensor, token })
    }
}

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
    fn state(&mut self, cache: Cache) -> &mut State {
        match cache {
            Cache::Keys => &mut self.keys,
            Cache::Values => &mut self.values,
        }
    }

    fn write(&mut self, cache: Cache, tensor: ValueId) -> Result<(), BuildError> {
        let State { handle, token, .. } = *self.state(cache);
        self.state(cache).token = self.graph.write_handle(handle, tensor, token)?;
        Ok(())
    }

    /// Writes this call's keys and values, each `[1, kv_heads, queries, head_dim]`, to a layer's slot, and reads the caches again.
    pub(super) fn store(&mut self, layer: &Layer, key: ValueId, value: ValueId) -> Result<(), BuildError> {
        let (key, value) = (self.widen(layer, key)?, self.widen(layer, value)?);
        let mut filled = Vec::with_capacity(2);
        for (cache, entry) in [(Cache::Keys, key), (Cache::Values, value)] {
            let updated = self.with_entry(layer, cache, entry)?;
            self.write(cache, updated)?;
            let State { handle, token, .. } = *self.state(cache);
            *self.state(cache) = State::read(&mut self.graph, handle, token)?;
            if self.takes_many() {
                filled.push((cache, self.filled(layer, cache)?));
            }
        }
        for (cache, heads) in filled {
            let heads = self.narrow(layer, heads)?;
            self.owners.insert((layer.slot, cache), heads);
        }
        Ok(())
    }

    /// The last write of a function that only fills the caches.
    pub(super) fn store_last(
        &mut self,
        layer: &Layer,
        key: ValueId,
        value: ValueId,
    ) -> Result<(), BuildError> {
        let (key, value) = (self.widen(layer, key)?, self.widen(layer, value)?);
        let keys = self.with_entry(layer, Cache::Keys, key)?;
        let values = self.with_entry(layer, Cache::Values, value)?;
        self.write(Cache::Keys, keys)?;
        self.write(Cache::Values, values)
    }

    /// A cache's tensor with an entry in a layer's slot.
    fn with_entry(&mut self, layer: &Layer, cache: Cache, entry: ValueId) -> Result<ValueId, BuildError> {
        let (entry, bounds) = if self.takes_many() {
            let bounds = self.entry_bounds(layer)?;
            let axis = self.graph.si32(&[0]);
            (self.graph.expand_dims(entry, axis)?, bounds)
        } else {
            // The exports of one position reshape the first entry before they compute its place.
            (self.as_cache_entry(layer, entry)?, self.entry_bounds(layer)?)
        };
        let tensor = self.state(cache).tensor;
        self.graph.slice_update(tensor, bounds, entry)
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

    /// Start, end and stride of this call's entry in a layer's slot.
    fn entry_bounds(&mut self, layer: &Layer) -> Result<[ValueId; 3], BuildError> {
        let slot = si32(layer.slot);
        let axis = self.graph.scalar(Scalar::Si32(0));
        let (zero, one) = (self.graph.si32(&[0]), self.graph.si32(&[1]));
        let first = self.first_position()?;
        let first_slot = self.graph.si32(&[slot]);
        let start = self.graph.concat(axis, &[first_slot, zero, zero, first, zero])?;
        let next_slot = self.graph.si32(&[slot + 1]);
        let heads = self.graph.si32(&[si32(layer.kv_heads)]);
        let width = self.graph.si32(&[si32(self.config.global_head_dim)]);
        let end = self.graph.concat(axis, &[next_slot, one, heads, self.length, width])?;
        let stride = self.graph.si32(&[1; 5]);
        Ok([start, end, stride])
    }

    /// What a layer's slot holds of all positions so far, repeated for the query heads: `[1, heads, ?, head_dim]`.
    pub(super) fn load(&mut self, layer: &Layer, cache: Cache) -> Result<ValueId, BuildError> {
        let heads = if self.takes_many() {
            // A slot that is read again after others were written fails in Apple's Linux runtime (coreai-core 1.0.0b3), so layers
            // that share a slot take what its owner has read.
            self.owners[&(layer.slot, cache)]
        } else {
            let filled = self.filled(layer, cache)?;
            self.narrow(layer, filled)?
        };
        self.repeat_heads(layer, heads)
    }

    /// Heads without what [`Decoder::widen`] added.
    fn narrow(&mut self, layer: &Layer, heads: ValueId) -> Result<ValueId, BuildError> {
        if layer.head_dim == self.config.global_head_dim {
            return Ok(heads);
        }
        self.columns(heads, 0, layer.head_dim)
    }

    /// All positions so far in a layer's slot: `[1, kv_heads, ?, global_head_dim]`.
    fn filled(&mut self, layer: &Layer, cache: Cache) -> Result<ValueId, BuildError> {
        let slot = si32(layer.slot);
        let tensor = self.state(cache).tensor;
        let stride = self.graph.si32(&[1; 5]);
        let start = self.graph.si32(&[slot, 0, 0, 0, 0]);
        let end = self.graph.si32(&[slot + 1, TO_END, TO_END, TO_END, TO_END]);
        let entry = self.graph.slice(tensor, start, end, stride)?;
        let start = self.graph.si32(&[0; 5]);
        let axis = self.graph.scalar(Scalar::Si32(0));
        let (all, rest) = (self.graph.si32(&[TO_END; 3]), self.graph.si32(&[TO_END]));
        let end = self.graph.concat(axis, &[all, self.length, rest])?;
        let filled = self.graph.slice(entry, start, end, stride)?;
        let first = self.graph.si32(&[0]);
        self.graph.shrink_dims(filled, first)
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
