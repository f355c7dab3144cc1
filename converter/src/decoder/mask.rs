//! Which earlier positions a layer sees.

use aimodel::build::{BuildError, Scalar};
use aimodel::{Element, ValueId};

use super::{Decoder, fixed, si32};
use checkpoint::config::LayerKind;

impl Decoder<'_> {
    /// True where a position is seen: bool `[1, ?]` in sliding layers, `[?, ?]` in full ones.
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

    /// This step's position: si32 `[1]`.
    pub(super) fn last_position(&mut self) -> Result<ValueId, BuildError> {
        let one = self.graph.scalar(Scalar::Si32(1));
        self.graph.sub(self.length, one)
    }

    /// The last `sliding_window` positions, this one included.
    fn sliding_mask(&mut self) -> Result<ValueId, BuildError> {
        let positions = self.positions()?;
        let window = self.graph.scalar(Scalar::Si32(si32(self.config.sliding_window).saturating_add(1)));
        let before = self.graph.sub(self.length, window)?;
        let too_old = self.at_most(positions, before)?;
        let last = self.last_position()?;
        let not_future = self.at_most(positions, last)?;
        self.graph.logical_xor(not_future, too_old)
    }

    /// Where `a <= b`, for si32 `a [1, ?]` and `b [1]`.
    fn at_most(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, BuildError> {
        let difference = self.graph.sub(a, b)?;
        let zero = self.graph.elements(&fixed(&[1, 1], Element::Si32), vec![0; 4])?;
        let above = self.graph.greater(difference, zero)?;
        self.graph.not(above)
    }

    /// All positions up to this one.
    fn causal_mask(&mut self) -> Result<ValueId, BuildError> {
        let last = self.last_position()?;
        let scalar = self.graph.ui32(&[]);
        let last = self.graph.reshape(last, scalar)?;
        let length = self.scalar_length()?;
        let step = self.graph.scalar(Scalar::Si32(1));
        let queries = self.graph.range(last, length, step)?;
        let axis = self.graph.si32(&[1]);
        let queries = self.graph.expand_dims(queries, axis)?;
        let positions = self.positions()?;
        let future = self.graph.greater(positions, queries)?;
        self.graph.not(future)
    }
}
