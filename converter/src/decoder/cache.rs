//! The caches: `[slots, 1, kv_heads, ?, head_dim]`, one slot for each layer that owns one.

use aimodel::build::{BuildError, FunctionBuilder, Scalar};
use aimodel::{Dim, Element, TensorType, ValueId};

use super::sequence::Count;
use super::{Decoder, TO_END, si32, ui32};
use checkpoint::config::{CachePair, CachePlace, Layer};

/// Which cache of a pair.
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
    /// Reads a cache, after the accesses that the token orders before it.
    pub(super) fn read(
        graph: &mut FunctionBuilder,
        handle: ValueId,
        token: ValueId,
    ) -> Result<Self, BuildError> {
        let (tensor, token) = graph.read_handle(handle, token)?;
        Ok(State { handle, tensor, token })
    }
}

/// Type of either cache of a pair.
fn tensor_type(pair: &CachePair) -> TensorType {
    let fixed = |extent: usize| Dim::Fixed(extent as u64);
    let shape =
        vec![fixed(pair.slots), Dim::Fixed(1), fixed(pair.kv_heads), Dim::Dynamic, fixed(pair.head_dim)];
    TensorType::new(shape, Element::F16)
}

/// A pair of caches of the function that is built: that of keys, then that of values.
pub(super) struct Pair {
    sizes: CachePair,
    states: [State; 2],
}

impl Pair {
    /// Declares the states of all pairs and reads them, the last one first as in the exports.
    pub(super) fn read_all(
        graph: &mut FunctionBuilder,
        pairs: &[CachePair],
    ) -> Result<Vec<Self>, BuildError> {
        let declare =
            |sizes: &CachePair| (*sizes, sizes.names.map(|name| graph.state(name, &tensor_type(sizes))));
        let declared: Vec<(CachePair, [ValueId; 2])> = pairs.iter().map(declare).collect();
        let token = graph.create_token();
        let mut read = Vec::with_capacity(declared.len());
        for (sizes, [keys, values]) in declared.into_iter().rev() {
            let values = State::read(graph, values, token)?;
            let keys = State::read(graph, keys, token)?;
            read.push(Pair { sizes, states: [keys, values] });
        }
        read.reverse();
        Ok(read)
    }

    /// What the last writes stand for.
    pub(super) fn tokens(&self) -> [ValueId; 2] {
        self.states.map(|state| state.token)
    }
}

