//! A graph as alignment sees it: signatures of its ops, and its values in words.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use super::{LONGEST, SMALL};
use crate::attribute::{Attribute, AttributeId};
use crate::describe::{describe_attribute_within, describe_type_within};
use crate::element::Element;
use crate::fingerprint::Fingerprints;
use crate::module::{BlockId, Definition, Module, OpId, ValueId};
use crate::opcode::Opcode;
use crate::print::literal::write_literal;
use crate::print::{Name, name_block, plain, short_name};
use crate::types::{Dim, TensorType};
use crate::view::{self, Function};

/// An input, a state or an output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GraphPort {
    /// Its name, quoted.
    pub name: String,
    /// Its type.
    pub ty: String,
    /// Whether it is a state.
    pub is_state: bool,
}

/// One graph of a module, with names for its values.
pub struct Graph<'m> {
    module: &'m Module,
    op: OpId,
    body: BlockId,
    name: &'m str,
    names: HashMap<ValueId, Name>,
    prints: Rc<Fingerprints>,
    inputs: Vec<GraphPort>,
    outputs: Vec<GraphPort>,
}

impl<'m> Graph<'m> {
    /// All graphs of a module that have a body.
    pub fn all(module: &'m Module) -> Vec<Self> {
        let prints = Rc::new(Fingerprints::of(module));
        let new = |op| Some(Graph::new(module, op, &Function::of(module, op)?, Rc::clone(&prints)));
        module.graphs().into_iter().filter_map(new).collect()
    }

