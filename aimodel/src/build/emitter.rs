//! Appends ops to a block. Knows nothing of inference: types are given.

use half::{bf16, f16};

use crate::attribute::{Attribute, AttributeId};
use crate::element::Element;
use crate::module::{BlockId, Module, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::{Dim, TensorType, TypeId};

/// Where to append ops, and the location that they get.
pub(super) struct Emitter<'m> {
    pub(super) module: &'m mut Module,
    pub(super) block: BlockId,
    pub(super) location: AttributeId,
}

impl Emitter<'_> {
    /// Appends an op without results.
    pub(super) fn op(&mut self, opcode: Opcode, operands: &[ValueId]) -> OpId {
        let op = self.module.add_op(opcode, self.location);
        self.module.op_mut(op).operands = operands.to_vec();
        self.module.block_mut(self.block).ops.push(op);
        op
    }

    /// Appends an op with one tensor result.
    pub(super) fn tensor(&mut self, opcode: Opcode, operands: &[ValueId], ty: &TensorType) -> ValueId {
        let op = self.op(opcode, operands);
        let ty = self.module.tensor_type(ty);
        self.module.add_result(op, ty)
    }

    /// Appends a constant whose elements, little-endian, are given; equal elements are stored once.
    pub(super) fn constant(&mut self, ty: &TensorType, bytes: Vec<u8>) -> ValueId {
        let value = dense_elements(ty.element, bytes);
        let value = self.module.intern(value);
        let result = self.tensor(Opcode::Constant, &[], ty);
        let op = *self.module.block(self.block).ops.last().expect("the constant was appended");
        self.module.op_mut(op).properties[0] = Some(value);
        result
    }

    /// Appends a constant with `values` as elements of any numeric type.
    pub(super) fn numbers(&mut self, shape: &[u64], element: Element, values: &[f64]) -> ValueId {
        let bytes = values.iter().flat_map(|value| number_bytes(element, *value)).collect();
        self.constant(&TensorType::fixed(shape, element), bytes)
    }

    /// Appends a vector constant.
    pub(super) fn vector(&mut self, element: Element, values: &[f64]) -> ValueId {
        self.numbers(&[values.len() as u64], element, values)
    }

    /// The shape of a value as a ui32 vector: a constant if it is static.
    pub(super) fn shape_of(&mut self, value: ValueId) -> ValueId {
        let ty = self.tensor_type(value);
        let extents: Option<Vec<f64>> =
            ty.shape.iter().map(|dim| dim.fixed().map(|extent| extent as f64)).collect();
        match extents {
            Some(extents) => self.vector(Element::Ui32, &extents),
            None => {
                let ty = TensorType::fixed(&[ty.rank() as u64], Element::Ui32);
                self.tensor(Opcode::GetShape, &[value], &ty)
            }
        }
    }

    /// Type of a tensor value. Only tensors reach decompositions: inference has refused everything else.
    pub(super) fn tensor_type(&self, value: ValueId) -> TensorType {
        self.module.tensor(value).expect("operands of tensor ops are tensors")
    }

    /// Adds a region with one block to an op, with an argument for each of `types`.
    pub(super) fn enter(&mut self, op: OpId, arguments: &[(TypeId, AttributeId)]) -> (BlockId, Vec<ValueId>) {
        let region = self.module.add_region(op);
        let block = self.module.add_block(region);
        let arguments =
            arguments.iter().map(|(ty, location)| self.module.add_argument(block, *ty, *location)).collect();
        (block, arguments)
    }

    /// Runs `body` with `block` as the place to append to.
    pub(super) fn within<T>(&mut self, block: BlockId, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.block, block);
        let made = body(self);
        self.block = outer;
        made
    }
}

/// The attribute that holds a constant's bytes, with equal elements stored once.
///
/// A splat of bools repeats its byte for each element; every other type stores one element.
pub(super) fn dense_elements(element: Element, bytes: Vec<u8>) -> Attribute {
    let width = element.inline_bytes() as usize;
    let splat = bytes.len() >= width && bytes.chunks_exact(width).all(|chunk| chunk == &bytes[..width]);
    let stored = if splat && element != Element::Bool { bytes[..width].to_vec() } else { bytes };
    Attribute::DenseElements { splat, bytes: stored }
}

/// One number as a little-endian element. For types that decompositions and graphs use as literals.
pub(super) fn number_bytes(element: Element, value: f64) -> Vec<u8> {
    let bytes = match element {
        Element::F16 => f16::from_f64(value).to_le_bytes().to_vec(),
        Element::Bf16 => bf16::from_f64(value).to_le_bytes().to_vec(),
        Element::F32 => (value as f32).to_le_bytes().to_vec(),
        Element::F64 => value.to_le_bytes().to_vec(),
        unsigned if unsigned.is_unsigned_integer() => (value as u64).to_le_bytes().to_vec(),
        _ => (value as i64).to_le_bytes().to_vec(),
    };
    bytes[..element.inline_bytes() as usize].to_vec()
}

/// A shape with only dynamic extents.
pub(super) fn all_dynamic(rank: usize, element: Element) -> TensorType {
    TensorType::new(vec![Dim::Dynamic; rank], element)
}
