//! Constants of a graph: literals, stored inline, and promises of blobs.

use super::emitter::{dense_elements, number_bytes};
use super::function::{BuildError, FunctionBuilder};
use crate::attribute::Attribute;
use crate::element::Element;
use crate::module::{Resource, ValueId};
use crate::opcode::Opcode;
use crate::types::{TensorType, TypeId};

/// Alignment of every blob, as Apple's tools write it. Small files are not mapped, and then refuse larger ones.
const BLOB_ALIGNMENT: u64 = 16;

/// A literal number: its type and its value.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    /// A half-precision number, rounded to nearest even.
    F16(f64),
    /// A single-precision number.
    F32(f32),
    /// A signed integer.
    Si32(i32),
    /// An unsigned integer.
    Ui32(u32),
}

impl Scalar {
    fn parts(self) -> (Element, f64) {
        match self {
            Scalar::F16(value) => (Element::F16, value),
            Scalar::F32(value) => (Element::F32, f64::from(value)),
            Scalar::Si32(value) => (Element::Si32, f64::from(value)),
            Scalar::Ui32(value) => (Element::Ui32, f64::from(value)),
        }
    }
}

impl FunctionBuilder {
    /// A constant of rank 0.
    pub fn scalar(&mut self, scalar: Scalar) -> ValueId {
        let (element, value) = scalar.parts();
        self.literal(&TensorType::fixed(&[], element), number_bytes(element, value))
    }

    /// A vector of signed 32-bit integers.
    pub fn si32(&mut self, values: &[i32]) -> ValueId {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.literal(&TensorType::fixed(&[values.len() as u64], Element::Si32), bytes)
    }

    /// A vector of unsigned 32-bit integers.
    pub fn ui32(&mut self, values: &[u32]) -> ValueId {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.literal(&TensorType::fixed(&[values.len() as u64], Element::Ui32), bytes)
    }

    /// A vector of single-precision numbers.
    pub fn f32(&mut self, values: &[f32]) -> ValueId {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.literal(&TensorType::fixed(&[values.len() as u64], Element::F32), bytes)
    }

    /// A constant of any static shape whose elements are given inline: row-major, little-endian, sub-byte types a byte each.
    pub fn elements(&mut self, ty: &TensorType, bytes: Vec<u8>) -> Result<ValueId, BuildError> {
        let expected = ty.elements().and_then(|count| count.checked_mul(ty.element.inline_bytes()));
        if expected != Some(bytes.len() as u64) {
            return Err(BuildError::Constant { ty: ty.to_string(), bytes: bytes.len() as u64 });
        }
        Ok(self.literal(ty, bytes))
    }

    /// A constant of any static shape with all elements zero.
    pub fn zeros(&mut self, ty: &TensorType) -> ValueId {
        let count = ty.elements().unwrap_or(1) as usize;
        // A splat is one element, except for bools, which have all elements of the type.
        let stored = if ty.element == Element::Bool { count } else { count.min(1) };
        let bytes = vec![0; stored * ty.element.inline_bytes() as usize];
        self.constant(ty, Attribute::DenseElements { splat: count > 0, bytes })
    }

    /// A promise of a blob: a constant whose bytes are supplied when the module is written.
    pub fn blob(&mut self, key: &str, ty: &TensorType) -> Result<ValueId, BuildError> {
        let length = ty.blob_bytes().filter(|length| *length > 0);
        let length = length.ok_or_else(|| BuildError::Constant { ty: ty.to_string(), bytes: 0 })?;
        let resource = Resource { key: key.to_owned(), length, alignment: BLOB_ALIGNMENT };
        let known =
            self.asset.module.find_resource(key).map(|id| self.asset.module.resource(id) == &resource);
        if known == Some(false) {
            return Err(BuildError::Blob { key: key.to_owned() });
        }
        let resource = self.asset.module.add_resource(resource);
        Ok(self.constant(ty, Attribute::DenseResource(resource)))
    }

    fn literal(&mut self, ty: &TensorType, bytes: Vec<u8>) -> ValueId {
        self.constant(ty, dense_elements(ty.element, bytes))
    }

    /// Constants with the same type and bytes are one op; all of them precede the other ops.
    fn constant(&mut self, ty: &TensorType, value: Attribute) -> ValueId {
        let value = self.asset.module.intern(value);
        let ty: TypeId = self.asset.module.tensor_type(ty);
        let key = (Opcode::Constant, Vec::new(), vec![Some(value)], ty);
        if let Some(known) = self.pure.get(&key) {
            return *known;
        }
        let op = self.asset.module.add_op(Opcode::Constant, self.asset.location);
        self.asset.module.op_mut(op).properties[0] = Some(value);
        let result = self.asset.module.add_result(op, ty);
        self.constants.push(op);
        self.known.learn(&self.asset.module, op);
        self.pure.insert(key, result);
        result
    }
}