    fn new(module: &'m Module, op: OpId, function: &Function<'m>, prints: Rc<Fingerprints>) -> Self {
        let port = |port: &view::Port<'_>| GraphPort {
            name: port.quoted_name(),
            ty: describe_type_within(module, module.value(port.value).ty, LONGEST),
            is_state: port.is_state,
        };
        let mut names = HashMap::new();
        name_block(module, function.body, 0, |value, name| {
            names.insert(value, name);
        });
        Graph {
            module,
            op,
            body: function.body,
            name: function.name.unwrap_or_default(),
            names,
            prints,
            inputs: function.arguments.iter().map(port).collect(),
            outputs: function.results.iter().map(port).collect(),
        }
    }

    /// Its name; empty if it has none.
    pub fn name(&self) -> &'m str {
        self.name
    }

    /// The op that it is.
    pub(super) fn op(&self) -> OpId {
        self.op
    }

    /// The module that it is part of.
    pub fn module(&self) -> &'m Module {
        self.module
    }

    /// Its inputs and states with their values.
    pub fn inputs(&self) -> impl Iterator<Item = (&GraphPort, ValueId)> {
        self.inputs.iter().zip(self.module.block(self.body).arguments.iter().copied())
    }

    /// Its outputs.
    pub fn outputs(&self) -> &[GraphPort] {
        &self.outputs
    }

    /// Its ops, except for constants.
    pub fn code(&self) -> Vec<OpId> {
        let ops = self.module.block(self.body).ops.iter().copied();
        ops.filter(|op| self.module.op(*op).opcode != Opcode::Constant).collect()
    }

    /// An op on one line, constants in place of their names.
    pub fn line(&self, op: OpId) -> String {
        let op = self.module.op(op);
        let list = |values: Vec<String>| values.join(", ");
        let results = list(op.results.iter().map(|value| self.name_of(*value)).collect());
        let operands = list(op.operands.iter().map(|value| self.describe_value(*value)).collect());
        let types = list(op.results.iter().map(|value| self.describe_type(*value)).collect());
        let mut line = String::new();
        if !results.is_empty() {
            line = format!("{results} = ");
        }
        // Writing to a String cannot fail.
        let _ = write!(line, "{}({operands})", short_name(op.opcode));
        if !types.is_empty() {
            let _ = write!(line, " : {types}");
        }
        line
    }

    /// Names of an op's results.
    pub fn results(&self, op: OpId) -> String {
        let results = self.module.op(op).results.iter();
        results.map(|value| self.name_of(*value)).collect::<Vec<_>>().join(", ")
    }

    /// Name of a value, or what a constant is.
    pub fn describe_value(&self, value: ValueId) -> String {
        if let Some(literal) = self.small_constant(value) {
            return literal;
        }
        match (self.module.constant(value), self.module.value(value).definition) {
            (Some(Attribute::DenseResource(id)), _) => {
                format!("@{}", plain(&shortened(&self.module.resource(*id).key)))
            }
            (Some(_), _) => format!("constant {}", self.describe_type(value)),
            (None, Definition::Argument { index, .. }) => match self.inputs.get(index as usize) {
                Some(port) => format!("{} {}", self.name_of(value), shortened(&port.name)),
                None => self.name_of(value),
            },
            (None, Definition::Result { .. }) => self.name_of(value),
        }
    }

    /// Type of a value.
    pub(super) fn describe_type(&self, value: ValueId) -> String {
        describe_type_within(self.module, self.module.value(value).ty, LONGEST)
    }

    fn name_of(&self, value: ValueId) -> String {
        self.names.get(&value).map_or_else(|| "%?".to_owned(), ToString::to_string)
    }

    /// A constant that is part of the ops that use it, in words: any but larger tensors.
    pub(super) fn small_constant(&self, value: ValueId) -> Option<String> {
        let attribute = self.module.constant(value)?;
        match (attribute, self.module.tensor(value)) {
            (Attribute::DenseElements { splat, bytes }, Some(ty)) => {
                let mut text = String::new();
                // A splat of bools holds each of its elements.
                let is_small = bytes.len() <= SMALL || (*splat && ty.element == Element::Bool);
                is_small.then(|| write_literal(&mut text, &ty, *splat, bytes).ok())??;
                Some(text)
            }
            (Attribute::DenseResource(_), Some(_)) => None,
            _ => {
                let Definition::Result { op, .. } = self.module.value(value).definition else { return None };
                let attribute = self.module.op(op).properties.first().copied().flatten()?;
                Some(describe_attribute_within(self.module, attribute, LONGEST))
            }
        }
    }

    /// Whether a value is a constant whose content can be compared by its bytes, wherever they are.
    pub(super) fn has_content(&self, value: ValueId) -> bool {
        let is_dense = matches!(
            self.module.constant(value),
            Some(Attribute::DenseElements { .. } | Attribute::DenseResource(_))
        );
        let is_known =
            |ty: TensorType| ty.blob_bytes().is_some() && (ty.element.bits() >= 8 || ty.element.bits() == 4);
        is_dense && self.module.tensor(value).is_some_and(is_known)
    }

    /// Whether a value is a larger constant, or one that is dequantized.
    pub(super) fn is_weight(&self, value: ValueId) -> bool {
        if self.module.constant(value).is_some() {
            return self.small_constant(value).is_none();
        }
        let Definition::Result { op, .. } = self.module.value(value).definition else { return false };
        let op = self.module.op(op);
        op.opcode == Opcode::BlockwiseShiftScale
            && op.operands.first().is_some_and(|codes| self.module.constant(*codes).is_some())
    }

    pub(super) fn extents(&self, value: ValueId) -> Option<Vec<Dim>> {
        Some(self.module.tensor(value)?.shape)
    }

    /// Fingerprint of a value's type.
    pub(super) fn type_print(&self, value: ValueId) -> u64 {
        self.prints.ty(self.module.value(value).ty)
    }

    /// Fingerprint of an attribute.
    pub(super) fn attribute_print(&self, id: AttributeId) -> u64 {
        self.prints.attribute(id)
    }

    /// What an op does, without the names of anything. Ops that are not alike have different signatures, except for hash
    /// collisions, in which case their differences are still reported.
    pub(super) fn signature(&self, id: OpId) -> u64 {
        let op = self.module.op(id);
        let mut hasher = DefaultHasher::new();
        op.opcode.hash(&mut hasher);
        op.operands.len().hash(&mut hasher);
        for operand in &op.operands {
            self.type_print(*operand).hash(&mut hasher);
            self.hash_origin(*operand, &mut hasher);
        }
        self.hash_properties_and_results(id, &mut hasher);
        self.regions(id).hash(&mut hasher);
        hasher.finish()
    }

    fn hash_properties_and_results(&self, id: OpId, hasher: &mut DefaultHasher) {
        let op = self.module.op(id);
        for property in &op.properties {
            property.map(|id| self.attribute_print(id)).hash(hasher);
        }
        op.results.len().hash(hasher);
        op.results.iter().for_each(|result| self.type_print(*result).hash(hasher));
    }

    /// What kind of op makes a value.
    fn hash_origin(&self, value: ValueId, hasher: &mut DefaultHasher) {
        if let Some(literal) = self.small_constant(value) {
            return literal.hash(hasher);
        }
        if self.is_weight(value) {
            return "weight".hash(hasher);
        }
        match self.module.value(value).definition {
            Definition::Argument { index, .. } => {
                let name = self.inputs.get(index as usize).map(|port| &port.name);
                // Names have no limit; where a long one differs, so does the input itself.
                (index, name.map(|name| shortened(name))).hash(hasher);
            }
            Definition::Result { op, index } => (self.module.op(op).opcode, index).hash(hasher),
        }
    }

    /// Number of ops in the regions of an op, constants not counted.
    pub(super) fn region_ops(&self, op: OpId) -> usize {
        let blocks = self.module.op(op).regions.iter().flat_map(|region| &self.module.region(*region).blocks);
        let ops = blocks.flat_map(|block| &self.module.block(*block).ops);
        ops.filter(|op| self.module.op(**op).opcode != Opcode::Constant).count()
    }

    /// Fingerprint of an op's regions, values numbered within them.
    pub(super) fn regions(&self, op: OpId) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash_regions(op, &mut HashMap::new(), &mut hasher);
        hasher.finish()
    }

    fn hash_regions(&self, op: OpId, numbers: &mut HashMap<ValueId, usize>, hasher: &mut DefaultHasher) {
        let regions = &self.module.op(op).regions;
        regions.len().hash(hasher);
        for region in regions {
            let blocks = &self.module.region(*region).blocks;
            blocks.len().hash(hasher);
            for block in blocks.iter().map(|block| self.module.block(*block)) {
                (block.arguments.len(), block.ops.len()).hash(hasher);
                for argument in &block.arguments {
                    numbers.insert(*argument, numbers.len());
                    self.type_print(*argument).hash(hasher);
                }
                block.ops.iter().for_each(|op| self.hash_nested(*op, numbers, hasher));
            }
        }
    }

    fn hash_nested(&self, id: OpId, numbers: &mut HashMap<ValueId, usize>, hasher: &mut DefaultHasher) {
        let op = self.module.op(id);
        for result in &op.results {
            numbers.insert(*result, numbers.len());
        }
        (op.opcode, op.operands.len()).hash(hasher);
        op.operands.iter().for_each(|operand| numbers.get(operand).hash(hasher));
        self.hash_properties_and_results(id, hasher);
        self.hash_regions(id, numbers, hasher);
    }
}

/// A name of at most [`LONGEST`] bytes and an ellipsis.
fn shortened(name: &str) -> Cow<'_, str> {
    match name.char_indices().find(|(at, _)| *at >= LONGEST) {
        Some((at, _)) => Cow::Owned(format!("{}…", &name[..at])),
        None => Cow::Borrowed(name),
    }
}
