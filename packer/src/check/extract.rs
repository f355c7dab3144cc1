//! Reads [`GraphFacts`] from a package. Blobs are not read, except for scales, which are scanned.

use std::collections::HashMap;
use std::path::Path;

use aimodel::bytecode::reader::{BlobRange, Bytecode};
use aimodel::package::PROGRAM;
use aimodel::verify::verify;
use aimodel::view::{self, Function};
use aimodel::{
    Attribute, AttributeId, BlockId, Definition, Element, Module, OpId, Opcode, TensorType, ValueId,
};
use paths::FileRange;

use super::facts::{FunctionFacts, GraphFacts, PortFacts, RotationFacts, SharedBlob, WeightFacts};

impl GraphFacts {
    /// Reads the facts of the package at `folder`.
    ///
    /// # Errors
    /// A message that says why the program cannot be read.
    pub fn read(folder: &Path) -> Result<Self, String> {
        let path = folder.join(PROGRAM);
        let file = paths::open(&path).map_err(|e| e.to_string())?;
        let bytecode = Bytecode::read(&file).map_err(|e| e.to_string())?;
        let contents = HashMap::new();
        Extractor { module: &bytecode.module, blobs: &bytecode.blobs, file: &file, contents }.facts()
    }
}

struct Extractor<'a> {
    module: &'a Module,
    blobs: &'a [BlobRange],
    file: &'a FileRange,
    /// Constants that were looked at: many operations may share one.
    contents: HashMap<AttributeId, Content>,
}

/// What the bytes of a constant say.
#[derive(Clone, Copy)]
struct Content {
    /// Whether all of them are zero.
    zero: bool,
    /// Elements, if they are f16, whose exponent is all ones.
    not_finite: u64,
}

