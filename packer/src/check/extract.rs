//! Reads [`GraphFacts`] from a package. Blobs stay on the disk, but for scales, which are scanned.

use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::Path;

use aimodel::bytecode::reader::{BlobRange, Bytecode, ReadAt};
use aimodel::package::PROGRAM;
use aimodel::{
    Attribute, AttributeId, BlockId, Definition, Element, Module, OpId, Opcode, TensorType, Type, ValueId,
};

use super::facts::{BlobMisfit, FunctionFacts, GraphFacts, Port, RotationFacts, WeightFacts};

/// Name of the attribute that names an argument or a result.
const NAME: &str = "aicode.name";
/// Bytes of a blob that are read at a time.
const CHUNK: usize = 1 << 20;

impl GraphFacts {
    /// Reads the facts of the package at `folder`.
    ///
    /// # Errors
    /// A message that says why the program cannot be read.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join(PROGRAM);
        let file = File::open(&path).map_err(|e| e.to_string())?;
        let bytecode = Bytecode::read(&file).map_err(|e| e.to_string())?;
        Extractor { module: &bytecode.module, blobs: &bytecode.blobs, file: &file }.facts()
    }
}

struct Extractor<'a> {
    module: &'a Module,
    blobs: &'a [BlobRange],
    file: &'a File,
}

