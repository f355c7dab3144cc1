//! The weights of a package as tensors: a blob, or codes with the scales that dequantize them.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use half::{bf16, f16};
use indexmap::IndexSet;
use serde::Serialize;
use text::bounds;

use crate::attribute::Attribute;
use crate::bytecode::reader::BlobRange;
use crate::element::Element;
use crate::module::{Definition, ValueId};
use crate::opcode::Opcode;
use crate::package::Package;

/// Approximate number of elements that are read at a time.
const PIECE: u64 = 1 << 18;
/// Suffixes of keys that belong together.
const CODES: &str = "/codes";
const SCALES: &str = "/scales";

/// Why a weight cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The system refused to read the program.
    #[error("cannot read {}", path.display())]
    Io {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was asked for exceeds the stored bytes.
    #[error("the package holds too few bytes of {name}")]
    TooShort {
        /// Name of the blob.
        name: String,
    },
    /// The elements are of a type that weights never have.
    #[error("{name}: cannot read {} elements", element.name())]
    Element {
        /// Name of the blob.
        name: String,
        /// Type of its elements.
        element: Element,
    },
    /// A weight without scales was asked for its blocks.
    #[error("{name} is not stored in blocks")]
    NotInBlocks {
        /// Name of the weight.
        name: String,
    },
    /// The shapes of codes and scales do not make blocks of the last axis.
    #[error("{name}: scales {scales} for codes {codes} are not understood")]
    Blocks {
        /// Name of the weight.
        name: String,
        /// Shape of the codes, such as `[4, 64]`.
        codes: String,
        /// Shape of the scales.
        scales: String,
    },
}

/// Elements that are stored as they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Stored {
    /// Element type.
    pub element: Element,
    /// Extents, outermost first.
    pub shape: Vec<u64>,
    /// Name of the blob; none for a constant that is stored in the program.
    pub key: Option<String>,
    bytes: Bytes,
}

/// Where elements are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
enum Bytes {
    Blob {
        offset: u64,
        length: u64,
    },
    Inline(Vec<u8>),
    /// The same few bytes, repeated.
    Repeated {
        unit: Vec<u8>,
        length: u64,
    },
}

impl Bytes {
    fn length(&self) -> u64 {
        match self {
            Bytes::Blob { length, .. } | Bytes::Repeated { length, .. } => *length,
            Bytes::Inline(bytes) => bytes.len() as u64,
        }
    }
}

/// A weight.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Weight {
    /// Stored as it is.
    Whole(Stored),
    /// Codes, and a scale for each block of the last axis.
    Blocks {
        /// The codes: the shape is the weight's.
        codes: Stored,
        /// The scales: the shape of the codes, except for the last axis, which has one for each block.
        scales: Stored,
    },
}

/// Place of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Place {
    /// All axes but the last, as one.
    pub row: u64,
    /// Block of the row; none where nothing is in blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<u64>,
    /// Column.
    pub column: u64,
}

impl Package {
    /// The weight that a value is, if it is one: a constant, or constant codes that are dequantized.
    pub fn weight(&self, value: ValueId) -> Option<Weight> {
        let module = &self.bytecode.module;
        if module.constant(value).is_some() {
            return self.stored(value).map(Weight::Whole);
        }
        let Definition::Result { op, .. } = module.value(value).definition else { return None };
        let op = module.op(op);
        match (op.opcode, &op.operands[..]) {
            (Opcode::BlockwiseShiftScale, [codes, scales, ..]) => {
                Some(Weight::Blocks { codes: self.stored(*codes)?, scales: self.stored(*scales)? })
            }
            _ => None,
        }
    }

