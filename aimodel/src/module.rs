//! The IR: ops, values, blocks and regions in arenas, addressed by `Copy` indices; types and attributes interned.

use indexmap::{IndexMap, IndexSet};

use crate::attribute::{Attribute, AttributeId, ResourceId};
use crate::element::Element;
use crate::opcode::Opcode;
use crate::types::{TensorType, Type, TypeId};

/// Key of the entry that names an argument or a result of a graph.
pub const NAME_KEY: &str = "aicode.name";
/// Key of the entry that says that a run changes a handle's state.
pub const MUTATION_KEY: &str = "MutableBuffers.buffer_mutation";

macro_rules! indices {
    ($($(#[$doc:meta])* $name:ident;)*) => {
        $($(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
        pub struct $name(pub(crate) u32);

        impl $name {
            pub(crate) fn at(index: usize) -> Self {
                // A module of 2^32 entities would need a bytecode file of more than 4 GiB without its blobs.
                $name(u32::try_from(index).expect("fewer than 2^32 entities in a module"))
            }

            /// Position in the arena, in order of creation.
            pub fn index(self) -> usize {
                self.0 as usize
            }
        })*
    };
}

indices! {
    /// Index of an op of a module.
    OpId;
    /// Index of a value of a module.
    ValueId;
    /// Index of a block of a module.
    BlockId;
    /// Index of a region of a module.
    RegionId;
}

/// An op: what it does, what it reads, what it makes.
#[derive(Clone, Debug)]
pub struct Op {
    /// What the op does.
    pub opcode: Opcode,
    /// Where it comes from: an [`Attribute::Location`].
    pub location: AttributeId,
    /// Properties in the order of [`Opcode::properties`].
    pub properties: Vec<Option<AttributeId>>,
    /// Values it reads.
    pub operands: Vec<ValueId>,
    /// Values it makes.
    pub results: Vec<ValueId>,
    /// Nested code.
    pub regions: Vec<RegionId>,
}

/// Where a value is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Definition {
    /// Result `index` of an op.
    Result {
        /// The op.
        op: OpId,
        /// Which of its results.
        index: u32,
    },
    /// Argument `index` of a block.
    Argument {
        /// The block.
        block: BlockId,
        /// Which of its arguments.
        index: u32,
        /// Location of the argument.
        location: AttributeId,
    },
}

/// A value: a type and a place where it is made.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// Type.
    pub ty: TypeId,
    /// Place.
    pub definition: Definition,
}

/// A block: arguments, then ops in program order.
#[derive(Clone, Default, Debug)]
pub struct Block {
    /// Values that come from outside.
    pub arguments: Vec<ValueId>,
    /// Ops in program order.
    pub ops: Vec<OpId>,
}

/// A region: blocks nested in an op.
#[derive(Clone, Default, Debug)]
pub struct Region {
    /// Blocks; every op of this dialect has one.
    pub blocks: Vec<BlockId>,
}

/// A promise of bytes: a constant's blob, streamed when the module is written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resource {
    /// Name of the blob, unique in the module.
    pub key: String,
    /// Length in bytes.
    pub length: u64,
    /// Alignment in bytes, counted from the start of the resource section's body.
    pub alignment: u64,
}

/// A whole program: one asset op with one graph in it.
#[derive(Clone, Debug, Default)]
pub struct Module {
    types: IndexSet<Type>,
    attributes: IndexSet<Attribute>,
    resources: IndexMap<String, Resource>,
    ops: Vec<Op>,
    values: Vec<Value>,
    blocks: Vec<Block>,
    regions: Vec<Region>,
    root: Option<OpId>,
}

impl Module {
    /// An empty module.
    pub fn new() -> Self {
        Self::default()
    }

    /// A module with the same types, attributes and resources, under the same ids, and no ops.
    pub(crate) fn without_code(&self) -> Self {
        Module {
            types: self.types.clone(),
            attributes: self.attributes.clone(),
            resources: self.resources.clone(),
            ..Self::default()
        }
    }

    /// Removes all ops, with what is in them.
    pub(crate) fn clear_code(&mut self) {
        self.ops.clear();
        self.values.clear();
        self.blocks.clear();
        self.regions.clear();
        self.root = None;
    }

    /// The id of a type, which is created if it is new.
    pub fn intern_type(&mut self, ty: Type) -> TypeId {
        TypeId(index32(self.types.insert_full(ty).0))
    }

