//! Rotary position embedding: rotates halves of each head by angles that grow with the position.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Element, ValueId};

use super::{Decoder, TO_END, fixed, si32, ui32};
use checkpoint::config::{Layer, Rope};

impl Decoder<'_> {
    /// This step's position: si32 `[1, 1]`, the last element of `position_ids`.
    pub(super) fn position(&mut self) -> Result<ValueId, BuildError> {
        let (zero, one) = (self.graph.si32(&[0]), self.graph.scalar(Scalar::Si32(1)));
        let last = self.graph.sub(self.length, one)?;
        let axis = self.graph.scalar(Scalar::Si32(0));
        let start = self.graph.concat(axis, &[zero, last])?;
        let to_end = self.graph.si32(&[TO_END]);
        let end = self.graph.concat(axis, &[to_end, self.length])?;
        let stride = self.graph.si32(&[1, 1]);
        self.graph.slice_as(self.position_ids, [start, end, stride], &fixed(&[1, 1], Element::Si32))
    }

    /// Rotates `x [1, heads, 1, head_dim]`.
    pub(super) fn rotate(&mut self, x: ValueId, layer: &Layer) -> Result<ValueId, BuildError> {
        let half = layer.head_dim / 2;
        let position = self.position()?;
        let shape = self.graph.ui32(&[1, 1, 1]);
        let position = self.graph.reshape(position, shape)?;
        let position = self.graph.cast(position, Element::F32)?;
        let frequencies = self.graph.f32(&frequencies(self.config.rope(layer.kind), layer.head_dim));
        let angles = self.graph.mul(position, frequencies)?;
        let shape = self.graph.ui32(&[1, 1, 1, ui32(half)]);
        let cos = self.graph.cos(angles)?;
        let cos = self.graph.reshape(cos, shape)?;
        let cos = self.graph.cast(cos, Element::F16)?;
        let sin = self.graph.sin(angles)?;
        let sin = self.graph.reshape(sin, shape)?;
        let sin = self.graph.cast(sin, Element::F16)?;

        let first = self.columns(x, 0, half)?;
        let second = self.columns(x, half, layer.head_dim)?;
        let (a, b) = (self.graph.mul(cos, first)?, self.graph.mul(sin, second)?);
        let real = self.graph.sub(a, b)?;
        let (a, b) = (self.graph.mul(sin, first)?, self.graph.mul(cos, second)?);
        let imaginary = self.graph.add(a, b)?;
        let axis = self.graph.scalar(Scalar::Si32(3));
        self.graph.concat(axis, &[real, imaginary])
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
/// library of our own choice, so that every platform gets the same bits.
fn frequencies(rope: &Rope, head_dim: usize) -> Vec<f32> {
    let rotating = |pair: usize| {
        let exponent = (2 * pair) as f32 / head_dim as f32;
        1.0 / libm::pow(rope.theta, f64::from(exponent)) as f32
    };
    (0..head_dim / 2).map(|pair| if pair < rope.rotary_pairs { rotating(pair) } else { 0.0 }).collect()
}