impl Extractor<'_> {
    fn facts(&self) -> Result<GraphFacts, String> {
        let mut facts = GraphFacts::default();
        let root = self.module.root().ok_or("the program is empty")?;
        self.visit(root, &mut |op| self.look_at(op, &mut facts));
        for graph in self.module.graphs() {
            facts.functions.push(self.function(graph)?);
            // Decompositions repeat what their ops do: only ops of the graph itself count.
            let body = self.module.body(graph).ok_or("a function without a body")?;
            for &op in &self.module.block(body).ops {
                match self.module.op(op).opcode {
                    Opcode::BlockwiseShiftScale => facts.weights.push(self.weight(op, facts.weights.len())?),
                    Opcode::Cos | Opcode::Sin => {
                        facts.rotations.push(self.rotation(op, facts.rotations.len()));
                    }
                    _ => {}
                }
            }
        }
        Ok(facts)
    }

    /// Calls `look` for an op and all ops inside it.
    fn visit(&self, op: OpId, look: &mut dyn FnMut(OpId)) {
        let mut pending = vec![op];
        while let Some(op) = pending.pop() {
            look(op);
            pending.extend(self.blocks(op).flat_map(|block| &self.module.block(block).ops));
        }
    }

    fn blocks(&self, op: OpId) -> impl Iterator<Item = BlockId> {
        self.module.op(op).regions.iter().flat_map(|&region| &self.module.region(region).blocks).copied()
    }

    /// Locations and constants of one op.
    fn look_at(&self, op: OpId, facts: &mut GraphFacts) {
        let arguments = self.blocks(op).flat_map(|block| &self.module.block(block).arguments);
        let locations = arguments.map(|&argument| self.module.location_of(argument));
        let known = locations.chain([self.module.op(op).location]).filter(|&id| !self.is_unknown(id));
        facts.debug_locations += known.count();
        facts.misfits.extend(self.misfit(op));
    }

    /// Whether a location says nothing: no file, no place, no scope.
    fn is_unknown(&self, location: AttributeId) -> bool {
        let Attribute::Location { source, scope, fused, metadata } = self.module.attribute(location) else {
            return false;
        };
        let Attribute::SourceLocation { file, range } = self.module.attribute(*source) else { return false };
        let Attribute::File { name, .. } = self.module.attribute(*file) else { return false };
        let empty = fused.is_empty() && metadata.is_empty() && *range == [0; 4];
        empty && name == "-" && *self.module.attribute(*scope) == Attribute::Unit
    }

    /// A constant whose bytes are not as many as its type needs.
    fn misfit(&self, op: OpId) -> Option<BlobMisfit> {
        let value = *self.module.op(op).results.first()?;
        let constant = self.module.constant(value)?;
        let ty = self.module.tensor(value)?;
        let (name, stored, needed) = match constant {
            Attribute::DenseResource(id) => {
                let resource = self.module.resource(*id);
                (resource.key.clone(), resource.length, ty.blob_bytes()?)
            }
            Attribute::DenseElements { splat, bytes } => {
                let count = if *splat { 1 } else { ty.elements()? };
                let needed = count.checked_mul(ty.element.inline_bytes())?;
                (format!("an inline constant of type {ty}"), bytes.len() as u64, needed)
            }
            _ => return None,
        };
        (stored != needed).then_some(BlobMisfit { name, stored, needed })
    }

    fn function(&self, graph: OpId) -> Result<FunctionFacts, String> {
        let name = match self.property(graph, "name") {
            Some(Attribute::String(name)) => name.clone(),
            _ => return Err("a function without a name".to_owned()),
        };
        let body = self.module.body(graph).ok_or("a function without a body")?;
        let mut facts = FunctionFacts { name, ..FunctionFacts::default() };
        let arguments = &self.module.block(body).arguments;
        for (&argument, name) in arguments.iter().zip(self.names(graph, "argAttrs", arguments.len())) {
            match self.module.ty(self.module.value(argument).ty) {
                Type::Handle(state) => {
                    facts.states.extend(self.module.as_tensor(*state).map(|ty| port(name, &ty)));
                }
                _ => facts.inputs.extend(self.module.tensor(argument).map(|ty| port(name, &ty))),
            }
        }
        let output =
            self.module.block(body).ops.last().filter(|&&op| self.module.op(op).opcode == Opcode::Output);
        let results = output.map(|&op| self.module.op(op).operands.clone()).unwrap_or_default();
        for (&result, name) in results.iter().zip(self.names(graph, "resAttrs", results.len())) {
            // States come back as tokens and are no outputs.
            facts.outputs.extend(self.module.tensor(result).map(|ty| port(name, &ty)));
        }
        Ok(facts)
    }

    fn property(&self, op: OpId, name: &str) -> Option<&Attribute> {
        let op = self.module.op(op);
        let at = op.opcode.properties().iter().position(|&known| known == name)?;
        op.properties.get(at).copied().flatten().map(|id| self.module.attribute(id))
    }

    /// Names of arguments or results, empty where there is none.
    fn names(&self, graph: OpId, property: &str, count: usize) -> Vec<String> {
        let lists = match self.property(graph, property) {
            Some(Attribute::Array(lists)) => lists.as_slice(),
            _ => &[],
        };
        let mut names: Vec<String> = lists.iter().map(|&list| self.name(list).unwrap_or_default()).collect();
        names.resize(count, String::new());
        names
    }

    fn name(&self, list: AttributeId) -> Option<String> {
        let Attribute::Array(entries) = self.module.attribute(list) else { return None };
        entries.iter().find_map(|&entry| match self.module.attribute(entry) {
            Attribute::Opaque { name, parameters } if name == NAME => {
                match self.module.attribute(*parameters.first()?) {
                    Attribute::String(text) => Some(text.clone()),
                    _ => None,
                }
            }
            _ => None,
        })
    }

    fn weight(&self, op: OpId, ordinal: usize) -> Result<WeightFacts, String> {
        let [codes, scale, shift, offset] = self.module.op(op).operands[..] else {
            return Err("a dequantization without four operands".to_owned());
        };
        let tensor =
            |value| self.module.tensor(value).ok_or("a dequantization of something else than tensors");
        let (codes_type, scale_type) = (tensor(codes)?, tensor(scale)?);
        let name = match self.module.constant(codes) {
            Some(Attribute::DenseResource(id)) => self.module.resource(*id).key.clone(),
            _ => format!("quantized weight {ordinal}"),
        };
        Ok(WeightFacts {
            name,
            element: codes_type.element.name().to_owned(),
            shape: codes_type.shape.iter().map(|dim| dim.fixed().unwrap_or_default()).collect(),
            block: block(&codes_type, &scale_type),
            shifted: !self.is_zero(shift)? || !self.is_zero(offset)?,
            bad_scales: if scale_type.element == Element::F16 { self.bad_scales(scale)? } else { 0 },
        })
    }

    fn is_zero(&self, value: ValueId) -> Result<bool, String> {
        let mut zero = self.module.constant(value).is_some();
        self.scan(value, &mut |bytes| zero &= bytes.iter().all(|&byte| byte == 0))?;
        Ok(zero)
    }

    /// Number of f16 elements whose exponent is all ones.
    fn bad_scales(&self, value: ValueId) -> Result<u64, String> {
        const EXPONENT: u16 = 0x7c00;
        let mut bad = 0;
        self.scan(value, &mut |bytes| {
            let (elements, _) = bytes.as_chunks::<2>();
            let is_bad = |element: &&[u8; 2]| u16::from_le_bytes(**element) & EXPONENT == EXPONENT;
            bad += elements.iter().filter(is_bad).count() as u64;
        })?;
        Ok(bad)
    }

    /// Passes the bytes of a constant in pieces of whole elements.
    fn scan(&self, value: ValueId, look: &mut dyn FnMut(&[u8])) -> Result<(), String> {
        match self.module.constant(value) {
            Some(Attribute::DenseElements { bytes, .. }) => look(bytes),
            Some(Attribute::DenseResource(id)) => {
                let Some(BlobRange { mut offset, length }) = self.blobs.get(id.index()).copied() else {
                    return Ok(());
                };
                let mut buffer = vec![0; CHUNK];
                let end = offset.saturating_add(length);
                while offset < end {
                    let size = usize::try_from(end - offset).map_or(CHUNK, |left| left.min(CHUNK));
                    let Some(piece) = buffer.get_mut(..size) else { break };
                    self.file.read_exact_at(piece, offset).map_err(|e| e.to_string())?;
                    look(piece);
                    offset += size as u64;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Walks back from the angle to the constants and arguments that it is made of.
    fn rotation(&self, op: OpId, ordinal: usize) -> RotationFacts {
        let mut elements = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut pending = self.module.op(op).operands.clone();
        while let Some(value) = pending.pop() {
            if !seen.insert(value) {
                continue;
            }
            if let Some(element) = self.module.tensor(value).map(|ty| ty.element)
                && element.is_float()
            {
                elements.insert(element.name().to_owned());
            }
            if let Definition::Result { op, .. } = self.module.value(value).definition {
                pending.extend(&self.module.op(op).operands);
            }
        }
        let name = format!("{} {ordinal}", self.module.op(op).opcode.name());
        RotationFacts { name, elements: elements.into_iter().collect() }
    }
}

fn port(name: String, ty: &TensorType) -> Port {
    let shape = ty.shape.iter().map(|dim| dim.fixed()).collect();
    Port { name, element: ty.element.name().to_owned(), shape }
}

/// How many codes share a scale along each axis.
fn block(codes: &TensorType, scale: &TensorType) -> Option<Vec<u64>> {
    if codes.rank() != scale.rank() {
        return None;
    }
    let extents = codes.shape.iter().zip(&scale.shape);
    extents
        .map(|(codes, scale)| {
            let (codes, scale) = (codes.fixed()?, scale.fixed()?);
            (codes.checked_rem(scale) == Some(0)).then(|| codes / scale)
        })
        .collect()
}