    /// The id of a tensor type, which is created if it is new.
    pub fn tensor_type(&mut self, tensor: &TensorType) -> TypeId {
        let element = self.intern_type(Type::Element(tensor.element));
        self.intern_type(Type::Tensor { shape: tensor.shape.clone(), element })
    }

    /// The type with this id.
    pub fn ty(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    /// Shape and element of a tensor type; `None` for any other type.
    pub fn as_tensor(&self, id: TypeId) -> Option<TensorType> {
        match self.ty(id) {
            Type::Tensor { shape, element } => {
                Some(TensorType { shape: shape.clone(), element: self.as_element(*element)? })
            }
            _ => None,
        }
    }

    /// The element type behind an id; `None` for any other type.
    pub fn as_element(&self, id: TypeId) -> Option<Element> {
        match self.ty(id) {
            Type::Element(element) => Some(*element),
            _ => None,
        }
    }

    /// Shape and element of a value; `None` if it is a handle or a token.
    pub fn tensor(&self, value: ValueId) -> Option<TensorType> {
        self.as_tensor(self.value(value).ty)
    }

    /// Types in order of creation.
    pub(crate) fn types(&self) -> impl Iterator<Item = &Type> {
        self.types.iter()
    }

    /// Number of types interned so far.
    pub fn type_count(&self) -> usize {
        self.types.len()
    }

    /// The id of an attribute, which is created if it is new.
    pub fn intern(&mut self, attribute: Attribute) -> AttributeId {
        AttributeId(index32(self.attributes.insert_full(attribute).0))
    }

    /// The id of a string attribute.
    pub fn string(&mut self, text: &str) -> AttributeId {
        self.intern(Attribute::String(text.to_owned()))
    }

    /// The attribute with this id.
    pub fn attribute(&self, id: AttributeId) -> &Attribute {
        &self.attributes[id.0 as usize]
    }

    /// Attributes in order of creation.
    pub(crate) fn attributes(&self) -> impl Iterator<Item = &Attribute> {
        self.attributes.iter()
    }

    /// Number of attributes interned so far.
    pub fn attribute_count(&self) -> usize {
        self.attributes.len()
    }

    /// Adds a resource. For a second one with the same key, the first one's id is returned.
    pub fn add_resource(&mut self, resource: Resource) -> ResourceId {
        let entry = self.resources.entry(resource.key.clone());
        let id = ResourceId(index32(entry.index()));
        entry.or_insert(resource);
        id
    }

    /// Resources in order of creation.
    pub fn resources(&self) -> impl ExactSizeIterator<Item = &Resource> {
        self.resources.values()
    }

    /// The resource with this id.
    pub fn resource(&self, id: ResourceId) -> &Resource {
        &self.resources[id.0 as usize]
    }

    /// The resource with this key.
    pub fn find_resource(&self, key: &str) -> Option<ResourceId> {
        self.resources.get_index_of(key).map(|index| ResourceId(index32(index)))
    }

    /// Gives a resource another key, unless another one has that.
    pub(crate) fn rename_resource(&mut self, id: ResourceId, key: String) {
        let index = id.0 as usize;
        if self.resources.replace_index(index, key.clone()).is_ok() {
            self.resources[index].key = key;
        }
    }

    /// Adds an op without results; see [`Module::add_result`].
    pub fn add_op(&mut self, opcode: Opcode, location: AttributeId) -> OpId {
        let properties = vec![None; opcode.properties().len()];
        self.ops.push(Op {
            opcode,
            location,
            properties,
            operands: Vec::new(),
            results: Vec::new(),
            regions: Vec::new(),
        });
        OpId::at(self.ops.len() - 1)
    }

    /// Adds one more result to an op.
    pub fn add_result(&mut self, op: OpId, ty: TypeId) -> ValueId {
        let index = index32(self.op(op).results.len());
        let value = self.add_value(Value { ty, definition: Definition::Result { op, index } });
        self.op_mut(op).results.push(value);
        value
    }

    /// Adds one more argument to a block.
    pub fn add_argument(&mut self, block: BlockId, ty: TypeId, location: AttributeId) -> ValueId {
        let index = index32(self.block(block).arguments.len());
        let value = self.add_value(Value { ty, definition: Definition::Argument { block, index, location } });
        self.block_mut(block).arguments.push(value);
        value
    }

    fn add_value(&mut self, value: Value) -> ValueId {
        self.values.push(value);
        ValueId::at(self.values.len() - 1)
    }

    /// Adds an empty region to an op.
    pub fn add_region(&mut self, op: OpId) -> RegionId {
        self.regions.push(Region::default());
        let region = RegionId::at(self.regions.len() - 1);
        self.op_mut(op).regions.push(region);
        region
    }

    /// Adds an empty block to a region.
    pub fn add_block(&mut self, region: RegionId) -> BlockId {
        self.blocks.push(Block::default());
        let block = BlockId::at(self.blocks.len() - 1);
        self.regions[region.index()].blocks.push(block);
        block
    }

    /// The op with this id.
    pub fn op(&self, id: OpId) -> &Op {
        &self.ops[id.index()]
    }

    /// The op with this id, mutable.
    pub fn op_mut(&mut self, id: OpId) -> &mut Op {
        &mut self.ops[id.index()]
    }

    /// The value with this id.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.index()]
    }

