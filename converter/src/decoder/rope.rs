//! Rotary position embedding: rotates halves of each head by angles that grow with the position.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Element, ValueId};

use super::{Decoder, TO_END, si32, ui32};
use checkpoint::config::{Layer, Rope};

impl Decoder<'_> {
    /// Positions of this call: si32 `[1, queries]`, the end of `position_ids`.
    pub(super) fn position(&mut self) -> Result<ValueId, BuildError> {
        let zero = self.graph.si32(&[0]);
        let first = self.first_position()?;
        let axis = self.graph.scalar(Scalar::Si32(0));
        let start = self.graph.concat(axis, &[zero, first])?;
        let to_end = self.graph.si32(&[TO_END]);
        let end = self.graph.concat(axis, &[to_end, self.length])?;
        let stride = self.graph.si32(&[1, 1]);
        self.graph.slice_as(self.position_ids, [start, end, stride], &self.sequence.ids())
    }

    /// Rotates `x [1, heads, queries, head_dim]`.
    pub(super) fn rotate(&mut self, x: ValueId, layer: &Layer) -> Result<ValueId, BuildError> {
        let half = layer.head_dim / 2;
        let angles = self.angles(layer)?;
        let cos = self.graph.cos(angles)?;
        let cos = self.as_factor(cos, half)?;
        let sin = self.graph.sin(angles)?;
        let sin = self.as_factor(sin, half)?;

        let first = self.columns(x, 0, half)?;
        let second = self.columns(x, half, layer.head_dim)?;
        let (a, b) = (self.graph.mul(cos, first)?, self.graph.mul(sin, second)?);
        let real = self.graph.sub(a, b)?;
        let (a, b) = (self.graph.mul(sin, first)?, self.graph.mul(cos, second)?);
        let imaginary = self.graph.add(a, b)?;
        let axis = self.graph.scalar(Scalar::Si32(3));
        self.graph.concat(axis, &[real, imaginary])
    }

    /// Angles of the pairs at each position, in f32: `[1, 1, queries, head_dim / 2]`, or one axis less for a single position.
    fn angles(&mut self, layer: &Layer) -> Result<ValueId, BuildError> {
        let position = self.position()?;
        let frequencies = frequencies(self.config.rope(layer.kind), layer.head_dim);
        let position = if self.takes_many() {
            let heads = self.graph.si32(&[1]);
            let position = self.graph.expand_dims(position, heads)?;
            let position = self.graph.cast(position, Element::F32)?;
            let pairs = self.graph.si32(&[-1]);
            self.graph.expand_dims(position, pairs)?
        } else {
            let shape = self.graph.ui32(&[1, 1, 1]);
            let position = self.graph.reshape(position, shape)?;
            self.graph.cast(position, Element::F32)?
        };
        let frequencies = self.graph.f32(&frequencies);
        self.graph.mul(position, frequencies)
    }

    /// A cosine or sine as f16 `[1, 1, queries, head_dim / 2]`.
    fn as_factor(&mut self, x: ValueId, half: usize) -> Result<ValueId, BuildError> {
        if self.takes_many() {
            return self.graph.cast(x, Element::F16);
        }
        let shape = self.graph.ui32(&[1, 1, 1, ui32(half)]);
        let x = self.graph.reshape(x, shape)?;
        self.graph.cast(x, Element::F16)
    }

    /// Columns `start..end` of the last of four axes.
    pub(super) fn columns(&mut self, x: ValueId, start: usize, end: usize) -> Result<ValueId, BuildError> {
        let start = self.graph.si32(&[0, 0, 0, si32(start)]);
        let end = self.graph.si32(&[TO_END, TO_END, TO_END, si32(end)]);
        let stride = self.graph.si32(&[1; 4]);
        self.graph.slice(x, start, end, stride)
    }
}

/// `theta^(-2j / head_dim)` for the pairs that rotate, 0 for the others, in f32: they underflow in f16.
///
/// Rounded where the exports round: the exponent, the power and its reciprocal each to f32. The power is computed in f64 by a
/// fixed library, so that every platform gets the same bits.
fn frequencies(rope: &Rope, head_dim: usize) -> Vec<f32> {
    let rotating = |pair: usize| {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        1.0 / libm::pow(rope.theta, f64::from(exponent)) as f32
    };
    (0..head_dim / 2).map(|pair| if pair < rope.rotary_pairs { rotating(pair) } else { 0.0 }).collect()
}
