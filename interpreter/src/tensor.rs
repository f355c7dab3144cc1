//! Tensors: strided views of shared storage.
//!
//! Transposes, slices and broadcasts are views, without copies; a weight is a view of the mapped file.

use std::sync::Arc;

use aimodel::{Element, TensorType};
use bytemuck::Pod;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;

use crate::parallel::in_pieces;

/// Numbers that one thread converts at a time.
const CONVERTED_TOGETHER: usize = 1 << 15;

/// Bytes of tensors, aligned for their element type.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    One(Vec<u8>),
    Two(Vec<u16>),
    Four(Vec<u32>),
    Eight(Vec<u64>),
    /// Part of a mapped file: first byte, number of bytes.
    Mapped(Arc<Mmap>, usize, usize),
}

impl Storage {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Storage::One(items) => items,
            Storage::Two(items) => bytemuck::cast_slice(items),
            Storage::Four(items) => bytemuck::cast_slice(items),
            Storage::Eight(items) => bytemuck::cast_slice(items),
            // The range was checked when the view was made.
            Storage::Mapped(map, start, length) => map.get(*start..*start + *length).unwrap_or_default(),
        }
    }

    /// Bytes to write to; empty for a mapped file.
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Storage::One(items) => items,
            Storage::Two(items) => bytemuck::cast_slice_mut(items),
            Storage::Four(items) => bytemuck::cast_slice_mut(items),
            Storage::Eight(items) => bytemuck::cast_slice_mut(items),
            Storage::Mapped(..) => &mut [],
        }
    }
}

/// Bytes of one element in memory: sub-byte types take one byte.
pub(crate) fn width(element: Element) -> usize {
    element.inline_bytes() as usize
}

/// Runs `$body` with `$T` as the unsigned integer type of the same width as `$element`.
macro_rules! by_width {
    ($element:expr, $T:ident => $body:expr) => {
        match $crate::tensor::width($element) {
            1 => {
                type $T = u8;
                $body
            }
            2 => {
                type $T = u16;
                $body
            }
            4 => {
                type $T = u32;
                $body
            }
            8 => {
                type $T = u64;
                $body
            }
            _ => Err(format!("elements of type {} are not supported", $element)),
        }
    };
}
pub(crate) use by_width;

/// A tensor: element type, shape, and a strided view of shared bytes.
#[derive(Debug, Clone)]
pub struct Tensor {
    element: Element,
    shape: Vec<usize>,
    /// In elements. An axis that repeats one element has stride 0.
    strides: Vec<usize>,
    /// In elements.
    offset: usize,
    storage: Arc<Storage>,
}

/// Most elements of a tensor: three times those of the largest table. Larger allocations could abort the process.
const MOST_ELEMENTS: usize = 1 << 33;

/// Number of elements of a shape, if it is not too large. For this check an extent of 0 counts as 1, as it does in strides.
pub(crate) fn count(shape: &[usize]) -> Result<usize, String> {
    let product = shape.iter().try_fold(1_usize, |product, extent| product.checked_mul((*extent).max(1)));
    match product {
        Some(product) if product <= MOST_ELEMENTS => Ok(if shape.contains(&0) { 0 } else { product }),
        _ => Err(format!("{shape:?} is too large")),
    }
}

/// Whether a declared type allows this shape and element type.
pub(crate) fn fits(ty: &TensorType, shape: &[usize], element: Element) -> bool {
    let mut extents = ty.shape.iter().zip(shape);
    ty.element == element
        && ty.rank() == shape.len()
        && extents.all(|(dim, extent)| dim.fixed().is_none_or(|fixed| fixed == *extent as u64))
}

/// Strides of a tensor whose elements are in row-major order without gaps.
pub(crate) fn dense_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = 1;
    for (axis, extent) in shape.iter().enumerate().rev() {
        strides[axis] = stride;
        stride *= (*extent).max(1);
    }
    strides
}