    /// Location of the op or argument that makes a value.
    pub fn location_of(&self, id: ValueId) -> AttributeId {
        match self.value(id).definition {
            Definition::Result { op, .. } => self.op(op).location,
            Definition::Argument { location, .. } => location,
        }
    }

    /// The block with this id.
    pub fn block(&self, id: BlockId) -> &Block {
        &self.blocks[id.index()]
    }

    /// The block with this id, mutable.
    pub fn block_mut(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.index()]
    }

    /// The region with this id.
    pub fn region(&self, id: RegionId) -> &Region {
        &self.regions[id.index()]
    }

    /// Number of ops, those in regions included.
    pub fn op_count(&self) -> usize {
        self.ops.len()
    }

    /// Number of values, those in regions included.
    pub fn value_count(&self) -> usize {
        self.values.len()
    }

    /// Number of regions.
    pub fn region_count(&self) -> usize {
        self.regions.len()
    }

    /// The outermost op, once it is set.
    pub fn root(&self) -> Option<OpId> {
        self.root
    }

    /// Sets the outermost op.
    pub fn set_root(&mut self, root: OpId) {
        self.root = Some(root);
    }

    /// The graphs of the asset, in order.
    pub fn graphs(&self) -> Vec<OpId> {
        let Some(root) = self.root else { return Vec::new() };
        let blocks = self.op(root).regions.iter().flat_map(|region| &self.region(*region).blocks);
        blocks
            .flat_map(|block| &self.block(*block).ops)
            .copied()
            .filter(|op| self.op(*op).opcode == Opcode::Graph)
            .collect()
    }

    /// Takes a graph out of the asset. What only it used is not written.
    pub fn remove_graph(&mut self, graph: OpId) {
        self.blocks.iter_mut().for_each(|block| block.ops.retain(|op| *op != graph));
    }

    /// The only block of an op's only region; `None` if the op is not shaped like that.
    pub fn body(&self, op: OpId) -> Option<BlockId> {
        match self.op(op).regions[..] {
            [region] => match self.region(region).blocks[..] {
                [block] => Some(block),
                _ => None,
            },
            _ => None,
        }
    }

    /// An attribute of an op by the name of the property, `?` included.
    pub(crate) fn property(&self, op: OpId, name: &str) -> Option<&Attribute> {
        let op = self.op(op);
        let at = op.opcode.properties().iter().position(|known| *known == name)?;
        op.properties.get(at).copied().flatten().map(|id| self.attribute(id))
    }

    /// The text of a named entry, such as [`NAME_KEY`], among the attributes of one argument or result.
    pub fn named_entry(&self, entries: AttributeId, key: &str) -> Option<&str> {
        let Attribute::Array(entries) = self.attribute(entries) else { return None };
        entries.iter().find_map(|entry| match self.attribute(*entry) {
            Attribute::Opaque { name, parameters } if name == key => match parameters[..] {
                [text] => match self.attribute(text) {
                    Attribute::String(text) => Some(text.as_str()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })
    }

    /// The constant behind a value: its attribute, if a constant op makes it.
    pub fn constant(&self, value: ValueId) -> Option<&Attribute> {
        let Definition::Result { op, .. } = self.value(value).definition else { return None };
        let op = self.op(op);
        (op.opcode == Opcode::Constant)
            .then(|| op.properties.first().copied().flatten())
            .flatten()
            .map(|id| self.attribute(id))
    }
}

fn index32(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 2^32 entities in a module")
}