impl Extractor<'_> {
    fn facts(&mut self) -> Result<GraphFacts, String> {
        let invalid = verify(self.module).err().map(|error| error.to_string());
        let shared_blobs = self.shared_blobs();
        let mut facts = GraphFacts { invalid, shared_blobs, ..GraphFacts::default() };
        let module = self.module;
        let root = module.root().ok_or("the program is empty")?;
        let mut floats = vec![0; module.value_count()];
        self.visit(root, &mut |op| self.look_at(op, &mut facts));
        for function in Function::all(module) {
            let function = function.ok_or("a function without a body")?;
            facts.functions.push(function_facts(&function)?);
            // Decompositions repeat what their ops do: only ops of the graph itself count.
            self.follow_floats(function.body, &mut floats);
            for &op in &module.block(function.body).ops {
                match module.op(op).opcode {
                    Opcode::GatherNd => facts.gathers_bytes |= self.is_constant(op, Element::Ui8),
                    Opcode::GatherAlongAxis => facts.holds_table |= self.is_constant(op, Element::Si8),
                    Opcode::BlockwiseShiftScale => facts.weights.push(self.weight(op, facts.weights.len())?),
                    Opcode::Cos | Opcode::Sin => {
                        facts.rotations.push(self.rotation(op, facts.rotations.len(), &floats));
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

    /// Locations of one op.
    fn look_at(&self, op: OpId, facts: &mut GraphFacts) {
        let arguments = self.blocks(op).flat_map(|block| &self.module.block(block).arguments);
        let locations = arguments.map(|&argument| self.module.location_of(argument));
        let known = locations.chain([self.module.op(op).location]).filter(|&id| !self.is_unknown(id));
        facts.debug_locations += known.count();
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

    /// Whether the first operand of an op is a constant of this type.
    fn is_constant(&self, op: OpId, element: Element) -> bool {
        let Some(table) = self.module.op(op).operands.first().copied() else { return false };
        let is_of_type = self.module.tensor(table).is_some_and(|ty| ty.element == element);
        is_of_type && self.module.constant(table).is_some()
    }

    /// Blobs that constants of the graphs read as several types.
    fn shared_blobs(&self) -> Vec<SharedBlob> {
        let module = self.module;
        let mut types: Vec<Vec<TensorType>> = vec![Vec::new(); module.resources().len()];
        let bodies = module.graphs().into_iter().filter_map(|graph| module.body(graph));
        for result in bodies.flat_map(|body| &module.block(body).ops).flat_map(|op| &module.op(*op).results) {
            if let (Some(Attribute::DenseResource(id)), Some(ty)) =
                (module.constant(*result), module.tensor(*result))
                && let Some(types) = types.get_mut(id.index())
                && !types.contains(&ty)
            {
                types.push(ty);
            }
        }
        let shared = module.resources().zip(types).filter(|(_, types)| types.len() > 1);
        let described = shared.map(|(resource, types)| SharedBlob {
            name: resource.key.clone(),
            same_rows: types.iter().all(|ty| ty.rank() > 1 && ty.shape.first() == types[0].shape.first()),
            types: types.iter().map(ToString::to_string).collect(),
        });
        described.collect()
    }

    fn weight(&mut self, op: OpId, ordinal: usize) -> Result<WeightFacts, String> {
        let [codes, scale, shift, offset] = self.module.op(op).operands[..] else {
            return Err("a dequantization without four operands".to_owned());
        };
        let module = self.module;
        let tensor = |value| module.tensor(value).ok_or("a dequantization of something other than tensors");
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
            bad_scales: match self.content(scale)? {
                Some(content) if scale_type.element == Element::F16 => content.not_finite,
                _ => 0,
            },
        })
    }

    fn is_zero(&mut self, value: ValueId) -> Result<bool, String> {
        Ok(self.content(value)?.is_some_and(|content| content.zero))
    }

    /// Looks at the bytes of a constant, once; `None` for any other value.
    fn content(&mut self, value: ValueId) -> Result<Option<Content>, String> {
        const EXPONENT: u16 = 0x7c00;
        let Definition::Result { op, .. } = self.module.value(value).definition else { return Ok(None) };
        let op = self.module.op(op);
        let Some(constant) = op.properties.first().copied().flatten() else { return Ok(None) };
        if op.opcode != Opcode::Constant {
            return Ok(None);
        }
        if let Some(content) = self.contents.get(&constant) {
            return Ok(Some(*content));
        }
        let mut content = Content { zero: true, not_finite: 0 };
        let mut look = |bytes: &[u8]| {
            content.zero &= bytes.iter().all(|&byte| byte == 0);
            let (elements, _) = bytes.as_chunks::<2>();
            let is_bad = |element: &&[u8; 2]| u16::from_le_bytes(**element) & EXPONENT == EXPONENT;
            content.not_finite += elements.iter().filter(is_bad).count() as u64;
        };
        match self.module.attribute(constant) {
            Attribute::DenseElements { bytes, .. } => look(bytes),
            Attribute::DenseResource(id) => {
                if let Some(blob) = self.blobs.get(id.index()) {
                    blob.scan(self.file, look).map_err(|e| e.to_string())?;
                }
            }
            _ => {}
        }
        self.contents.insert(constant, content);
        Ok(Some(content))
    }

    /// Records for each value of a block which float types it is computed from, its own included: one bit for each of [`Element::ALL`].
    fn follow_floats(&self, body: BlockId, floats: &mut [u64]) {
        let block = self.module.block(body);
        let own = |value: ValueId| {
            let element = self.module.tensor(value).map(|ty| ty.element).filter(|element| element.is_float());
            let bit = element.and_then(|element| Element::ALL.iter().position(|other| *other == element));
            bit.map_or(0, |bit| 1 << bit)
        };
        for argument in &block.arguments {
            floats[argument.index()] = own(*argument);
        }
        for op in block.ops.iter().map(|op| self.module.op(*op)) {
            let made_of = made_of(&op.operands, floats);
            for result in &op.results {
                floats[result.index()] = made_of | own(*result);
            }
        }
    }

    /// The float types that an angle is computed from, starting at the constants and arguments.
    fn rotation(&self, op: OpId, ordinal: usize, floats: &[u64]) -> RotationFacts {
        let bits = made_of(&self.module.op(op).operands, floats);
        let elements = Element::ALL.iter().enumerate().filter(|(bit, _)| bits >> bit & 1 == 1);
        let mut elements: Vec<String> = elements.map(|(_, element)| element.name().to_owned()).collect();
        elements.sort();
        RotationFacts { name: format!("{} {ordinal}", self.module.op(op).opcode.name()), elements }
    }
}

/// The float types that values are computed from.
fn made_of(values: &[ValueId], floats: &[u64]) -> u64 {
    values.iter().fold(0, |bits, value| bits | floats[value.index()])
}

fn function_facts(function: &Function<'_>) -> Result<FunctionFacts, String> {
    let name = function.name.ok_or("a function without a name")?.to_owned();
    Ok(FunctionFacts {
        name,
        inputs: function.inputs().filter_map(port).collect(),
        states: function.states().filter_map(port).collect(),
        outputs: function.outputs().filter_map(port).collect(),
    })
}

fn port(port: &view::Port<'_>) -> Option<PortFacts> {
    let ty = port.tensor.as_ref()?;
    let shape = ty.shape.iter().map(|dim| dim.fixed()).collect();
    let name = port.name.unwrap_or_default().to_owned();
    Some(PortFacts { name, element: ty.element.name().to_owned(), shape })
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
