//! RMSNorm: `x * rsqrt(mean(x^2) + eps) * weight`, in f32 up to the weight.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Element, ValueId};

use super::Decoder;
use checkpoint::Role;

impl Decoder<'_> {
    /// Norm over the last axis with a weight.
    pub(super) fn norm(&mut self, x: ValueId, weight: Role) -> Result<ValueId, BuildError> {
        let axes = self.last_axis(x);
        let wide = self.graph.cast(x, Element::F32)?;
        let square = self.graph.mul(wide, wide)?;
        let mean = self.graph.reduce_mean(square, axes)?;
        let mean = self.add_epsilon(mean)?;
        let factor = self.graph.rsqrt(mean)?;
        let normed = self.graph.mul(wide, factor)?;
        let narrow = self.graph.cast(normed, Element::F16)?;
        let weight = self.weights.whole(&mut self.graph, weight)?;
        self.graph.mul(narrow, weight)
    }

    /// Norm over the last axis without a weight; the exports write it with powers.
    pub(super) fn plain_norm(&mut self, x: ValueId) -> Result<ValueId, BuildError> {
        let axes = self.last_axis(x);
        let wide = self.graph.cast(x, Element::F32)?;
        let two = self.graph.scalar(Scalar::F32(2.0));
        let square = self.graph.pow(wide, two)?;
        let mean = self.graph.reduce_mean(square, axes)?;
        let mean = self.add_epsilon(mean)?;
        let exponent = self.graph.scalar(Scalar::F32(-0.5));
        let factor = self.graph.pow(mean, exponent)?;
        let normed = self.graph.mul(wide, factor)?;
        self.graph.cast(normed, Element::F16)
    }

    fn add_epsilon(&mut self, mean: ValueId) -> Result<ValueId, BuildError> {
        let epsilon = self.graph.scalar(Scalar::F32(self.config.rms_eps as f32));
        self.graph.add(mean, epsilon)
    }

    fn last_axis(&mut self, x: ValueId) -> ValueId {
        let rank = self.graph.tensor(x).map_or(1, |ty| ty.rank());
        self.graph.si32(&[super::si32(rank) - 1])
    }
}
