//! Where two graphs differ: ops in order, their operands, types, properties, regions and constants.
//!
//! Numbering, the place of constants, whether a constant is inline or a blob, its key, sharing of equal constants and
//! locations do not count.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use sha2::{Digest, Sha256};

use crate::attribute::Attribute;
use crate::bytecode::reader::{BlobRange, Bytecode, ReadAt};
use crate::describe::{describe_attribute, describe_type};
use crate::element::Element;
use crate::module::{BlockId, Definition, Module, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::TensorType;

/// A place where two graphs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Path to the op, such as `main / op 120 broadcasting_mul_v1`.
    pub place: String,
    /// What the left graph has there.
    pub left: String,
    /// What the right graph has there.
    pub right: String,
}

/// Content of a constant, whatever form it is stored in.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    /// All elements equal: the one element, as its inline bytes.
    Splat(Vec<u8>),
    /// Digest of the elements as they stand in a blob.
    Bytes([u8; 32]),
}

/// A package to be compared: the module, and a way to the blobs.
pub struct Side<'a> {
    bytecode: &'a Bytecode,
    file: &'a File,
    contents: HashMap<ValueId, Content>,
    /// Ordinal of each op among those that are not constants, within its block.
    ordinals: HashMap<OpId, usize>,
}

impl<'a> Side<'a> {
    /// A side made of bytecode and the file it was read from. Contents of all constants are read here.
    pub fn new(bytecode: &'a Bytecode, file: &'a File) -> io::Result<Self> {
        let mut side = Side { bytecode, file, contents: HashMap::new(), ordinals: HashMap::new() };
        for graph in bytecode.module.graphs() {
            side.index(graph)?;
        }
        Ok(side)
    }

    fn module(&self) -> &'a Module {
        &self.bytecode.module
    }

    fn index(&mut self, op: OpId) -> io::Result<()> {
        for block in blocks(self.module(), op) {
            let mut ordinal = 0;
            for nested in &self.module().block(block).ops {
                if self.module().op(*nested).opcode == Opcode::Constant {
                    self.index_constant(*nested)?;
                } else {
                    self.ordinals.insert(*nested, ordinal);
                    ordinal += 1;
                }
                self.index(*nested)?;
            }
        }
        Ok(())
    }

    fn index_constant(&mut self, op: OpId) -> io::Result<()> {
        let Some(value) = self.module().op(op).results.first() else { return Ok(()) };
        let Some(ty) = self.module().tensor(*value) else { return Ok(()) };
        let content = match self.module().constant(*value) {
            Some(Attribute::DenseElements { splat, bytes }) => inline_content(&ty, *splat, bytes),
            Some(Attribute::DenseResource(id)) => {
                let range = self.bytecode.blobs.get(id.index()).copied().ok_or(io::ErrorKind::NotFound)?;
                blob_content(self.file, range, ty.element)?
            }
            _ => return Ok(()),
        };
        self.contents.insert(*value, content);
        Ok(())
    }

    /// A value in terms that hold in both graphs.
    fn describe(&self, value: ValueId) -> String {
        let ty = describe_type(self.module(), self.module().value(value).ty);
        match (self.contents.get(&value), self.module().value(value).definition) {
            (Some(Content::Splat(element)), _) => format!("constant {ty} of {element:02x?}"),
            (Some(Content::Bytes(digest)), _) => format!("constant {ty} with digest {:02x?}", &digest[..8]),
            (None, Definition::Argument { index, .. }) => format!("argument {index}: {ty}"),
            (None, Definition::Result { op, index }) => {
                format!("result {index} of op {}: {ty}", self.ordinals.get(&op).copied().unwrap_or_default())
            }
        }
    }

    fn describe_op(&self, op: OpId) -> Vec<String> {
        let op = self.module().op(op);
        let mut parts = vec![op.opcode.name().to_owned()];
        parts.extend(op.operands.iter().map(|operand| self.describe(*operand)));
        parts.extend(op.properties.iter().map(|property| {
            property.map_or("absent".to_owned(), |property| describe_attribute(self.module(), property))
        }));
        parts.extend(
            op.results.iter().map(|result| describe_type(self.module(), self.module().value(*result).ty)),
        );
        parts
    }

    fn code(&self, block: BlockId) -> Vec<OpId> {
        let ops = self.module().block(block).ops.iter().copied();
        ops.filter(|op| self.module().op(*op).opcode != Opcode::Constant).collect()
    }
}