impl Tensor {
    fn dense(element: Element, shape: Vec<usize>, storage: Storage) -> Result<Tensor, String> {
        let expected = count(&shape)?.checked_mul(width(element)).ok_or("too large")?;
        let found = storage.bytes().len();
        if expected != found {
            return Err(format!("{shape:?} of {element} takes {expected} bytes, not {found}"));
        }
        let strides = dense_strides(&shape);
        Ok(Tensor { element, shape, strides, offset: 0, storage: Arc::new(storage) })
    }

    /// A tensor of zeros.
    pub fn zeros(element: Element, shape: &[usize]) -> Result<Tensor, String> {
        let elements = count(shape)?;
        let storage = match width(element) {
            1 => Storage::One(vec![0; elements]),
            2 => Storage::Two(vec![0; elements]),
            4 => Storage::Four(vec![0; elements]),
            8 => Storage::Eight(vec![0; elements]),
            _ => return Err(format!("elements of type {element} are not supported")),
        };
        Self::dense(element, shape.to_vec(), storage)
    }

    /// A tensor of little-endian, row-major bytes; elements below 8 bits take one byte each.
    pub fn from_bytes(element: Element, shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
        let mut tensor = Self::zeros(element, shape)?;
        let target = tensor.storage_mut().bytes_mut();
        if target.len() != bytes.len() {
            return Err(format!("{shape:?} of {element} takes {} bytes, not {}", target.len(), bytes.len()));
        }
        target.copy_from_slice(bytes);
        Ok(tensor)
    }

    /// A view of a mapped file that starts at byte `start`; nothing is read. Unaligned bytes are copied.
    pub fn mapped(
        element: Element,
        shape: &[usize],
        map: &Arc<Mmap>,
        start: usize,
    ) -> Result<Tensor, String> {
        let length = count(shape)?.checked_mul(width(element)).ok_or("too large")?;
        let end = start.checked_add(length).filter(|end| *end <= map.len());
        let Some(end) = end else {
            return Err(format!(
                "{shape:?} of {element} at byte {start} is beyond the file's {} bytes",
                map.len()
            ));
        };
        let aligned = (map.as_ptr() as usize + start).is_multiple_of(width(element));
        if !aligned {
            return Self::from_bytes(element, shape, &map[start..end]);
        }
        Self::dense(element, shape.to_vec(), Storage::Mapped(Arc::clone(map), start, length))
    }

    /// A tensor of one repeated element, stored once.
    pub(crate) fn splat(element: Element, shape: &[usize], bytes: &[u8]) -> Result<Tensor, String> {
        count(shape)?;
        let mut tensor = Self::from_bytes(element, &[], bytes)?;
        tensor.shape = shape.to_vec();
        tensor.strides = vec![0; shape.len()];
        Ok(tensor)
    }

    /// A tensor of f32 values, rounded to `element` (a float type), ties to even.
    pub fn from_floats(element: Element, shape: &[usize], values: Vec<f32>) -> Result<Tensor, String> {
        let storage = match element {
            Element::F32 => Storage::Four(bytemuck::cast_vec(values)),
            Element::F16 => {
                let mut halves = vec![0; values.len()];
                in_pieces(&mut halves, CONVERTED_TOGETHER, 1, &|at, halves: &mut [u16]| {
                    let values = &values[at * CONVERTED_TOGETHER..][..halves.len()];
                    bytemuck::cast_slice_mut::<u16, f16>(halves).convert_from_f32_slice(values);
                    Ok(())
                })?;
                Storage::Two(halves)
            }
            Element::Bf16 => {
                Storage::Two(values.into_iter().map(|value| bf16::from_f32(value).to_bits()).collect())
            }
            _ => return Err(format!("{element} is not a supported float type")),
        };
        Self::dense(element, shape.to_vec(), storage)
    }

