//! Values of a running graph: tensors, states, and weights that stay packed until their numbers are needed.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use aimodel::{Element, TensorType};
use half::f16;
use memmap2::Mmap;

use crate::kernels::{BLOCK, Rows};
use crate::movement::{concat, stretch};
use crate::tensor::{Tensor, count, dense_strides, fits};

/// A value of a running graph.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Tensor(Tensor),
    Packed(Packed),
    Quantized(Arc<Quantized>),
    /// A handle: the number of a state of the session.
    State(usize),
    Token,
}

impl Value {
    /// The value as a plain tensor; packed weights are unpacked and dequantized for it.
    pub(crate) fn tensor(&self) -> Result<Cow<'_, Tensor>, String> {
        Ok(match self {
            Value::Tensor(tensor) => Cow::Borrowed(tensor),
            Value::Packed(packed) => Cow::Owned(packed.tensor()?),
            Value::Quantized(quantized) => Cow::Owned(quantized.tensor()?),
            Value::State(_) | Value::Token => {
                return Err("a tensor is required, not a handle or token".to_owned());
            }
        })
    }
}

impl Value {
    /// Checks that a result has the declared type.
    pub(crate) fn check(&self, declared: Option<&TensorType>) -> Result<(), String> {
        let check = |shape: &[usize], element: Element| match declared {
            None => Err("computes a tensor, but none is declared".to_owned()),
            Some(ty) if fits(ty, shape, element) => Ok(()),
            Some(ty) => Err(format!("computes {shape:?} of {element}, but {ty} is declared")),
        };
        match self {
            Value::Tensor(tensor) => check(tensor.shape(), tensor.element()),
            Value::Quantized(weights) => check(&weights.shape(), weights.element()),
            Value::Packed(_) | Value::State(_) | Value::Token => Ok(()),
        }
    }

    /// Rows `first..first + height` of a matrix, as f32.
    pub(crate) fn rows(&self, first: usize, height: usize) -> Result<Vec<f32>, String> {
        let shape = match self {
            Value::Quantized(weights) => weights.shape().to_vec(),
            Value::Packed(packed) => packed.shape().to_vec(),
            other => other.tensor()?.shape().to_vec(),
        };
        let inside = shape.len() == 2 && first.checked_add(height).is_some_and(|end| end <= shape[0]);
        if !inside {
            return Err(format!("{shape:?} does not have {height} rows from row {first}"));
        }
        let rows = self.stored_rows(first, height)?;
        if rows.element().is_float() {
            return rows.to_floats();
        }
        Ok(rows.to_integers()?.into_iter().map(|value| value as f32).collect())
    }

    /// Rows of a matrix, which must have them. Of a packed or quantized matrix, only their blocks are unpacked, unless it is transposed.
    fn stored_rows(&self, first: usize, height: usize) -> Result<Tensor, String> {
        match self {
            Value::Packed(packed) => packed.rows(first, height),
            Value::Quantized(weights) if !weights.is_transposed() => weights.block_rows(first, height),
            other => Ok(part(other.tensor()?.as_ref(), first, height)),
        }
    }

    /// The rows of a packed or quantized matrix at some indices, without unpacking the others: `[.., columns]` for indices
    /// `[.., 1]`. `None` for any other value or indices.
    pub(crate) fn picked_rows(&self, indices: &Tensor) -> Result<Option<Tensor>, String> {
        let Some((1, outer)) = indices.shape().split_last().map(|(depth, outer)| (*depth, outer)) else {
            return Ok(None);
        };
        let (rows, columns) = match self {
            Value::Packed(packed) if packed.shape.len() == 2 => (packed.shape[0], packed.shape[1]),
            Value::Quantized(weights) if !weights.is_transposed() => (weights.rows, weights.columns),
            _ => return Ok(None),
        };
        let picked = indices.to_integers()?.into_iter().map(|at| match usize::try_from(at) {
            Ok(at) if at < rows => self.stored_rows(at, 1),
            _ => Err(format!("there is no row {at}, only {rows}")),
        });
        let picked = picked.collect::<Result<Vec<_>, _>>()?;
        joined(&picked, &[outer, &[columns]].concat()).map(Some)
    }
}

