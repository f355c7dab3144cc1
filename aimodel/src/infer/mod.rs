//! Result types of ops, from the types of their operands and what is known of their values.
//!
//! The rules are those of the format's op table. Shapes travel through graphs as small integer tensors (`get_shape`, `concat`,
//! `slice`, ...), so inference also tracks the elements of such tensors as far as they are known: see [`Known`].

mod known;
mod shapes;

pub use known::Known;
pub(crate) use shapes::broadcast;

use crate::element::Element;
use crate::module::{Module, ValueId};
use crate::opcode::Opcode;
use crate::types::TensorType;
use shapes::Context;

/// Why operands do not fit an op.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{opcode}: {reason}")]
pub struct TypeError {
    /// The op.
    pub opcode: Opcode,
    /// What does not fit.
    pub reason: String,
}

/// The type of the only result of a tensor op.
///
/// `element` is the element type that the result is declared with; only `cast` uses it.
/// Ops that make something other than one tensor (constants, tokens, handles, graphs) are refused.
pub fn result_type(
    module: &Module,
    known: &Known,
    opcode: Opcode,
    operands: &[ValueId],
    element: Element,
) -> Result<TensorType, TypeError> {
    let context = Context::new(module, known, opcode, operands)?;
    infer(&context, element).map_err(|reason| TypeError { opcode, reason })
}

/// Whether loaders want the declared type of an op's result to be exactly the one that its operands imply. Elsewhere a known
/// extent may replace a dynamic one, and the other way around.
pub(crate) fn is_exact(opcode: Opcode) -> bool {
    use Opcode::*;
    matches!(
        opcode,
        Rsqrt
            | Exp
            | Tanh
            | Sin
            | Cos
            | Not
            | Relu
            | Silu
            | Add
            | Sub
            | Mul
            | Divide
            | Pow
            | Maximum
            | Minimum
            | LogicalXor
            | GetShape
    )
}

fn infer(context: &Context<'_>, element: Element) -> Result<TensorType, String> {
    use Opcode::*;
    match context.opcode {
        Gelu | Rsqrt | Exp | Tanh | Sin | Cos | Not | Softmax | Relu | Sigmoid | Silu => {
            context.same_as_first()
        }
        Cast => Ok(context.operand(0)?.with_element(element)),
        GetShape => context.get_shape(),
        Reshape => context.reshape(),
        Transpose => context.transpose(),
        Slice => context.slice(),
        SliceUpdate => context.slice_update(),
        Concat => context.concat(),
        GatherNd => context.gather_nd(),
        GatherAlongAxis => context.gather_along_axis(),
        ShrinkDims => context.shrink_dims(),
        ExpandDims => context.expand_dims(),
        Pad => context.pad(),
        Range => context.range(),
        BroadcastInDims => context.broadcast_in_dims(),
        BroadcastTo => context.broadcast_to(),
        BroadcastShapes => context.broadcast_shapes(),
        BlockwiseShiftScale => context.blockwise_shift_scale(),
        BatchMatmul | BroadcastingBatchMatmul => context.matmul(),
        Where | BroadcastingWhere => context.where_(),
        Reduce | ReduceSum | ReduceProduct | ReduceMax | ReduceMin | ReduceMean => context.reduce(),
        Add
        | Sub
        | Mul
        | Divide
        | Pow
        | Maximum
        | Minimum
        | Greater
        | LogicalXor
        | BroadcastingAdd
        | BroadcastingSub
        | BroadcastingMul
        | BroadcastingDivide
        | BroadcastingPow
        | BroadcastingMaximum
        | BroadcastingMinimum
        | BroadcastingGreater
        | BroadcastingLogicalXor => context.binary(),
        Asset | Graph | CreateToken | ReadHandle | WriteHandle | Output | Yield | Constant => {
            Err("does not compute one tensor from tensors".to_owned())
        }
    }
}