    /// A tensor of integers or bools, wrapped to `element`'s width.
    pub fn from_integers(element: Element, shape: &[usize], values: &[i64]) -> Result<Tensor, String> {
        if !element.is_integer() && element != Element::Bool {
            return Err(format!("{element} is not an integer type"));
        }
        let storage = match width(element) {
            1 => Storage::One(values.iter().map(|value| *value as u8).collect()),
            2 => Storage::Two(values.iter().map(|value| *value as u16).collect()),
            4 => Storage::Four(values.iter().map(|value| *value as u32).collect()),
            _ => Storage::Eight(values.iter().map(|value| *value as u64).collect()),
        };
        Self::dense(element, shape.to_vec(), storage)
    }

    /// A tensor of plain items of the same width as `element`.
    pub(crate) fn from_items<T: Pod>(
        element: Element,
        shape: &[usize],
        items: Vec<T>,
    ) -> Result<Tensor, String> {
        let wrong = || format!("elements of type {element} are not supported");
        let storage = match size_of::<T>() {
            1 => Storage::One(bytemuck::try_cast_vec(items).map_err(|_| wrong())?),
            2 => Storage::Two(bytemuck::try_cast_vec(items).map_err(|_| wrong())?),
            4 => Storage::Four(bytemuck::try_cast_vec(items).map_err(|_| wrong())?),
            8 => Storage::Eight(bytemuck::try_cast_vec(items).map_err(|_| wrong())?),
            _ => return Err(wrong()),
        };
        Self::dense(element, shape.to_vec(), storage)
    }

    /// Element type.
    pub fn element(&self) -> Element {
        self.element
    }