/// Tensors of one type and size, one after the other, as one of a shape.
fn joined(parts: &[Tensor], shape: &[usize]) -> Result<Tensor, String> {
    let flat = |part: &Tensor| {
        let dense = part.to_dense()?;
        Ok::<_, String>(dense.view(vec![dense.elements()], vec![1], dense.offset()))
    };
    let parts: Vec<Tensor> = parts.iter().map(flat).collect::<Result<_, _>>()?;
    let axis = Tensor::from_integers(Element::Si32, &[], &[0])?;
    let joined = concat(&axis, &parts)?.to_dense()?;
    Ok(joined.view(shape.to_vec(), dense_strides(shape), joined.offset()))
}

/// A blob of elements below 8 bits, packed low bits first.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    element: Element,
    shape: Vec<usize>,
    map: Arc<Mmap>,
    start: usize,
    length: usize,
}

impl Packed {
    /// A view of a mapped file that starts at byte `start`.
    pub(crate) fn new(
        element: Element,
        shape: &[usize],
        map: &Arc<Mmap>,
        start: usize,
    ) -> Result<Packed, String> {
        let bits = count(shape)?.checked_mul(element.bits() as usize).ok_or("the tensor is too large")?;
        let length = bits.div_ceil(8);
        if !matches!(element.bits(), 1 | 2 | 4) {
            return Err(format!("blobs of {element} are not supported"));
        }
        if start.checked_add(length).is_none_or(|end| end > map.len()) {
            return Err(format!("{shape:?} of {element} at byte {start} is beyond the file's end"));
        }
        Ok(Packed { element, shape: shape.to_vec(), map: Arc::clone(map), start, length })
    }

    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> &[u8] {
        // The range was checked when the view was made.
        self.map.get(self.start..self.start + self.length).unwrap_or_default()
    }

    fn tensor(&self) -> Result<Tensor, String> {
        self.unpack(0, &self.shape)
    }

    /// Rows of a matrix, unpacked; no others are read.
    fn rows(&self, first: usize, height: usize) -> Result<Tensor, String> {
        let columns = self.shape[1];
        self.unpack(first * columns, &[height, columns])
    }

    /// Elements that start at number `first`, unpacked into a shape, one byte each.
    fn unpack(&self, first: usize, shape: &[usize]) -> Result<Tensor, String> {
        let places = first..first + count(shape)?;
        let elements = match self.element.bits() {
            1 => unpacked::<1>(self.bytes(), places),
            2 => unpacked::<2>(self.bytes(), places),
            _ => unpacked::<4>(self.bytes(), places),
        };
        Tensor::from_items(self.element, shape, elements)
    }
}

/// Elements of so few bits that several are in a byte. Their number of bits is known to the compiler, which then divides by shifting.
fn unpacked<const BITS: usize>(bytes: &[u8], places: Range<usize>) -> Vec<u8> {
    let per_byte = 8 / BITS;
    let mask = (1 << BITS) - 1;
    places.map(|at| bytes[at / per_byte] >> (at % per_byte * BITS) & mask).collect()
}

#[derive(Clone, Debug)]
enum Codes {
    Packed(Packed),
    Tensor(Tensor),
}

impl Codes {
    fn rows(&self, first: usize, height: usize) -> Result<Tensor, String> {
        match self {
            Codes::Packed(packed) => packed.rows(first, height),
            Codes::Tensor(tensor) => Ok(part(tensor, first, height)),
        }
    }
}

fn part(matrix: &Tensor, first: usize, height: usize) -> Tensor {
    let offset = matrix.offset() + first * matrix.strides()[0];
    matrix.view(vec![height, matrix.shape()[1]], matrix.strides().to_vec(), offset)
}

/// A matrix [rows, columns] as codes and scales, possibly viewed transposed. Its numbers are
/// `scale * (code - code_offset) + value_offset`, rounded to the type of the value offsets.
#[derive(Clone, Debug)]
pub(crate) struct Quantized {
    codes: Codes,
    scale: Tensor,
    /// `None` if they are all 0.
    code_offset: Option<Tensor>,
    value_offset: Option<Tensor>,
    element: Element,
    rows: usize,
    columns: usize,
    transposed: bool,
}

