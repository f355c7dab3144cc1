//! Attention: the queries of a call against all keys so far.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Dim, Element, TensorType, ValueId};

use super::cache::Cache;
use super::sequence::Count;
use super::{Decoder, si32, ui32};
use checkpoint::config::{Layer, LayerKind};
use checkpoint::{LayerRole, Role};

/// Added to the score of a position that is not seen.
const UNSEEN: f64 = -10000.0;

impl Decoder<'_> {
    /// Adds the attention's result to the stream.
    pub(super) fn attention(&mut self, layer: &Layer) -> Result<(), BuildError> {
        let role = |role| Role::Layer(layer.index, role);
        let normed = self.attention_input(layer)?;
        let query = self.projection(normed, role(LayerRole::QProj))?;
        let query = self.split_heads(query, self.config.heads, layer)?;
        let query = self.norm(query, role(LayerRole::QNorm))?;
        let query = self.rotate(query, layer)?;
        if layer.owns_slot() {
            let (key, value) = self.key_value(layer, normed)?;
            self.store(layer, key, value)?;
        }
        let mask = self.mask(layer.kind)?;
        let keys = self.load(layer, Cache::Keys)?;
        let values = self.load(layer, Cache::Values)?;
        let scores = self.scores(layer, query, keys)?;
        let weights = self.masked_softmax(layer, scores, mask)?;
        let mixed = self.mix(layer, weights, values)?;
        let output = self.output(layer, mixed)?;
        let normed = self.norm(output, role(LayerRole::PostAttentionNorm))?;
        self.stream = self.graph.add(self.stream, normed)?;
        Ok(())
    }

    /// The normed stream. The exports look the position up before they project it.
    pub(super) fn attention_input(&mut self, layer: &Layer) -> Result<ValueId, BuildError> {
        let normed = self.norm(self.stream, Role::Layer(layer.index, LayerRole::InputNorm))?;
        self.position()?;
        Ok(normed)
    }

    /// This call's keys and values, `[1, kv_heads, queries, head_dim]` each. Values that are keys are so before the keys' norm and
    /// rotation, and get their own norm.
    pub(super) fn key_value(
        &mut self,
        layer: &Layer,
        normed: ValueId,
    ) -> Result<(ValueId, ValueId), BuildError> {
        let role = |role| Role::Layer(layer.index, role);
        let key = self.projection(normed, role(LayerRole::KProj))?;
        let key = self.split_heads(key, layer.kv_heads, layer)?;
        let value = if layer.values_from_keys {
            key
        } else {
            let value = self.projection(normed, role(LayerRole::VProj))?;
            self.split_heads(value, layer.kv_heads, layer)?
        };
        let key = self.norm(key, role(LayerRole::KNorm))?;
        let key = self.rotate(key, layer)?;
        Ok((key, self.plain_norm(value)?))
    }

    /// `[1, queries, heads * head_dim]` as `[1, heads, queries, head_dim]`.
    fn split_heads(&mut self, x: ValueId, heads: usize, layer: &Layer) -> Result<ValueId, BuildError> {
        if !self.takes_many() {
            let shape = self.graph.ui32(&[1, ui32(heads), 1, ui32(layer.head_dim)]);
            return self.graph.reshape(x, shape);
        }
        let shape = self.rows_shape(&[heads, layer.head_dim])?;
        let x = self.graph.reshape(x, shape)?;
        self.swap_heads_and_queries(x)
    }

    fn swap_heads_and_queries(&mut self, x: ValueId) -> Result<ValueId, BuildError> {
        let order = self.graph.ui32(&[0, 2, 1, 3]);
        self.graph.transpose(x, order)
    }

    /// `query * key^T`, the scale being 1: `[1, heads, queries, ?]`.
    fn scores(&mut self, layer: &Layer, query: ValueId, keys: ValueId) -> Result<ValueId, BuildError> {
        let scale = self.graph.scalar(Scalar::F16(1.0));
        let mut query = self.graph.mul(query, scale)?;
        let order = self.graph.ui32(&[0, 1, 3, 2]);
        let keys = self.graph.transpose(keys, order)?;
        if self.count.is_given() {
            let queries = self.queries_unsigned()?;
            let width = self.graph.scalar(Scalar::Ui32(ui32(layer.head_dim)));
            let shape = self.batch_shape(&[queries, width])?;
            query = self.graph.broadcast_to(query, shape)?;
        }
        let length = self.graph.cast(self.length, Element::Ui32)?;
        let width = self.graph.scalar(Scalar::Ui32(ui32(layer.head_dim)));
        let shape = self.batch_shape(&[width, length])?;
        let keys = self.graph.broadcast_to(keys, shape)?;
        self.graph.matmul(query, keys)
    }

    /// `[1, heads, ...]` as a ui32 vector.
    fn batch_shape(&mut self, rest: &[ValueId]) -> Result<ValueId, BuildError> {
        let axis = self.graph.scalar(Scalar::Si32(0));
        let one = self.graph.scalar(Scalar::Ui32(1));
        let heads = self.graph.scalar(Scalar::Ui32(ui32(self.config.heads)));
        self.graph.concat(axis, &[&[one, heads], rest].concat())
    }

    /// Softmax over the positions that the mask lets through.
    fn masked_softmax(
        &mut self,
        layer: &Layer,
        scores: ValueId,
        mask: ValueId,
    ) -> Result<ValueId, BuildError> {
        let axis = self.graph.scalar(Scalar::Si32(0));
        let (one, heads) = (self.graph.si32(&[1]), self.graph.si32(&[si32(self.config.heads)]));
        let queries = self.queries();
        let shape = self.graph.concat(axis, &[one, heads, queries, self.length])?;
        let unseen = self.graph.not(mask)?;
        let unseen = self.graph.cast(unseen, Element::F16)?;
        let penalty = self.graph.scalar(Scalar::F16(UNSEEN));
        let penalty = self.graph.mul(unseen, penalty)?;
        let mut scores = self.graph.add(scores, penalty)?;
        if layer.kind == LayerKind::Full || self.count.is_given() {
            // The exports do not know that there is one query here; the extent stays dynamic up to the softmax.
            let heads = Dim::Fixed(self.config.heads as u64);
            let open = TensorType::new(vec![Dim::Fixed(1), heads, Dim::Dynamic, Dim::Dynamic], Element::F16);
            scores = self.graph.reshape_as(scores, shape, &open)?;
        }
        let axis = self.graph.scalar(Scalar::Si32(3));
        self.graph.softmax(scores, axis)
    }

    /// Weighted sum of the values: `[heads, queries, head_dim]`.
    fn mix(&mut self, layer: &Layer, weights: ValueId, values: ValueId) -> Result<ValueId, BuildError> {
        let axis = self.graph.scalar(Scalar::Si32(0));
        let length = self.graph.cast(self.length, Element::Ui32)?;
        let queries = self.queries_unsigned()?;
        let width = self.graph.scalar(Scalar::Ui32(ui32(layer.head_dim)));
        let shape = self.batch_shape(&[queries, length])?;
        let weights = self.graph.broadcast_to(weights, shape)?;
        let heads = self.graph.si32(&[si32(self.config.heads)]);
        let queries = self.queries();
        let shape = self.graph.concat(axis, &[heads, queries, self.length])?;
        let weights = self.graph.reshape(weights, shape)?;
        let shape = self.batch_shape(&[length, width])?;
        let values = self.graph.broadcast_to(values, shape)?;
        let width = self.graph.si32(&[si32(layer.head_dim)]);
        let shape = self.graph.concat(axis, &[heads, self.length, width])?;
        let values = self.graph.reshape(values, shape)?;
        self.graph.matmul(weights, values)
    }

    /// The shape `[1, heads, queries, head_dim]`.
    fn heads_shape(&mut self, layer: &Layer) -> Result<ValueId, BuildError> {
        let queries = match self.count {
            Count::Fixed(count) => {
                let shape = [1, ui32(self.config.heads), count, ui32(layer.head_dim)];
                return Ok(self.graph.ui32(&shape));
            }
            Count::Given(queries) => queries,
        };
        let (one, heads) = (self.graph.si32(&[1]), self.graph.si32(&[si32(self.config.heads)]));
        let width = self.graph.si32(&[si32(layer.head_dim)]);
        self.shape(&[one, heads, queries, width])
    }

    /// Output projection: `[1, queries, H]`. The weight comes before the reshape, as in the exports.
    fn output(&mut self, layer: &Layer, mut mixed: ValueId) -> Result<ValueId, BuildError> {
        if self.takes_many() {
            let shape = self.heads_shape(layer)?;
            mixed = self.graph.reshape(mixed, shape)?;
            mixed = self.swap_heads_and_queries(mixed)?;
        }
        let weight = self.transposed(Role::Layer(layer.index, LayerRole::OProj))?;
        let shape = self.flat_shape(self.config.query_width(layer))?;
        let mixed = self.graph.reshape(mixed, shape)?;
        let output = self.graph.matmul(mixed, weight)?;
        self.as_stream(output)
    }
}
