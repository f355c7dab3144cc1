//! A graph as alignment sees it: signatures of its ops, and its values in words.

use std::collections::HashMap;
use std::fmt::Write;

use super::SMALL;
use crate::attribute::Attribute;
use crate::describe::{describe_attribute, describe_attribute_within, describe_type};
use crate::module::{BlockId, Definition, Module, OpId, ValueId};
use crate::opcode::Opcode;
use crate::print::literal::write_literal;
use crate::print::{names, names_in, plain, property, short_name};
use crate::types::{Dim, Type};

/// An input, a state or an output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
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
    body: BlockId,
    name: String,
    names: Vec<Option<String>>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl<'m> Graph<'m> {
    /// All graphs of a module that have a body.
    pub fn all(module: &'m Module) -> Vec<Self> {
        let graphs = module.graphs().into_iter();
        graphs.filter_map(|graph| Some(Graph::new(module, graph, module.body(graph)?))).collect()
    }

    fn new(module: &'m Module, graph: OpId, body: BlockId) -> Self {
        let attribute = |name: &str| property(module.op(graph), name).map(|id| module.attribute(id));
        let name = match attribute("name") {
            Some(Attribute::String(name)) => name.clone(),
            _ => String::new(),
        };
        let ports = |values: &[ValueId], names: Vec<String>| -> Vec<Port> {
            let port = |(value, name): (&ValueId, String)| {
                let ty = module.value(*value).ty;
                Port {
                    name,
                    ty: describe_type(module, ty),
                    is_state: matches!(module.ty(ty), Type::Handle(_)),
                }
            };
            values.iter().zip(names).map(port).collect()
        };
        let block = module.block(body);
        let inputs = ports(&block.arguments, names(module, attribute("argAttrs"), block.arguments.len()));
        let last = block.ops.last().map(|op| module.op(*op));
        let results = last.filter(|op| op.opcode == Opcode::Output).map_or(&[][..], |op| &op.operands);
        let outputs = ports(results, names(module, attribute("resAttrs"), results.len()));
        Graph { module, body, name, names: names_in(module, body), inputs, outputs }
    }

    /// Its name; empty if it has none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The module that it is part of.
    pub fn module(&self) -> &'m Module {
        self.module
    }

    /// Its inputs and states with their values.
    pub fn inputs(&self) -> impl Iterator<Item = (&Port, ValueId)> {
        self.inputs.iter().zip(self.module.block(self.body).arguments.iter().copied())
    }

    /// Its outputs.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Its ops but for constants.
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
            (Some(Attribute::DenseResource(id)), _) => format!("@{}", plain(&self.module.resource(*id).key)),
            (Some(_), _) => format!("constant {}", self.describe_type(value)),
            (None, Definition::Argument { index, .. }) => match self.inputs.get(index as usize) {
                Some(port) => format!("{} {}", self.name_of(value), port.name),
                None => self.name_of(value),
            },
            (None, Definition::Result { .. }) => self.name_of(value),
        }
    }

    /// Type of a value.
    pub(super) fn describe_type(&self, value: ValueId) -> String {
        describe_type(self.module, self.module.value(value).ty)
    }

    fn name_of(&self, value: ValueId) -> String {
        let name = self.names.get(value.index()).and_then(Option::as_ref);
        name.cloned().unwrap_or_else(|| "%?".to_owned())
    }

    /// A constant that is part of the ops that use it, in words: any but larger tensors.
    pub(super) fn small_constant(&self, value: ValueId) -> Option<String> {
        let attribute = self.module.constant(value)?;
        match (attribute, self.module.tensor(value)) {
            (Attribute::DenseElements { splat, bytes }, Some(ty)) => {
                let mut text = String::new();
                let is_small = *splat || bytes.len() <= SMALL;
                is_small.then(|| write_literal(&mut text, &ty, *splat, bytes).ok())??;
                Some(text)
            }
            (Attribute::DenseResource(_), Some(_)) => None,
            _ => {
                let Definition::Result { op, .. } = self.module.value(value).definition else { return None };
                let attribute = self.module.op(op).properties.first().copied().flatten()?;
                Some(describe_attribute(self.module, attribute))
            }
        }
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

    /// What an op does, without the names of anything.
    pub(super) fn signature(&self, id: OpId) -> String {
        let op = self.module.op(id);
        let mut text = op.opcode.name().to_owned();
        for operand in &op.operands {
            let _ = write!(text, "; {} from {}", self.describe_type(*operand), self.origin(*operand));
        }
        for property in &op.properties {
            text.push_str("; ");
            text.push_str(&property.map_or_else(String::new, |id| describe_attribute(self.module, id)));
        }
        for result in &op.results {
            let _ = write!(text, "; gives {}", self.describe_type(*result));
        }
        text.push_str(&self.regions(id));
        text
    }

    /// What kind of thing makes a value.
    fn origin(&self, value: ValueId) -> String {
        if let Some(literal) = self.small_constant(value) {
            return literal;
        }
        if self.is_weight(value) {
            return "weight".to_owned();
        }
        match self.module.value(value).definition {
            Definition::Argument { .. } => self.describe_value(value),
            Definition::Result { op, index } => format!("{}.{index}", self.module.op(op).opcode.name()),
        }
    }

    /// Number of ops in the regions of an op, constants apart.
    pub(super) fn region_ops(&self, op: OpId) -> usize {
        let blocks = self.module.op(op).regions.iter().flat_map(|region| &self.module.region(*region).blocks);
        let ops = blocks.flat_map(|block| &self.module.block(*block).ops);
        ops.filter(|op| self.module.op(**op).opcode != Opcode::Constant).count()
    }

    /// Regions of an op as text, values numbered within it.
    pub(super) fn regions(&self, op: OpId) -> String {
        let mut text = String::new();
        let mut numbers = HashMap::new();
        self.write_regions(op, &mut numbers, &mut text);
        text
    }

    fn write_regions(&self, op: OpId, numbers: &mut HashMap<ValueId, usize>, text: &mut String) {
        for region in &self.module.op(op).regions {
            for block in &self.module.region(*region).blocks {
                text.push_str(" {");
                for argument in &self.module.block(*block).arguments {
                    numbers.insert(*argument, numbers.len());
                    let _ = write!(text, "{}, ", self.describe_type(*argument));
                }
                for op in &self.module.block(*block).ops {
                    self.write_nested(*op, numbers, text);
                }
                text.push('}');
            }
        }
    }

    fn write_nested(&self, id: OpId, numbers: &mut HashMap<ValueId, usize>, text: &mut String) {
        let op = self.module.op(id);
        for result in &op.results {
            numbers.insert(*result, numbers.len());
        }
        let _ = write!(text, "; {}", op.opcode.name());
        for operand in &op.operands {
            match numbers.get(operand) {
                Some(number) => {
                    let _ = write!(text, " %{number}");
                }
                None => text.push_str(" outside"),
            }
        }
        for property in op.properties.iter().flatten() {
            let _ = write!(text, " {}", describe_attribute_within(self.module, *property, 4 * SMALL));
        }
        for result in &op.results {
            let _ = write!(text, " : {}", self.describe_type(*result));
        }
        self.write_regions(id, numbers, text);
    }
}