    /// Extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    pub(crate) fn strides(&self) -> &[usize] {
        &self.strides
    }

    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Whether a declared type allows this tensor.
    pub(crate) fn fits(&self, ty: &TensorType) -> bool {
        fits(ty, &self.shape, self.element)
    }

    /// Another view of the same bytes.
    pub(crate) fn view(&self, shape: Vec<usize>, strides: Vec<usize>, offset: usize) -> Tensor {
        Tensor { element: self.element, shape, strides, offset, storage: Arc::clone(&self.storage) }
    }

    /// Whether both are views of the same bytes.
    pub(crate) fn shares_bytes(&self, other: &Tensor) -> bool {
        Arc::ptr_eq(&self.storage, &other.storage)
    }

    /// A copy of the elements that does not share bytes.
    pub(crate) fn copied(&self) -> Result<Tensor, String> {
        by_width!(self.element, T => {
            Self::from_items(self.element, &self.shape, self.dense_items::<T>()?.into_owned())
        })
    }

    /// All elements of the storage, including those outside the view.
    pub(crate) fn items<T: Pod>(&self) -> Result<&[T], String> {
        bytemuck::try_cast_slice(self.storage.bytes())
            .map_err(|_| format!("{} has a different width", self.element))
    }

    /// The storage, for writing; shared bytes are copied first.
    fn storage_mut(&mut self) -> &mut Storage {
        Arc::make_mut(&mut self.storage)
    }

    /// The storage's elements, for writing; shared bytes are copied first.
    pub(crate) fn items_mut<T: Pod>(&mut self) -> Result<&mut [T], String> {
        let element = self.element;
        if let Storage::Mapped(..) = *self.storage {
            *self = Self::from_items(element, &self.shape, self.dense_items::<T>()?.into_owned())?;
        }
        let bytes = self.storage_mut().bytes_mut();
        bytemuck::try_cast_slice_mut(bytes).map_err(|_| format!("{element} has a different width"))
    }

    /// Whether the elements are in row-major order without gaps.
    pub(crate) fn is_dense(&self) -> bool {
        let mut dense = 1;
        self.shape.iter().zip(&self.strides).rev().all(|(extent, stride)| {
            let is_next = *extent <= 1 || *stride == dense;
            dense *= (*extent).max(1);
            is_next
        })
    }

    /// The elements in row-major order; not copied if they are dense.
    pub(crate) fn dense_items<T: Pod>(&self) -> Result<std::borrow::Cow<'_, [T]>, String> {
        let items = self.items::<T>()?;
        if self.is_dense() {
            let slice = items.get(self.offset..self.offset + self.elements());
            return slice.map(Into::into).ok_or_else(|| "a view exceeds its storage".to_owned());
        }
        let mut copied = Vec::with_capacity(self.elements());
        self.rows(&mut |start, length, stride| {
            copied.extend((0..length).map(|at| items[start + at * stride]));
        });
        Ok(copied.into())
    }

    /// The same tensor with its elements in row-major order.
    pub(crate) fn to_dense(&self) -> Result<Tensor, String> {
        if self.is_dense() { Ok(self.clone()) } else { self.copied() }
    }

    /// Visits the innermost axis of the view for each position of the outer axes: first element, length, stride.
    pub(crate) fn rows(&self, visit: &mut dyn FnMut(usize, usize, usize)) {
        if self.elements() == 0 {
            return;
        }
        let (length, stride) = match (self.shape.last(), self.strides.last()) {
            (Some(length), Some(stride)) => (*length, *stride),
            _ => (1, 0),
        };
        let outer = self.rank().saturating_sub(1);
        let mut at = vec![0; outer];
        let mut start = self.offset;
        loop {
            visit(start, length, stride);
            let mut axis = outer;
            loop {
                if axis == 0 {
                    return;
                }
                axis -= 1;
                at[axis] += 1;
                start += self.strides[axis];
                if at[axis] < self.shape[axis] {
                    break;
                }
                start -= self.strides[axis] * self.shape[axis];
                at[axis] = 0;
            }
        }
    }

    /// The elements as f32, row-major. f16 and bf16 convert exactly.
    pub fn to_floats(&self) -> Result<Vec<f32>, String> {
        match self.element {
            Element::F32 => Ok(self.dense_items::<f32>()?.into_owned()),
            Element::F16 => {
                let halves = self.dense_items::<f16>()?;
                let mut values = vec![0.0; halves.len()];
                in_pieces(&mut values, CONVERTED_TOGETHER, 1, &|at, values| {
                    halves[at * CONVERTED_TOGETHER..][..values.len()].convert_to_f32_slice(values);
                    Ok(())
                })?;
                Ok(values)
            }
            Element::Bf16 => Ok(self.dense_items::<bf16>()?.iter().map(|value| value.to_f32()).collect()),
            _ => Err(format!("{} is not a supported float type", self.element)),
        }
    }

    /// The elements as integers, row-major.
    pub fn to_integers(&self) -> Result<Vec<i64>, String> {
        use Element::*;
        Ok(match self.element {
            Bool | Ui8 | Ui6 | Ui4 | Ui3 | Ui2 => {
                self.dense_items::<u8>()?.iter().map(|value| i64::from(*value)).collect()
            }
            Si8 => self.dense_items::<i8>()?.iter().map(|value| i64::from(*value)).collect(),
            // The high bits of stored sub-byte integers are undefined.
            Si4 => self.dense_items::<u8>()?.iter().map(|value| i64::from((value << 4) as i8 >> 4)).collect(),
            Si2 => self.dense_items::<u8>()?.iter().map(|value| i64::from((value << 6) as i8 >> 6)).collect(),
            Si16 => self.dense_items::<i16>()?.iter().map(|value| i64::from(*value)).collect(),
            Ui16 => self.dense_items::<u16>()?.iter().map(|value| i64::from(*value)).collect(),
            Si32 => self.dense_items::<i32>()?.iter().map(|value| i64::from(*value)).collect(),
            Ui32 => self.dense_items::<u32>()?.iter().map(|value| i64::from(*value)).collect(),
            Si64 | Ui64 => self.dense_items::<i64>()?.into_owned(),
            _ => return Err(format!("{} is not an integer type", self.element)),
        })
    }
}