/// The op `blockwise_shift_scale`. A matrix stays packed.
pub(crate) fn blockwise_shift_scale(
    codes: &Value,
    scale: &Tensor,
    code_offset: &Tensor,
    value_offset: &Tensor,
) -> Result<Value, String> {
    let shape = match codes {
        Value::Packed(packed) => packed.shape().to_vec(),
        other => other.tensor()?.shape().to_vec(),
    };
    let blocks = scale.shape();
    let divides = shape.len() == blocks.len()
        && shape.iter().zip(blocks).all(|(extent, blocks)| *blocks > 0 && extent % blocks == 0);
    if !divides || code_offset.shape() != blocks || value_offset.shape() != blocks {
        return Err(format!("scales {blocks:?} and their offsets do not divide {shape:?} into blocks"));
    }
    let &[rows, columns] = shape.as_slice() else {
        let dense = dequantize(codes.tensor()?.as_ref(), scale, Some(code_offset), Some(value_offset));
        return dense.map(Value::Tensor);
    };
    let codes = match codes {
        Value::Packed(packed) => Codes::Packed(packed.clone()),
        other => Codes::Tensor(other.tensor()?.into_owned()),
    };
    Ok(Value::Quantized(Arc::new(Quantized {
        codes,
        scale: scale.clone(),
        code_offset: (!is_zero_splat(code_offset)?).then(|| code_offset.clone()),
        value_offset: (!is_zero_splat(value_offset)?).then(|| value_offset.clone()),
        element: value_offset.element(),
        rows,
        columns,
        transposed: false,
    })))
}

/// Whether a tensor is a single stored zero that is repeated.
fn is_zero_splat(x: &Tensor) -> Result<bool, String> {
    if x.elements() == 0 || x.strides().iter().any(|stride| *stride != 0) {
        return Ok(false);
    }
    let first = x.view(Vec::new(), Vec::new(), x.offset());
    if x.element().is_float() {
        Ok(first.to_floats()?.iter().all(|value| *value == 0.0))
    } else {
        Ok(first.to_integers()?.iter().all(|value| *value == 0))
    }
}

/// Computes `scale * (code - code_offset) + value_offset` in f32, rounded once.
fn dequantize(
    codes: &Tensor,
    scale: &Tensor,
    code_offset: Option<&Tensor>,
    value_offset: Option<&Tensor>,
) -> Result<Tensor, String> {
    let element = value_offset.map_or(scale.element(), Tensor::element);
    // Blocks of nothing have no extents.
    if codes.elements() == 0 {
        return Tensor::from_floats(element, codes.shape(), Vec::new());
    }
    let numbers = codes.to_integers()?;
    let scales = scale.to_floats()?;
    let shifts = code_offset.map(Tensor::to_integers).transpose()?;
    let adds = value_offset.map(Tensor::to_floats).transpose()?;
    let (blocks, length) = block_runs(codes.shape(), scale.shape())?;
    let mut values = Vec::with_capacity(numbers.len());
    for (numbers, block) in numbers.chunks_exact(length).zip(blocks) {
        let (scale, shift) = (scales[block], shifts.as_ref().map_or(0, |shifts| shifts[block]));
        let add = adds.as_ref().map_or(0.0, |adds| adds[block]);
        values.extend(numbers.iter().map(|number| scale * (number - shift) as f32 + add));
    }
    Tensor::from_floats(element, codes.shape(), values)
}

/// The number of the block of each run of elements in row-major order, and the length of a run: a block's extent along the last axis.
/// No extent is 0.
fn block_runs(shape: &[usize], blocks: &[usize]) -> Result<(Vec<usize>, usize), String> {
    // Each axis but the last is split in two, [blocks, block size]; all elements along the second have the same number.
    let split = |(axis, (extent, blocks)): (usize, (&usize, &usize))| match axis + 1 == shape.len() {
        true => [*blocks, 1],
        false => [*blocks, extent / blocks],
    };
    let runs: Vec<usize> = shape.iter().zip(blocks).enumerate().flat_map(split).collect();
    let spread: Vec<usize> = blocks.iter().flat_map(|blocks| [*blocks, 1]).collect();
    let view = stretch(&Tensor::zeros(Element::Ui8, &spread)?, &runs)?;
    let mut numbers = Vec::with_capacity(count(&runs)?);
    view.rows(&mut |start, length, stride| numbers.extend((0..length).map(|at| start + at * stride)));
    let length = shape.last().zip(blocks.last()).map_or(1, |(extent, blocks)| extent / blocks);
    Ok((numbers, length))
}

impl Quantized {
    /// The same numbers with the axes in another order.
    pub(crate) fn transpose(&self, order: &[usize]) -> Quantized {
        let swapped = order.first() == Some(&1);
        Quantized { transposed: self.transposed != swapped, ..self.clone() }
    }

