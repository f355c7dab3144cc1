//! Which earlier positions a layer sees.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Element, ValueId};

use super::sequence::Count;
use super::{Decoder, fixed, si32};
use checkpoint::config::LayerKind;

impl Decoder<'_> {
    /// True where a position is seen: bool `[queries, ?]`.
    pub(super) fn mask(&mut self, kind: LayerKind) -> Result<ValueId, BuildError> {
        match kind {
            LayerKind::Sliding => self.sliding_mask(),
            LayerKind::Full => self.causal_mask(),
        }
    }

    /// Positions so far as a scalar.
    fn scalar_length(&mut self) -> Result<ValueId, BuildError> {
        let scalar = self.graph.ui32(&[]);
        self.graph.reshape(self.length, scalar)
    }

    /// All positions so far: si32 `[1, ?]`.
    fn positions(&mut self) -> Result<ValueId, BuildError> {
        let length = self.scalar_length()?;
        let (start, step) = (self.graph.scalar(Scalar::Si32(0)), self.graph.scalar(Scalar::Si32(1)));
        let range = self.graph.range(start, length, step)?;
        let axis = self.graph.si32(&[0]);
        self.graph.expand_dims(range, axis)
    }

    /// The last `sliding_window` positions up to each query, its own included.
    fn sliding_mask(&mut self) -> Result<ValueId, BuildError> {
        let window = si32(self.config.sliding_window);
        let (positions, before) = if self.takes_many() {
            self.ordinals()?;
            let positions = self.positions()?;
            let first = self.first_position()?;
            let window = self.graph.scalar(Scalar::Si32(window));
            (positions, self.graph.sub(first, window)?)
        } else {
            let positions = self.positions()?;
            let window = self.graph.scalar(Scalar::Si32(window.saturating_add(1)));
            (positions, self.graph.sub(self.length, window)?)
        };
        let too_old = self.at_most(positions, before)?;
        let first = self.first_position()?;
        let not_future = self.at_most(positions, first)?;
        self.graph.logical_xor(not_future, too_old)
    }

    /// Ordinals of a call's queries: si32 `[queries, 1]`.
    fn ordinals(&mut self) -> Result<ValueId, BuildError> {
        let count = match self.count {
            Count::Fixed(count) => {
                let ordinals = (0..count).flat_map(u32::to_le_bytes).collect();
                return self.graph.elements(&fixed(&[count as usize, 1], Element::Si32), ordinals);
            }
            Count::Given(count) => count,
        };
        let scalar = self.graph.ui32(&[]);
        let count = self.graph.reshape(count, scalar)?;
        let (start, step) = (self.graph.scalar(Scalar::Si32(0)), self.graph.scalar(Scalar::Si32(1)));
        let range = self.graph.range(start, count, step)?;
        let axis = self.graph.si32(&[1]);
        self.graph.expand_dims(range, axis)
    }

    /// Where `a <= b + query`, for si32 `a [1, ?]` and `b [1]`.
    fn at_most(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, BuildError> {
        let difference = self.graph.sub(a, b)?;
        let queries = self.ordinals()?;
        let above = self.graph.greater(difference, queries)?;
        self.graph.not(above)
    }

    /// All positions up to each query.
    fn causal_mask(&mut self) -> Result<ValueId, BuildError> {
        let first = self.first_position()?;
        let scalar = self.graph.ui32(&[]);
        let first = self.graph.reshape(first, scalar)?;
        let length = self.scalar_length()?;
        let step = self.graph.scalar(Scalar::Si32(1));
        let queries = self.graph.range(first, length, step)?;
        let axis = self.graph.si32(&[1]);
        let queries = self.graph.expand_dims(queries, axis)?;
        let positions = self.positions()?;
        let future = self.graph.greater(positions, queries)?;
        self.graph.not(future)
    }
}
