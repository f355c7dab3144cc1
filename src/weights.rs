//! The weights of a package as tensors: a blob, or codes with the scales that dequantize them.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use aimodel::bytecode::reader::{BlobRange, Bytecode, ReadAt};
use aimodel::package::Package;
use aimodel::{Attribute, Definition, Element, Opcode, ValueId};
use anyhow::{Context, bail};
use half::{bf16, f16};
use serde::Serialize;

use crate::digits;

/// Elements that are read at a time, about.
const PIECE: u64 = 1 << 18;
/// How keys end that belong together.
const CODES: &str = "/codes";

/// A package whose blobs can be read.
pub(crate) struct Program {
    pub(crate) package: Package,
    file: File,
}

/// Elements that are stored as they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Stored {
    /// Element type.
    pub(crate) element: Element,
    /// Extents, outermost first.
    pub(crate) shape: Vec<u64>,
    /// Name of the blob; none for a constant that stands in the program.
    pub(crate) key: Option<String>,
    bytes: Bytes,
}

/// Where elements are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Bytes {
    Blob { offset: u64, length: u64 },
    Inline(Vec<u8>),
}

impl Bytes {
    fn length(&self) -> u64 {
        match self {
            Bytes::Blob { length, .. } => *length,
            Bytes::Inline(bytes) => bytes.len() as u64,
        }
    }
}

/// Elements that stand in the program with a byte for each of 4 bits, packed as blobs have them.
fn as_in_a_blob(element: Element, bytes: &[u8]) -> Vec<u8> {
    if element.bits() != 4 {
        return bytes.to_vec();
    }
    bytes.chunks(2).map(|pair| (pair[0] & 15) | (pair.get(1).copied().unwrap_or_default() << 4)).collect()
}

/// A weight.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Weight {
    /// Stored as it is.
    Whole(Stored),
    /// Codes, and a scale for each block of the last axis.
    Blocks { codes: Stored, scales: Stored },
}

/// Place of an element.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Place {
    /// All axes but the last, as one.
    pub(crate) row: u64,
    /// Block of the row; none where nothing is in blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) block: Option<u64>,
    /// Column.
    pub(crate) column: u64,
}