impl Decoder<'_> {
    fn place(&self, layer: &Layer) -> CachePlace {
        self.config.cache_place(layer, self.caches)
    }

    fn state(&mut self, layer: &Layer, cache: Cache) -> &mut State {
        let pair = self.place(layer).pair;
        &mut self.pairs[pair].states[cache as usize]
    }

    /// Sizes of the caches that a layer uses.
    fn sizes(&self, layer: &Layer) -> CachePair {
        self.pairs[self.place(layer).pair].sizes
    }

    fn write(&mut self, layer: &Layer, cache: Cache, tensor: ValueId) -> Result<(), BuildError> {
        let State { handle, token, .. } = *self.state(layer, cache);
        self.state(layer, cache).token = self.graph.write_handle(handle, tensor, token)?;
        Ok(())
    }

    /// Writes this call's keys and values, each `[1, kv_heads, queries, head_dim]`, to a layer's slot, and reads the caches again.
    pub(super) fn store(&mut self, layer: &Layer, key: ValueId, value: ValueId) -> Result<(), BuildError> {
        let (key, value) = (self.match_cache(layer, key)?, self.match_cache(layer, value)?);
        let mut filled = Vec::with_capacity(2);
        for (cache, entry) in [(Cache::Keys, key), (Cache::Values, value)] {
            let updated = self.with_entry(layer, cache, entry)?;
            self.write(layer, cache, updated)?;
            let State { handle, token, .. } = *self.state(layer, cache);
            *self.state(layer, cache) = State::read(&mut self.graph, handle, token)?;
            if self.takes_many() {
                filled.push((cache, self.filled(layer, cache)?));
            }
        }
        for (cache, heads) in filled {
            let heads = self.narrow(layer, heads)?;
            self.owners.insert((layer.index, cache), heads);
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
        let (key, value) = (self.match_cache(layer, key)?, self.match_cache(layer, value)?);
        let keys = self.with_entry(layer, Cache::Keys, key)?;
        let values = self.with_entry(layer, Cache::Values, value)?;
        self.write(layer, Cache::Keys, keys)?;
        self.write(layer, Cache::Values, values)
    }

    /// A cache's tensor with an entry in a layer's slot.
    fn with_entry(&mut self, layer: &Layer, cache: Cache, entry: ValueId) -> Result<ValueId, BuildError> {
        let (entry, bounds) = if self.takes_many() {
            let bounds = self.entry_bounds(layer)?;
            (self.as_cache_entry(layer, entry)?, bounds)
        } else {
            // The exports of one position reshape the first entry before they compute its place.
            (self.as_cache_entry(layer, entry)?, self.entry_bounds(layer)?)
        };
        let tensor = self.state(layer, cache).tensor;
        self.graph.slice_update(tensor, bounds, entry)
    }

    /// Makes a layer's heads as wide and as many as those of its cache.
    fn match_cache(&mut self, layer: &Layer, x: ValueId) -> Result<ValueId, BuildError> {
        let x = self.widen(layer, x)?;
        self.repeat_for_cache(layer, x)
    }

    /// Repeats each head where the cache has more: `[1, kv_heads, repetitions, queries, head_dim]`.
    fn repeat_for_cache(&mut self, layer: &Layer, x: ValueId) -> Result<ValueId, BuildError> {
        let sizes = self.sizes(layer);
        if layer.kv_heads == sizes.kv_heads {
            return Ok(x);
        }
        let x = if self.takes_many() {
            let axis = self.graph.si32(&[2]);
            self.graph.expand_dims(x, axis)?
        } else {
            let shape = self.graph.ui32(&[1, ui32(layer.kv_heads), 1, 1, ui32(sizes.head_dim)]);
            self.graph.reshape(x, shape)?
        };
        let repetitions = self.graph.ui32(&[ui32(sizes.kv_heads / layer.kv_heads)]);
        let axis = self.graph.si32(&[2]);
        self.graph.broadcast_in_dims(x, repetitions, axis)
    }

    /// Pads heads narrower than the cache with zeros.
    fn widen(&mut self, layer: &Layer, x: ValueId) -> Result<ValueId, BuildError> {
        let missing = self.sizes(layer).head_dim - layer.head_dim;
        if missing == 0 {
            return Ok(x);
        }
        let amounts = self.graph.ui32(&[0, 0, 0, 0, 0, 0, 0, ui32(missing)]);
        let zero = self.graph.scalar(Scalar::F16(0.0));
        self.graph.pad(x, amounts, zero)
    }

    /// Heads, repeated ones too, as `[1, 1, kv_heads, queries, head_dim]`.
    fn as_cache_entry(&mut self, layer: &Layer, x: ValueId) -> Result<ValueId, BuildError> {
        let sizes = self.sizes(layer);
        let is_repeated = layer.kv_heads != sizes.kv_heads;
        if is_repeated && layer.kv_heads == 1 {
            // It has that shape already.
            return Ok(x);
        }
        if self.takes_many() && !is_repeated {
            let axis = self.graph.si32(&[0]);
            return self.graph.expand_dims(x, axis);
        }
        let shape = match self.count {
            Count::Fixed(count) => {
                self.graph.ui32(&[1, 1, ui32(sizes.kv_heads), count, ui32(sizes.head_dim)])
            }
            Count::Given(queries) => {
                let (one, heads) = (self.graph.si32(&[1]), self.graph.si32(&[si32(sizes.kv_heads)]));
                let width = self.graph.si32(&[si32(sizes.head_dim)]);
                self.shape(&[one, one, heads, queries, width])?
            }
        };
        self.graph.reshape(x, shape)
    }

    /// Start, end and stride of this call's entry in a layer's slot.
    fn entry_bounds(&mut self, layer: &Layer) -> Result<[ValueId; 3], BuildError> {
        let (slot, sizes) = (si32(self.place(layer).slot), self.sizes(layer));
        let axis = self.graph.scalar(Scalar::Si32(0));
        let (zero, one) = (self.graph.si32(&[0]), self.graph.si32(&[1]));
        let first = self.first_position()?;
        let first_slot = self.graph.si32(&[slot]);
        let start = self.graph.concat(axis, &[first_slot, zero, zero, first, zero])?;
        let next_slot = self.graph.si32(&[slot + 1]);
        let heads = self.graph.si32(&[si32(sizes.kv_heads)]);
        let width = self.graph.si32(&[si32(sizes.head_dim)]);
        let end = self.graph.concat(axis, &[next_slot, one, heads, self.length, width])?;
        let stride = self.graph.si32(&[1; 5]);
        Ok([start, end, stride])
    }

    /// What a layer's slot holds of all positions so far, repeated for the query heads: `[1, heads, ?, head_dim]`.
    pub(super) fn load(&mut self, layer: &Layer, cache: Cache) -> Result<ValueId, BuildError> {
        let heads = if self.takes_many() {
            // A slot that is read again after others were written fails in Apple's Linux runtime (coreai-core 1.0.0b3), so layers
            // that share a slot take what its owner has read.
            self.owners[&(layer.owner, cache)]
        } else {
            let filled = self.filled(layer, cache)?;
            self.narrow(layer, filled)?
        };
        self.repeat_heads(layer, heads)
    }

    /// Heads without what [`Decoder::widen`] added.
    fn narrow(&mut self, layer: &Layer, heads: ValueId) -> Result<ValueId, BuildError> {
        if layer.head_dim == self.sizes(layer).head_dim {
            return Ok(heads);
        }
        self.columns(heads, 0, layer.head_dim)
    }

    /// All positions so far in a layer's slot, with the heads of its cache: `[1, kv_heads, ?, head_dim]`.
    fn filled(&mut self, layer: &Layer, cache: Cache) -> Result<ValueId, BuildError> {
        let slot = si32(self.place(layer).slot);
        let tensor = self.state(layer, cache).tensor;
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

    /// Query head j reads head `j / (heads / kv_heads)` of its cache.
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
        let shared_by = self.config.heads / self.sizes(layer).kv_heads;
        let sources: Vec<u8> =
            (0..self.config.heads).flat_map(|head| si32(head / shared_by).to_le_bytes()).collect();
        let indices =
            self.graph.elements(&super::fixed(&[1, self.config.heads, 1, 1], Element::Si32), sources)?;
        let axes = self.graph.si32(&[0, 2, 3]);
        let indices = self.graph.broadcast_in_dims(indices, sizes, axes)?;
        let axis = self.graph.scalar(Scalar::Si32(1));
        self.graph.gather_along_axis(heads, indices, axis)
    }
}
