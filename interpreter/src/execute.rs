//! Computes the result of one op from its operands.

use std::sync::Arc;

use aimodel::{Opcode, TensorType};

use crate::Rounding;
use crate::program::{Detail, Step};
use crate::tensor::Tensor;
use crate::value::{Value, blockwise_shift_scale};
use crate::{arithmetic, matmul, movement};

/// Operands of an op, checked on access.
struct Operands<'v>(&'v [&'v Value]);

impl Operands<'_> {
    fn value(&self, at: usize) -> Result<&Value, String> {
        self.0.get(at).copied().ok_or_else(|| format!("operand {at} is missing: there are {}", self.0.len()))
    }

    fn tensor(&self, at: usize) -> Result<std::borrow::Cow<'_, Tensor>, String> {
        self.value(at)?.tensor()
    }
}

/// Computes the only result of an op that does not use states. `slice_update` is not included, as it may work in place.
pub(crate) fn compute(step: &Step, operands: &[&Value], rounding: Rounding) -> Result<Value, String> {
    let o = Operands(operands);
    match step.opcode {
        Opcode::BlockwiseShiftScale => {
            blockwise_shift_scale(o.value(0)?, &*o.tensor(1)?, &*o.tensor(2)?, &*o.tensor(3)?)
        }
        Opcode::Transpose => match o.value(0)? {
            Value::Quantized(weights) => {
                let order = movement::permutation(&*o.tensor(1)?, 2)?;
                Ok(Value::Quantized(Arc::new(weights.transpose(&order))))
            }
            _ => movement::transpose(&*o.tensor(0)?, &*o.tensor(1)?).map(Value::Tensor),
        },
        Opcode::GatherNd => match o.value(0)?.picked_rows(&*o.tensor(1)?)? {
            Some(rows) => Ok(Value::Tensor(rows)),
            None => movement::gather_nd(&*o.tensor(0)?, &*o.tensor(1)?).map(Value::Tensor),
        },
        Opcode::BatchMatmul | Opcode::BroadcastingBatchMatmul => {
            matmul::matmul(&*o.tensor(0)?, o.value(1)?, rounding).map(Value::Tensor)
        }
        _ => moved(step, &o)?.map_or_else(|| computed(step, &o, rounding), Ok).map(Value::Tensor),
    }
}

/// Ops that only move elements; `None` for any other op.
fn moved(step: &Step, o: &Operands<'_>) -> Result<Option<Tensor>, String> {
    use movement::*;
    let result = match step.opcode {
        Opcode::GetShape => get_shape(&*o.tensor(0)?),
        Opcode::Reshape => reshape(&*o.tensor(0)?, &*o.tensor(1)?),
        Opcode::Slice => slice(&*o.tensor(0)?, &*o.tensor(1)?, &*o.tensor(2)?, &*o.tensor(3)?),
        Opcode::Concat => {
            let parts: Result<Vec<Tensor>, String> =
                o.0.iter().skip(1).map(|part| Ok(part.tensor()?.into_owned())).collect();
            concat(&*o.tensor(0)?, &parts?)
        }
        Opcode::GatherAlongAxis => gather_along_axis(&*o.tensor(0)?, &*o.tensor(1)?, &*o.tensor(2)?),
        Opcode::ShrinkDims => shrink_dims(&*o.tensor(0)?, &*o.tensor(1)?),
        Opcode::ExpandDims => expand_dims(&*o.tensor(0)?, &*o.tensor(1)?),
        Opcode::Pad => pad(&*o.tensor(0)?, &*o.tensor(1)?, &*o.tensor(2)?),
        Opcode::Range => range(&*o.tensor(0)?, &*o.tensor(1)?, &*o.tensor(2)?),
        Opcode::BroadcastInDims => broadcast_in_dims(&*o.tensor(0)?, &*o.tensor(1)?, &*o.tensor(2)?),
        Opcode::BroadcastTo => broadcast_to(&*o.tensor(0)?, &*o.tensor(1)?),
        Opcode::BroadcastShapes => broadcast_shapes(&*o.tensor(0)?, &*o.tensor(1)?),
        Opcode::Where | Opcode::BroadcastingWhere => where_(&*o.tensor(0)?, &*o.tensor(1)?, &*o.tensor(2)?),
        _ => return Ok(None),
    };
    result.map(Some)
}

fn computed(step: &Step, o: &Operands<'_>, rounding: Rounding) -> Result<Tensor, String> {
    let element = |declared: &Option<TensorType>| declared.as_ref().map(|ty| ty.element);
    let primitive = step.opcode.broadcasts().unwrap_or(step.opcode);
    match (primitive, step.detail) {
        (_, Detail::Gelu(approximation)) => arithmetic::gelu(&*o.tensor(0)?, approximation, rounding),
        (_, Detail::Reduce(combine)) => arithmetic::reduce(&*o.tensor(0)?, &*o.tensor(1)?, combine),
        (Opcode::Cast, _) => {
            let to = step.declared.first().and_then(element).ok_or("has no declared type")?;
            arithmetic::cast(&*o.tensor(0)?, to)
        }
        (Opcode::Softmax, _) => arithmetic::softmax(&*o.tensor(0)?, &*o.tensor(1)?, rounding),
        (
            Opcode::Add
            | Opcode::Sub
            | Opcode::Mul
            | Opcode::Divide
            | Opcode::Pow
            | Opcode::Maximum
            | Opcode::Minimum
            | Opcode::Greater
            | Opcode::LogicalXor,
            _,
        ) => arithmetic::binary(primitive, &*o.tensor(0)?, &*o.tensor(1)?, rounding),
        (
            Opcode::Rsqrt
            | Opcode::Exp
            | Opcode::Tanh
            | Opcode::Sin
            | Opcode::Cos
            | Opcode::Not
            | Opcode::Relu
            | Opcode::Sigmoid
            | Opcode::Silu,
            _,
        ) => arithmetic::unary(primitive, &*o.tensor(0)?, rounding),
        _ => Err("is not supported".to_owned()),
    }
}