    /// A constant; as plain bytes if its size is not that of its type.
    fn stored(&self, value: ValueId) -> Option<Stored> {
        let module = &self.bytecode.module;
        let ty = module.tensor(value)?;
        let (key, bytes) = match module.constant(value)? {
            Attribute::DenseResource(id) => {
                let BlobRange { offset, length } = *self.bytecode.blobs.get(id.index())?;
                (Some(module.resource(*id).key.clone()), Bytes::Blob { offset, length })
            }
            Attribute::DenseElements { splat: false, bytes } => {
                (None, Bytes::Inline(ty.element.as_in_a_blob(bytes)))
            }
            Attribute::DenseElements { splat: true, bytes } => {
                let element = bytes.get(..ty.element.inline_bytes() as usize)?;
                // Two elements of 4 bits make a byte; weights never have fewer bits.
                let unit = if ty.element.bits() < 8 { element.repeat(2) } else { element.to_vec() };
                let unit = Some(ty.element.as_in_a_blob(&unit)).filter(|unit| unit.len() == element.len())?;
                (None, Bytes::Repeated { unit, length: ty.blob_bytes()? })
            }
            _ => return None,
        };
        let length = bytes.length();
        let shape: Option<Vec<u64>> = ty.shape.iter().map(|extent| extent.fixed()).collect();
        let (element, shape) = match shape {
            Some(shape) if ty.blob_bytes() == Some(length) => (ty.element, shape),
            _ => (Element::Ui8, vec![length]),
        };
        Some(Stored { element, shape, key, bytes })
    }

    /// The weights in blobs, each once, in the order of their first use. Rows may be looked up in the codes of a matrix as bytes of two
    /// codes each: that is the same weight.
    pub fn weights(&self) -> Vec<Weight> {
        let found = self.operands();
        let in_blocks: IndexSet<Weight> = found.iter().map(|weight| as_blocks(weight, &found)).collect();
        let parts: BTreeSet<&str> = in_blocks.iter().filter_map(Weight::parts).flatten().flatten().collect();
        let is_part = |weight: &Weight| matches!(weight, Weight::Whole(stored) if stored.key.as_deref().is_some_and(|key| parts.contains(key)));
        in_blocks.iter().filter(|weight| !is_part(weight)).cloned().collect()
    }

    /// Weights in blobs as the ops of the graphs take them.
    fn operands(&self) -> IndexSet<Weight> {
        let module = &self.bytecode.module;
        let mut found = IndexSet::new();
        for body in module.graphs().into_iter().filter_map(|graph| module.body(graph)) {
            for op in &module.block(body).ops {
                let op = module.op(*op);
                let values =
                    if op.opcode == Opcode::BlockwiseShiftScale { &op.results } else { &op.operands };
                let weights = values.iter().filter_map(|value| self.weight(*value));
                found.extend(weights.filter(|weight| weight.key().is_some()));
            }
        }
        found
    }

    /// Fills `out` with the bytes of stored elements from `offset` on.
    ///
    /// # Errors
    /// [`WeightError::TooShort`] if there are fewer, [`WeightError::Io`] if the system refuses.
    pub fn read_stored(&self, stored: &Stored, offset: u64, out: &mut [u8]) -> Result<(), WeightError> {
        stored.check_range(offset, out.len() as u64)?;
        match &stored.bytes {
            Bytes::Blob { offset: start, .. } => self
                .file
                .read_exact_at(out, start + offset)
                .map_err(|source| WeightError::Io { path: self.program(), source })?,
            Bytes::Inline(bytes) => out.copy_from_slice(&bytes[offset as usize..][..out.len()]),
            Bytes::Repeated { unit, .. } => {
                let start = (offset % unit.len() as u64) as usize;
                let bytes = unit.iter().cycle().skip(start);
                out.iter_mut().zip(bytes).for_each(|(out, byte)| *out = *byte);
            }
        }
        Ok(())
    }

    /// Elements as numbers, from an even index on.
    ///
    /// # Errors
    /// As [`Package::read_stored`]; [`WeightError::Element`] for types that are never weights.
    pub fn elements(&self, stored: &Stored, start: u64, count: usize) -> Result<Vec<f32>, WeightError> {
        let bits = stored.element.bits();
        let length = (count as u64).saturating_mul(bits).div_ceil(8);
        let offset = start.saturating_mul(bits) / 8;
        stored.check_range(offset, length)?;
        let mut bytes = vec![0; length as usize];
        self.read_stored(stored, offset, &mut bytes)?;
        let mut values = decode(stored.element, &bytes).ok_or_else(|| WeightError::Element {
            name: stored.name().to_owned(),
            element: stored.element,
        })?;
        values.truncate(count);
        Ok(values)
    }

