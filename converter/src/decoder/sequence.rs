//! How many positions a function takes at a time, and the shapes that follow from it.

use aimodel::build::{BuildError, FunctionBuilder, Scalar};
use aimodel::{Dim, Element, TensorType, ValueId};

use super::{Decoder, si32, ui32};

/// How many positions a function takes at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sequence {
    /// One, in the form of the published bundles.
    One,
    /// This many.
    Fixed(u32),
    /// As many as it is called with.
    Dynamic,
}

impl Sequence {
    /// Extent of an axis of positions.
    pub(super) fn extent(self) -> Dim {
        match self {
            Sequence::One => Dim::Fixed(1),
            Sequence::Fixed(count) => Dim::Fixed(count.into()),
            Sequence::Dynamic => Dim::Dynamic,
        }
    }

    /// Type of `input_ids`.
    pub(super) fn ids(self) -> TensorType {
        TensorType::new(vec![Dim::Fixed(1), self.extent()], Element::Si32)
    }

    /// Number of positions in `input_ids`, if it is not fixed: si32 `[1]`.
    pub(super) fn count(
        self,
        graph: &mut FunctionBuilder,
        input_ids: ValueId,
    ) -> Result<Option<ValueId>, BuildError> {
        match self {
            Sequence::One | Sequence::Fixed(_) => Ok(None),
            Sequence::Dynamic => last_extent(graph, input_ids).map(Some),
        }
    }
}

/// Second extent of a matrix: si32 `[1]`.
pub(super) fn last_extent(graph: &mut FunctionBuilder, matrix: ValueId) -> Result<ValueId, BuildError> {
    let shape = graph.get_shape(matrix)?;
    let shape = graph.cast(shape, Element::Si32)?;
    let (one, two) = (graph.si32(&[1]), graph.si32(&[2]));
    graph.slice(shape, one, two, one)
}

impl Decoder<'_> {
    /// Whether a call may take several positions. The exports of one position do many steps in their own way.
    pub(super) fn takes_many(&self) -> bool {
        self.sequence != Sequence::One
    }

    /// Number of positions of a call, if it is fixed.
    pub(super) fn fixed_count(&self) -> u32 {
        match self.sequence {
            Sequence::Fixed(count) => count,
            Sequence::One | Sequence::Dynamic => 1,
        }
    }

    /// Positions of this call as an element of shapes made by [`FunctionBuilder::concat`]: si32 `[1]`.
    pub(super) fn queries(&mut self) -> ValueId {
        let fixed = si32(self.fixed_count() as usize);
        self.count.unwrap_or_else(|| self.graph.si32(&[fixed]))
    }

    /// The same for ui32 shapes.
    pub(super) fn queries_unsigned(&mut self) -> Result<ValueId, BuildError> {
        match self.count {
            None => {
                let count = self.fixed_count();
                Ok(self.graph.scalar(Scalar::Ui32(count)))
            }
            Some(count) => self.graph.cast(count, Element::Ui32),
        }
    }

    /// Joins extents into a shape.
    pub(super) fn shape(&mut self, extents: &[ValueId]) -> Result<ValueId, BuildError> {
        let axis = self.graph.scalar(Scalar::Si32(0));
        self.graph.concat(axis, extents)
    }

    /// The shape `[1, queries, rest..]`.
    pub(super) fn rows_shape(&mut self, rest: &[usize]) -> Result<ValueId, BuildError> {
        let Some(count) = self.count else {
            let rows = [1, self.fixed_count()];
            let shape: Vec<u32> = rows.into_iter().chain(rest.iter().map(|extent| ui32(*extent))).collect();
            return Ok(self.graph.ui32(&shape));
        };
        let mut extents = vec![self.graph.si32(&[1]), count];
        extents.extend(rest.iter().map(|extent| self.graph.si32(&[si32(*extent)])));
        self.shape(&extents)
    }

    /// The shape `[queries, width]`.
    pub(super) fn flat_shape(&mut self, width: usize) -> Result<ValueId, BuildError> {
        let Some(count) = self.count else {
            let shape = [self.fixed_count(), ui32(width)];
            return Ok(self.graph.ui32(&shape));
        };
        let width = self.graph.si32(&[si32(width)]);
        self.shape(&[count, width])
    }

    /// The first position of this call: si32 `[1]`.
    pub(super) fn first_position(&mut self) -> Result<ValueId, BuildError> {
        let fixed = si32(self.fixed_count() as usize);
        let count = self.count.unwrap_or_else(|| self.graph.scalar(Scalar::Si32(fixed)));
        self.graph.sub(self.length, count)
    }
}