    /// Shape as viewed.
    pub(crate) fn shape(&self) -> [usize; 2] {
        if self.transposed { [self.columns, self.rows] } else { [self.rows, self.columns] }
    }

    pub(crate) fn element(&self) -> Element {
        self.element
    }

    /// Whether the columns as viewed are contiguous in memory, so that a product reads them as rows.
    pub(crate) fn is_transposed(&self) -> bool {
        self.transposed
    }

    /// Rows in memory order for the kernels; `None` if no kernel supports this format.
    pub(crate) fn kernel_rows(&self) -> Option<Rows<'_>> {
        let plain = self.code_offset.is_none() && self.value_offset.is_none() && self.element == Element::F16;
        let blocks =
            self.scale.shape() == [self.rows, self.columns / BLOCK] && self.columns.is_multiple_of(BLOCK);
        if !plain || !blocks || self.scale.element() != Element::F16 || !self.scale.is_dense() {
            return None;
        }
        let scales = self.scale.items::<f16>().ok()?;
        let scales = scales.get(self.scale.offset()..self.scale.offset() + self.scale.elements())?;
        match &self.codes {
            Codes::Packed(packed) if packed.element == Element::Si4 => {
                Some(Rows::Int4 { codes: packed.bytes(), scales })
            }
            Codes::Tensor(codes) if codes.element() == Element::Si8 && codes.is_dense() => {
                let items = codes.items::<i8>().ok()?;
                let codes = items.get(codes.offset()..codes.offset() + codes.elements())?;
                Some(Rows::Int8 { codes, scales })
            }
            _ => None,
        }
    }

    /// Some rows in memory order, as f32.
    pub(crate) fn dequantized_rows(&self, first: usize, height: usize) -> Result<Vec<f32>, String> {
        self.block_rows(first, height)?.to_floats()
    }

    /// Dequantizes whole rows of blocks, then selects the requested rows.
    fn block_rows(&self, first: usize, height: usize) -> Result<Tensor, String> {
        // Blocks of a matrix without rows have no rows: avoid division by zero.
        let tall = (self.rows / self.scale.shape()[0]).max(1);
        let (from, to) = (first / tall, (first + height).div_ceil(tall));
        let codes = self.codes.rows(from * tall, (to - from) * tall)?;
        let blocks = |matrix: &Tensor| part(matrix, from, to - from);
        let (code_offset, value_offset) =
            (self.code_offset.as_ref().map(blocks), self.value_offset.as_ref().map(blocks));
        let mut dense =
            dequantize(&codes, &blocks(&self.scale), code_offset.as_ref(), value_offset.as_ref())?;
        if dense.element() != self.element {
            dense = Tensor::from_floats(self.element, dense.shape(), dense.to_floats()?)?;
        }
        Ok(part(&dense, first - from * tall, height))
    }

    fn tensor(&self) -> Result<Tensor, String> {
        let dense = self.block_rows(0, self.rows)?;
        if !self.transposed {
            return Ok(dense);
        }
        let strides = vec![dense.strides()[1], dense.strides()[0]];
        Ok(dense.view(self.shape().to_vec(), strides, dense.offset()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// The file loses its last rows after it was mapped: to touch them would end the test with a bus error.
    #[test]
    fn reading_rows_of_packed_codes_unpacks_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("codes");
        let file = std::fs::File::create(&path).unwrap();
        // A row is one page or several.
        let (rows, columns) = (4, 1 << 17);
        file.set_len((rows * columns / 2) as u64).unwrap();
        file.write_all_at(&[0x21, 0x7f], (columns / 2) as u64).unwrap();
        let map = Arc::new(paths::open(&path).unwrap().map().unwrap());
        let codes = Value::Packed(Packed::new(Element::Si4, &[rows, columns], &map, 0).unwrap());
        file.set_len(columns as u64).unwrap();
        let read = codes.rows(0, 2).unwrap();
        assert_eq!(read.len(), 2 * columns);
        assert_eq!(read[columns..columns + 5], [1.0, 2.0, -1.0, 7.0, 0.0]);
        assert!(read[..columns].iter().all(|code| *code == 0.0));
        assert!(codes.rows(rows - 1, 2).is_err());
        // One row, as a table is looked up.
        let index = Tensor::from_integers(Element::Si32, &[1, 1], &[1]).unwrap();
        let picked = codes.picked_rows(&index).unwrap().unwrap();
        assert_eq!((picked.shape(), picked.to_integers().unwrap()[1]), (&[1, columns][..], 2));
    }
}