    /// Values (codes times scales), from an index on that starts a block.
    ///
    /// # Errors
    /// As [`Package::elements`] and [`Weight::block`].
    pub fn values(&self, weight: &Weight, start: u64, count: usize) -> Result<Vec<f32>, WeightError> {
        let mut values = self.elements(weight.stored(), start, count)?;
        if let Weight::Blocks { scales, .. } = weight {
            let block = weight.block()?;
            let size = usize::try_from(block).unwrap_or(usize::MAX);
            let scales = self.elements(scales, start / block, count.div_ceil(size))?;
            for (values, scale) in values.chunks_mut(size).zip(scales) {
                values.iter_mut().for_each(|value| *value *= scale);
            }
        }
        Ok(values)
    }
}

/// Bytes of two codes each that have scales among the weights, as codes; any other weight as it is.
fn as_blocks(weight: &Weight, all: &IndexSet<Weight>) -> Weight {
    let blocks = || {
        let Weight::Whole(stored) = weight else { return None };
        let [rows, bytes] = stored.shape[..] else { return None };
        let name = stored.name().trim_end_matches('~').strip_suffix(CODES)?;
        let is_scales = |other: &Stored| {
            let key = other.name().trim_end_matches('~').strip_suffix(SCALES);
            key == Some(name) && other.element == Element::F16 && other.shape.first() == Some(&rows)
        };
        let scales = all.iter().find_map(|other| match other {
            Weight::Whole(other) | Weight::Blocks { scales: other, .. } => {
                Some(other).filter(|other| is_scales(other))
            }
        })?;
        let shape = vec![rows, bytes.checked_mul(2)?];
        let codes = Stored { element: Element::Si4, shape, ..stored.clone() };
        (stored.element == Element::Ui8).then(|| Weight::Blocks { codes, scales: scales.clone() })
    };
    blocks().unwrap_or_else(|| weight.clone())
}

/// Elements of several weights of one shape to read at a time: whole blocks of each, about 2^18.
pub fn piece(weights: &[&Weight]) -> u64 {
    let unit = weights.iter().fold(2, |unit: u64, weight| {
        let block = weight.block().unwrap_or(2);
        if unit.is_multiple_of(block) { unit } else { unit.saturating_mul(block) }
    });
    (PIECE / unit).max(1).saturating_mul(unit)
}

/// Little-endian elements as f32; `None` for types that are never weights.
fn decode(element: Element, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    Some(match element {
        Element::Si4 => {
            bytes.iter().flat_map(|byte| [(byte << 4) as i8 >> 4, *byte as i8 >> 4]).map(f32::from).collect()
        }
        Element::Si8 => bytes.iter().map(|byte| f32::from(*byte as i8)).collect(),
        Element::Ui8 => bytes.iter().map(|byte| f32::from(*byte)).collect(),
        Element::F16 => pairs().map(|pair| f16::from_le_bytes(*pair).to_f32()).collect(),
        Element::Bf16 => pairs().map(|pair| bf16::from_le_bytes(*pair).to_f32()).collect(),
        Element::F32 => bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Element::Si32 => {
            bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as f32).collect()
        }
        _ => return None,
    })
}

impl Stored {
    /// Number of elements.
    pub fn count(&self) -> u64 {
        self.shape.iter().fold(1, |count, extent| count.saturating_mul(*extent))
    }

    /// Number of bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes.length()
    }

    /// Whether it is stored in the program as one element that is repeated.
    pub fn is_splat(&self) -> bool {
        matches!(self.bytes, Bytes::Repeated { .. })
    }

    /// Whether the range lies within the stored bytes: before anything is allocated for it.
    fn check_range(&self, offset: u64, length: u64) -> Result<(), WeightError> {
        let is_within = offset.checked_add(length).is_some_and(|end| end <= self.bytes());
        is_within.then_some(()).ok_or_else(|| WeightError::TooShort { name: self.name().to_owned() })
    }

    fn name(&self) -> &str {
        self.key.as_deref().unwrap_or("a constant in the program")
    }
}

impl Weight {
    /// What is stored as the values, without the scales.
    pub fn stored(&self) -> &Stored {
        match self {
            Weight::Whole(stored) | Weight::Blocks { codes: stored, .. } => stored,
        }
    }

