//! Typed constructors: one method per op.

use super::function::{BuildError, FunctionBuilder};
use crate::attribute::{Attribute, Enumeration};
use crate::element::Element;
use crate::module::ValueId;
use crate::opcode::Opcode;
use crate::types::TensorType;

type Built = Result<ValueId, BuildError>;

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident, $opcode:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(&mut self, x: ValueId) -> Built {
            self.op(Opcode::$opcode, &[x])
        })*
    };
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident, $opcode:ident;)*) => {
        $($(#[$doc])*
        pub fn $name(&mut self, a: ValueId, b: ValueId) -> Built {
            self.op(Opcode::$opcode, &[a, b])
        })*
    };
}

impl FunctionBuilder {
    unary! {
        /// Shape of `x` as a ui32 vector.
        get_shape, GetShape;
        /// 1 / sqrt(x), elementwise.
        rsqrt, Rsqrt;
        /// e^x, elementwise.
        exp, Exp;
        /// Hyperbolic tangent, elementwise.
        tanh, Tanh;
        /// Sine, elementwise.
        sin, Sin;
        /// Cosine, elementwise.
        cos, Cos;
        /// Logical not of a bool tensor.
        not, Not;
        /// max(x, 0), elementwise.
        relu, Relu;
        /// 1 / (1 + e^-x), elementwise.
        sigmoid, Sigmoid;
        /// x * sigmoid(x), elementwise.
        silu, Silu;
    }

    binary! {
        /// a + b, broadcast.
        add, BroadcastingAdd;
        /// a - b, broadcast.
        sub, BroadcastingSub;
        /// a * b, broadcast.
        mul, BroadcastingMul;
        /// a / b, broadcast.
        divide, BroadcastingDivide;
        /// a^b, broadcast.
        pow, BroadcastingPow;
        /// max(a, b), broadcast.
        maximum, BroadcastingMaximum;
        /// min(a, b), broadcast.
        minimum, BroadcastingMinimum;
        /// a > b as bool, broadcast.
        greater, BroadcastingGreater;
        /// a xor b of bool tensors, broadcast.
        logical_xor, BroadcastingLogicalXor;
        /// Matrix product over the last two axes, `[.., m, k] x [.., k, n]`; the axes before them are broadcast.
        matmul, BroadcastingBatchMatmul;
        /// Reshapes `x` to the extents in an integer vector.
        reshape, Reshape;
        /// Permutes the axes of `x`; the order is a constant ui32 vector.
        transpose, Transpose;
        /// Removes the axes, all of extent 1, in a constant si32 vector.
        shrink_dims, ShrinkDims;
        /// Inserts axes of extent 1 at the places in a constant si32 vector.
        expand_dims, ExpandDims;
        /// Broadcasts `x` to the extents in a ui32 vector; the rank may grow.
        broadcast_to, BroadcastTo;
        /// Broadcast of two shapes, as ui32 vectors.
        broadcast_shapes, BroadcastShapes;
        /// Takes rows of `x` by `indices [.., q]`: the result is `indices.shape[..-1] + x.shape[q..]`.
        gather_nd, GatherNd;
        /// Sum over the axes in a constant si32 vector; they stay with extent 1.
        reduce_sum, ReduceSum;
        /// Product over the axes in a constant si32 vector; they stay with extent 1.
        reduce_product, ReduceProduct;
        /// Maximum over the axes in a constant si32 vector; they stay with extent 1.
        reduce_max, ReduceMax;
        /// Minimum over the axes in a constant si32 vector; they stay with extent 1.
        reduce_min, ReduceMin;
        /// Mean over the axes in a constant si32 vector; they stay with extent 1.
        reduce_mean, ReduceMean;
        /// Softmax along the axis in a constant si32 scalar.
        softmax, Softmax;
    }

