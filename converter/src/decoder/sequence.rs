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

    /// Number of positions in `input_ids`.
    pub(super) fn count(self, graph: &mut FunctionBuilder, input_ids: ValueId) -> Result<Count, BuildError> {
        match self {
            Sequence::One => Ok(Count::Fixed(1)),
            Sequence::Fixed(count) => Ok(Count::Fixed(count)),
            Sequence::Dynamic => last_extent(graph, input_ids).map(Count::Given),
        }
    }
}

/// Number of positions of a call.
#[derive(Clone, Copy)]
pub(super) enum Count {
    /// The same at every call.
    Fixed(u32),
    /// si32 `[1]`.
    Given(ValueId),
}

impl Count {
    pub(super) fn is_given(self) -> bool {
        matches!(self, Count::Given(_))
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

    /// Positions of this call as an element of shapes made by [`FunctionBuilder::concat`]: si32 `[1]`.
    pub(super) fn queries(&mut self) -> ValueId {
        match self.count {
            Count::Fixed(count) => self.graph.si32(&[si32(count as usize)]),
            Count::Given(count) => count,
        }
    }

    /// The same for ui32 shapes.
    pub(super) fn queries_unsigned(&mut self) -> Result<ValueId, BuildError> {
        match self.count {
            Count::Fixed(count) => Ok(self.graph.scalar(Scalar::Ui32(count))),
            Count::Given(count) => self.graph.cast(count, Element::Ui32),
        }
    }

    /// Joins extents into a shape.
    pub(super) fn shape(&mut self, extents: &[ValueId]) -> Result<ValueId, BuildError> {
        let axis = self.graph.scalar(Scalar::Si32(0));
        self.graph.concat(axis, extents)
    }

    /// The shape `[1, queries, rest..]`.
    pub(super) fn rows_shape(&mut self, rest: &[usize]) -> Result<ValueId, BuildError> {
        match self.count {
            Count::Fixed(count) => {
                let rest = rest.iter().map(|extent| ui32(*extent));
                let shape: Vec<u32> = [1, count].into_iter().chain(rest).collect();
                Ok(self.graph.ui32(&shape))
            }
            Count::Given(count) => {
                let mut extents = vec![self.graph.si32(&[1]), count];
                extents.extend(rest.iter().map(|extent| self.graph.si32(&[si32(*extent)])));
                self.shape(&extents)
            }
        }
    }

    /// The shape `[queries, width]`.
    pub(super) fn flat_shape(&mut self, width: usize) -> Result<ValueId, BuildError> {
        match self.count {
            Count::Fixed(count) => Ok(self.graph.ui32(&[count, ui32(width)])),
            Count::Given(count) => {
                let width = self.graph.si32(&[si32(width)]);
                self.shape(&[count, width])
            }
        }
    }

    /// The first position of this call: si32 `[1]`.
    pub(super) fn first_position(&mut self) -> Result<ValueId, BuildError> {
        let count = match self.count {
            Count::Fixed(count) => self.graph.scalar(Scalar::Si32(si32(count as usize))),
            Count::Given(count) => count,
        };
        self.graph.sub(self.length, count)
    }
}