impl Program {
    /// Opens a package.
    pub(crate) fn open(directory: &Path) -> anyhow::Result<Self> {
        let package = Package::open(directory)?;
        let path = package.program();
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Program { package, file })
    }

    /// The program itself.
    pub(crate) fn bytecode(&self) -> &Bytecode {
        &self.package.bytecode
    }

    /// The weight that a value is, if it is one: a constant, or constant codes that are dequantized.
    pub(crate) fn weight(&self, value: ValueId) -> Option<Weight> {
        let module = &self.bytecode().module;
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
        let module = &self.bytecode().module;
        let ty = module.tensor(value)?;
        let (key, bytes) = match module.constant(value)? {
            Attribute::DenseResource(id) => {
                let BlobRange { offset, length } = *self.bytecode().blobs.get(id.index())?;
                (Some(module.resource(*id).key.clone()), Bytes::Blob { offset, length })
            }
            Attribute::DenseElements { splat: false, bytes } => {
                (None, Bytes::Inline(as_in_a_blob(ty.element, bytes)))
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

    /// The weights in blobs, each once, in the order of their first use.
    pub(crate) fn weights(&self) -> Vec<Weight> {
        let module = &self.bytecode().module;
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for body in module.graphs().into_iter().filter_map(|graph| module.body(graph)) {
            for op in &module.block(body).ops {
                let op = module.op(*op);
                let values =
                    if op.opcode == Opcode::BlockwiseShiftScale { &op.results } else { &op.operands };
                let weights = values.iter().filter_map(|value| self.weight(*value));
                for weight in weights.filter(|weight| weight.key().is_some()) {
                    if seen.insert(weight.clone()) {
                        found.push(weight);
                    }
                }
            }
        }
        found
    }

    /// Bytes of stored elements from `offset` on.
    pub(crate) fn read(&self, stored: &Stored, offset: u64, out: &mut [u8]) -> anyhow::Result<()> {
        let end = offset.checked_add(out.len() as u64).filter(|end| *end <= stored.bytes());
        let end = end.with_context(|| format!("the package holds too few bytes of {}", stored.name()))?;
        match &stored.bytes {
            Bytes::Blob { offset: start, .. } => self
                .file
                .read_exact_at(out, start + offset)
                .with_context(|| format!("cannot read {}", self.package.program().display())),
            Bytes::Inline(bytes) => {
                let range = usize::try_from(offset)?..usize::try_from(end)?;
                out.copy_from_slice(bytes.get(range).unwrap_or_default());
                Ok(())
            }
        }
    }

    /// Elements as numbers, from an even index on.
    pub(crate) fn elements(&self, stored: &Stored, start: u64, count: usize) -> anyhow::Result<Vec<f32>> {
        let bits = stored.element.bits();
        let length = (count as u64 * bits).div_ceil(8);
        let mut bytes = vec![0; usize::try_from(length)?];
        self.read(stored, start * bits / 8, &mut bytes)?;
        let mut values = decode(stored.element, &bytes)
            .with_context(|| format!("{}: cannot read {} elements", stored.name(), stored.element.name()))?;
        values.truncate(count);
        Ok(values)
    }

    /// Values (codes times scales), from an index on that starts a block.
    pub(crate) fn values(&self, weight: &Weight, start: u64, count: usize) -> anyhow::Result<Vec<f32>> {
        let mut values = self.elements(weight.stored(), start, count)?;
        if let Weight::Blocks { scales, .. } = weight {
            let block = weight.block()?;
            let size = usize::try_from(block)?;
            let scales = self.elements(scales, start / block, count.div_ceil(size))?;
            for (values, scale) in values.chunks_mut(size).zip(scales) {
                values.iter_mut().for_each(|value| *value *= scale);
            }
        }
        Ok(values)
    }
}

/// Elements of several weights of one shape to read at a time: whole blocks of each, about 2^18.
pub(crate) fn piece(weights: &[&Weight]) -> u64 {
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
    pub(crate) fn count(&self) -> u64 {
        self.shape.iter().fold(1, |count, extent| count.saturating_mul(*extent))
    }

    /// Number of bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.length()
    }

    fn name(&self) -> &str {
        self.key.as_deref().unwrap_or("a constant in the program")
    }
}

impl Weight {
    /// What is stored as the values, scales apart.
    pub(crate) fn stored(&self) -> &Stored {
        match self {
            Weight::Whole(stored) | Weight::Blocks { codes: stored, .. } => stored,
        }
    }

    /// Key of its blob.
    pub(crate) fn key(&self) -> Option<&str> {
        self.stored().key.as_deref()
    }

    /// Name of the tensor, if the package was written with names: foreign ones have digests for keys.
    pub(crate) fn name(&self) -> &str {
        let key = self.stored().name();
        // A blob may carry a `~` that keeps the file from a size that is never mapped.
        let key = key.trim_end_matches('~');
        key.strip_suffix(CODES).unwrap_or(key)
    }

    /// Whether the name is one that a person gave.
    pub(crate) fn has_name(&self) -> bool {
        self.key().is_some_and(|key| !key.starts_with("resource_"))
    }

    /// Bytes of all parts.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Weight::Whole(stored) => stored.bytes(),
            Weight::Blocks { codes, scales } => codes.bytes().saturating_add(scales.bytes()),
        }
    }

    /// Weights that share a scale.
    ///
    /// # Errors
    /// If it is not stored in blocks of its last axis, of an even size, with scales of whole bytes.
    pub(crate) fn block(&self) -> anyhow::Result<u64> {
        let Weight::Blocks { codes, scales } = self else { bail!("{} is not stored in blocks", self.name()) };
        let told = || {
            let (codes, scales) = (digits::shape(&codes.shape), digits::shape(&scales.shape));
            format!("{}: scales {scales} for codes {codes} are not understood", self.name())
        };
        let axes = codes.shape.split_last().zip(scales.shape.split_last());
        let ((columns, rows), (blocks, scale_rows)) = axes.with_context(told)?;
        let fits = rows == scale_rows && *blocks > 0 && columns.is_multiple_of(*blocks);
        let block = fits.then(|| columns / blocks).filter(|block| *block > 0 && block.is_multiple_of(2));
        block.filter(|_| scales.element.bits() >= 8).with_context(told)
    }

    /// Whether its values can be computed here.
    pub(crate) fn is_readable(&self) -> bool {
        let readable = |stored: &Stored| decode(stored.element, &[]).is_some();
        match self {
            Weight::Whole(stored) => readable(stored),
            Weight::Blocks { codes, scales } => readable(codes) && readable(scales) && self.block().is_ok(),
        }
    }

    /// Format in words.
    pub(crate) fn format(&self) -> String {
        match self {
            Weight::Whole(stored) => stored.element.name().to_owned(),
            Weight::Blocks { codes, .. } => match self.block() {
                Ok(block) => format!("{}/{block}", codes.element.name()),
                Err(_) => codes.element.name().to_owned(),
            },
        }
    }

    /// Where element `index` is.
    pub(crate) fn place(&self, index: u64) -> Place {
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