    /// `x` with another element type.
    pub fn cast(&mut self, x: ValueId, element: Element) -> Built {
        let shape = self.tensor(x).ok_or(BuildError::Handle { opcode: Opcode::Cast })?;
        self.op_as(Opcode::Cast, &[x], &shape.with_element(element))
    }

    /// [`FunctionBuilder::reshape`] with a result type that is more, or less, specific than the operands.
    pub fn reshape_as(&mut self, x: ValueId, shape: ValueId, declared: &TensorType) -> Built {
        self.op_as(Opcode::Reshape, &[x, shape], declared)
    }

    /// Elements from `start` to `end` by `stride`, si32 vectors with one element per axis; `i32::MAX` means to the end.
    pub fn slice(&mut self, x: ValueId, start: ValueId, end: ValueId, stride: ValueId) -> Built {
        self.op(Opcode::Slice, &[x, start, end, stride])
    }

    /// [`FunctionBuilder::slice`] with a result type that says more, or less, than the operands do.
    pub fn slice_as(
        &mut self,
        x: ValueId,
        [start, end, stride]: [ValueId; 3],
        declared: &TensorType,
    ) -> Built {
        self.op_as(Opcode::Slice, &[x, start, end, stride], declared)
    }

    /// `x` with the elements that [`FunctionBuilder::slice`] would take replaced by `update`.
    pub fn slice_update(&mut self, x: ValueId, [start, end, stride]: [ValueId; 3], update: ValueId) -> Built {
        self.op(Opcode::SliceUpdate, &[x, start, end, stride, update])
    }

    /// Joins tensors along an axis, a constant si32 scalar. A scalar counts as a vector of one element.
    pub fn concat(&mut self, axis: ValueId, parts: &[ValueId]) -> Built {
        self.op(Opcode::Concat, &[&[axis], parts].concat())
    }

    /// `x[.., indices, ..]` along an axis, a constant si32 scalar; the result has the shape of `indices`.
    pub fn gather_along_axis(&mut self, x: ValueId, indices: ValueId, axis: ValueId) -> Built {
        self.op(Opcode::GatherAlongAxis, &[x, indices, axis])
    }

    /// Pads with `fill`, a scalar; `amounts` is a constant ui32 vector: before and after each axis.
    pub fn pad(&mut self, x: ValueId, amounts: ValueId, fill: ValueId) -> Built {
        let constant = Attribute::Enumeration { of: Enumeration::PaddingMode, value: 1 };
        self.op_with(Opcode::Pad, &[x, amounts, fill], constant)
    }

    /// start, start + step, ... below stop; all three are scalars.
    pub fn range(&mut self, start: ValueId, stop: ValueId, step: ValueId) -> Built {
        self.op(Opcode::Range, &[start, stop, step])
    }

    /// Repeats axes of extent 1: `sizes` is a ui32 vector, `axes` a constant si32 vector.
    pub fn broadcast_in_dims(&mut self, x: ValueId, sizes: ValueId, axes: ValueId) -> Built {
        self.op(Opcode::BroadcastInDims, &[x, sizes, axes])
    }

    /// Weights from codes `[n, k]` and scales `[n, g]`, in blocks of k / g along the last axis:
    /// `scale * (code - code_offset) + value_offset`.
    pub fn blockwise_shift_scale(
        &mut self,
        codes: ValueId,
        scales: ValueId,
        code_offset: ValueId,
        value_offset: ValueId,
    ) -> Built {
        self.op(Opcode::BlockwiseShiftScale, &[codes, scales, code_offset, value_offset])
    }

    /// Gaussian error linear unit in its tanh form.
    pub fn gelu_tanh(&mut self, x: ValueId) -> Built {
        let tanh = Attribute::Enumeration { of: Enumeration::Approximate, value: 1 };
        self.op_with(Opcode::Gelu, &[x], tanh)
    }

    /// `a` where the condition holds, `b` elsewhere; all three are broadcast.
    pub fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Built {
        self.op(Opcode::BroadcastingWhere, &[condition, a, b])
    }
}
