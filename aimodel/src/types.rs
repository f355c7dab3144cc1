//! Types of values: tensors, handles to states, tokens, functions.

use std::fmt;

use crate::element::Element;

/// Index of an interned [`Type`] of a module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub struct TypeId(pub(crate) u32);

impl TypeId {
    /// Position in the module's table of types.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One extent of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dim {
    /// Known when the graph is written.
    Fixed(u64),
    /// Known only when the graph runs; printed as `?`.
    Dynamic,
}

impl Dim {
    /// The extent, if it is known.
    pub fn fixed(self) -> Option<u64> {
        match self {
            Dim::Fixed(extent) => Some(extent),
            Dim::Dynamic => None,
        }
    }

    /// Whether both extents could be the same number in a run.
    pub fn compatible(self, other: Dim) -> bool {
        self == Dim::Dynamic || other == Dim::Dynamic || self == other
    }
}

impl From<u64> for Dim {
    fn from(extent: u64) -> Self {
        Dim::Fixed(extent)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Fixed(extent) => write!(f, "{extent}"),
            Dim::Dynamic => f.write_str("?"),
        }
    }
}

/// Shape and element type of a tensor. Rank 0 is a scalar.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct TensorType {
    /// Extents, outermost first.
    pub shape: Vec<Dim>,
    /// Type of every element.
    pub element: Element,
}

impl TensorType {
    /// A tensor type of known shape.
    pub fn fixed(shape: &[u64], element: Element) -> Self {
        TensorType { shape: shape.iter().copied().map(Dim::Fixed).collect(), element }
    }

    /// A tensor type of any shape.
    pub fn new(shape: Vec<Dim>, element: Element) -> Self {
        TensorType { shape, element }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Whether no axis is dynamic.
    pub fn is_static(&self) -> bool {
        !self.shape.contains(&Dim::Dynamic)
    }

    /// Number of elements; `None` if an axis is dynamic or the product does not fit 64 bits.
    pub fn elements(&self) -> Option<u64> {
        self.shape.iter().try_fold(1_u64, |product, dim| product.checked_mul(dim.fixed()?))
    }

    /// Bytes of a blob with this type: sub-byte elements are packed over the flattened tensor.
    pub fn blob_bytes(&self) -> Option<u64> {
        Some(self.elements()?.checked_mul(self.element.bits())?.div_ceil(8))
    }

    /// The same shape with another element type.
    pub fn with_element(&self, element: Element) -> Self {
        TensorType { shape: self.shape.clone(), element }
    }

    /// Whether both types could have the same shape in a run; element types must be equal.
    pub fn compatible(&self, other: &TensorType) -> bool {
        self.element == other.element
            && self.rank() == other.rank()
            && self.shape.iter().zip(&other.shape).all(|(a, b)| a.compatible(*b))
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tensor<")?;
        for dim in &self.shape {
            write!(f, "{dim}x")?;
        }
        write!(f, "{}>", self.element)
    }
}

/// A type of the dialect, as in the attribute/type section.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Type {
    /// An element type on its own: tensors refer to it.
    Element(Element),
    /// A tensor.
    Tensor {
        /// Extents, outermost first.
        shape: Vec<Dim>,
        /// A [`Type::Element`].
        element: TypeId,
    },
    /// A function: operand and result types of a graph.
    Function {
        /// Types of the results; they come first in the bytecode.
        results: Vec<TypeId>,
        /// Types of the arguments.
        operands: Vec<TypeId>,
    },
    /// A handle to a state (a mutable tensor).
    Handle(TypeId),
    /// Orders reads and writes of a handle.
    Token,
    /// A function type inside debug information.
    DebugUnresolved(TypeId),
}