fn blocks(module: &Module, op: OpId) -> Vec<BlockId> {
    module.op(op).regions.iter().flat_map(|region| module.region(*region).blocks.iter().copied()).collect()
}

/// Every difference between two packages' graphs, at most `limit` of them.
pub fn compare(left: &Side<'_>, right: &Side<'_>, limit: usize) -> Vec<Difference> {
    let mut comparison = Comparison { left, right, limit, found: Vec::new() };
    let (ours, theirs) = (left.module().graphs(), right.module().graphs());
    if ours.len() != theirs.len() {
        comparison.add("asset", format!("{} graphs", ours.len()), format!("{} graphs", theirs.len()));
    }
    if let (Some(a), Some(b)) = (left.module().root(), right.module().root()) {
        comparison.op("asset", a, b);
    }
    comparison.found
}

struct Comparison<'c, 'a> {
    left: &'c Side<'a>,
    right: &'c Side<'a>,
    limit: usize,
    found: Vec<Difference>,
}

impl Comparison<'_, '_> {
    fn add(&mut self, place: &str, left: String, right: String) {
        if self.found.len() < self.limit {
            self.found.push(Difference { place: place.to_owned(), left, right });
        }
    }

    fn op(&mut self, place: &str, a: OpId, b: OpId) {
        let (left, right) = (self.left.describe_op(a), self.right.describe_op(b));
        if left != right {
            let differ: Vec<usize> =
                (0..left.len().max(right.len())).filter(|at| left.get(*at) != right.get(*at)).collect();
            let pick = |parts: &[String]| {
                differ.iter().filter_map(|at| parts.get(*at).cloned()).collect::<Vec<_>>().join("; ")
            };
            self.add(place, pick(&left), pick(&right));
        }
        let (left, right) = (blocks(self.left.module(), a), blocks(self.right.module(), b));
        if left.len() != right.len() {
            self.add(place, format!("{} blocks", left.len()), format!("{} blocks", right.len()));
        }
        for (a, b) in left.into_iter().zip(right) {
            self.block(place, a, b);
        }
    }

    fn block(&mut self, place: &str, a: BlockId, b: BlockId) {
        let arguments = |side: &Side<'_>, block: BlockId| {
            let arguments = &side.module().block(block).arguments;
            arguments
                .iter()
                .map(|value| describe_type(side.module(), side.module().value(*value).ty))
                .collect::<Vec<_>>()
        };
        let (left, right) = (arguments(self.left, a), arguments(self.right, b));
        if left != right {
            self.add(&format!("{place} / arguments"), left.join(", "), right.join(", "));
        }
        let (left, right) = (self.left.code(a), self.right.code(b));
        if left.len() != right.len() {
            self.add(place, format!("{} ops", left.len()), format!("{} ops", right.len()));
        }
        for (ordinal, (a, b)) in left.into_iter().zip(right).enumerate() {
            if self.found.len() >= self.limit {
                return;
            }
            let opcode = self.left.module().op(a).opcode;
            self.op(&format!("{place} / op {ordinal} {opcode}"), a, b);
        }
    }
}

/// Content of a constant that is stored in the attribute: sub-byte elements take a byte each there.
fn inline_content(ty: &TensorType, splat: bool, bytes: &[u8]) -> Content {
    let width = ty.element.inline_bytes() as usize;
    if splat || (bytes.len() >= width && bytes.chunks_exact(width).all(|element| element == &bytes[..width]))
    {
        return Content::Splat(bytes.get(..width).unwrap_or_default().to_vec());
    }
    Content::Bytes(Sha256::digest(ty.element.as_in_a_blob(bytes)).into())
}

/// Content of a blob, read in pieces.
fn blob_content(file: &File, range: BlobRange, element: Element) -> io::Result<Content> {
    let unit = if element.bits() < 8 { 1 } else { element.inline_bytes() as usize };
    let mut first = vec![0; unit.min(usize::try_from(range.length).unwrap_or(unit))];
    file.read_exact_at(&mut first, range.offset)?;
    let mut uniform =
        element.bits() >= 8 || (element.bits() == 4 && first.iter().all(|byte| byte & 15 == byte >> 4));
    let mut hasher = Sha256::new();
    range.scan(file, |piece| {
        uniform = uniform && piece.chunks(unit).all(|part| part == first);
        hasher.update(piece);
    })?;
    if uniform {
        let element_bytes =
            if element.bits() < 8 { first.iter().map(|byte| byte & 15).collect() } else { first };
        return Ok(Content::Splat(element_bytes));
    }
    Ok(Content::Bytes(hasher.finalize().into()))
}