    /// Keys of the blobs of codes and scales.
    fn parts(&self) -> Option<[Option<&str>; 2]> {
        match self {
            Weight::Whole(_) => None,
            Weight::Blocks { codes, scales } => Some([codes.key.as_deref(), scales.key.as_deref()]),
        }
    }

    /// Key of its blob.
    pub fn key(&self) -> Option<&str> {
        self.stored().key.as_deref()
    }

    /// Name of the tensor, if the package was written with names: foreign ones have digests for keys.
    pub fn name(&self) -> &str {
        let key = self.stored().name();
        // A key may end in a `~` that keeps the file from having a size that is never mapped.
        let key = key.trim_end_matches('~');
        key.strip_suffix(CODES).unwrap_or(key)
    }

    /// Whether it has a real name, and not a digest.
    pub fn has_name(&self) -> bool {
        self.key().is_some_and(|key| !key.starts_with("resource_"))
    }

    /// Bytes of all parts.
    pub fn bytes(&self) -> u64 {
        match self {
            Weight::Whole(stored) => stored.bytes(),
            Weight::Blocks { codes, scales } => codes.bytes().saturating_add(scales.bytes()),
        }
    }

    /// Weights that share a scale.
    ///
    /// # Errors
    /// If it is not stored in blocks of its last axis, of an even size, with scales of whole bytes.
    pub fn block(&self) -> Result<u64, WeightError> {
        let Weight::Blocks { codes, scales } = self else {
            return Err(WeightError::NotInBlocks { name: self.name().to_owned() });
        };
        let block = || {
            let (columns, rows) = codes.shape.split_last()?;
            let (blocks, scale_rows) = scales.shape.split_last()?;
            let fits = rows == scale_rows && *blocks > 0 && columns.is_multiple_of(*blocks);
            let block = fits.then(|| columns / blocks).filter(|block| *block > 0 && block.is_multiple_of(2));
            block.filter(|_| scales.element.bits() >= 8)
        };
        let shape = |stored: &Stored| format!("[{}]", bounds::extents(&stored.shape, ", "));
        block().ok_or_else(|| WeightError::Blocks {
            name: self.name().to_owned(),
            codes: shape(codes),
            scales: shape(scales),
        })
    }

    /// Whether its values can be computed here.
    pub fn is_readable(&self) -> bool {
        let readable = |stored: &Stored| decode(stored.element, &[]).is_some();
        match self {
            Weight::Whole(stored) => readable(stored),
            Weight::Blocks { codes, scales } => readable(codes) && readable(scales) && self.block().is_ok(),
        }
    }

    /// Format in words.
    pub fn format(&self) -> String {
        match self {
            Weight::Whole(stored) => stored.element.name().to_owned(),
            Weight::Blocks { codes, .. } => match self.block() {
                Ok(block) => format!("{}/{block}", codes.element.name()),
                Err(_) => codes.element.name().to_owned(),
            },
        }
    }

    /// Where element `index` is.
    pub fn place(&self, index: u64) -> Place {
        let columns = self.stored().shape.last().copied().unwrap_or(1).max(1);
        let column = index % columns;
        let block = self.block().ok().map(|block| column / block);
        Place { row: index / columns, block, column }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_numbers() {
        assert_eq!(decode(Element::Si4, &[0x8F, 0x70]), Some(vec![-1.0, -8.0, 0.0, 7.0]));
        assert_eq!(decode(Element::F16, &[0x00, 0x3C]), Some(vec![1.0]));
        assert_eq!(decode(Element::Bool, &[1]), None);
    }

    #[test]
    fn places_are_counted_from_the_start() {
        let stored = |element, shape: &[u64]| Stored {
            element,
            shape: shape.to_vec(),
            key: Some("a/codes".to_owned()),
            bytes: Bytes::Inline(Vec::new()),
        };
        let weight =
            Weight::Blocks { codes: stored(Element::Si4, &[4, 64]), scales: stored(Element::F16, &[4, 2]) };
        assert_eq!(weight.place(64 + 33), Place { row: 1, block: Some(1), column: 33 });
        assert_eq!((weight.name(), weight.format().as_str()), ("a", "si4/32"));
    }
}
