//! What a package holds, for code that only reads it: functions with their ports, and weights.
//!
//! Nothing here relies on the module being valid.

mod weights;
mod work;

pub use weights::{Place, Stored, Weight, WeightError, piece};
pub use work::Work;

use crate::attribute::{Attribute, AttributeId};
use crate::module::{BlockId, Module, NAME_KEY, OpId, ValueId};
use crate::opcode::Opcode;
use crate::types::{Dim, TensorType, Type};

/// Input of language models that holds the tokens of a call, si32 `[1, tokens]`.
const TOKENS: &str = "input_ids";

/// A function of a package.
#[derive(Clone, Debug)]
pub struct Function<'m> {
    /// Its name, if it has one.
    pub name: Option<&'m str>,
    /// Its ops.
    pub body: BlockId,
    /// What is passed in, in order: inputs and states.
    pub arguments: Vec<Port<'m>>,
    /// What its output op returns, in order: a token for each state, and outputs.
    pub results: Vec<Port<'m>>,
}

/// An argument or a result of a function.
#[derive(Clone, Debug)]
pub struct Port<'m> {
    /// Its name, if it has one.
    pub name: Option<&'m str>,
    /// The value that it is.
    pub value: ValueId,
    /// Whether it is a state, which lives from run to run.
    pub is_state: bool,
    /// Type of the tensor, or of the one that a state holds; none for anything else, such as a token.
    pub tensor: Option<TensorType>,
}

impl<'m> Function<'m> {
    /// The functions of a module, in order; none for a graph whose region is not one block.
    pub fn all(module: &'m Module) -> impl Iterator<Item = Option<Self>> {
        module.graphs().into_iter().map(|graph| Self::of(module, graph))
    }

    /// The function that a graph is; none if its region is not one block.
    pub fn of(module: &'m Module, graph: OpId) -> Option<Self> {
        let body = module.body(graph)?;
        let name = match module.property(graph, "name") {
            Some(Attribute::String(name)) => Some(name.as_str()),
            _ => None,
        };
        let block = module.block(body);
        let last = block.ops.last().map(|op| module.op(*op)).filter(|op| op.opcode == Opcode::Output);
        let ports = |values: &[ValueId], entries| -> Vec<Port<'m>> {
            let entries: &[AttributeId] = match module.property(graph, entries) {
                Some(Attribute::Array(entries)) => entries,
                _ => &[],
            };
            let entries = entries.iter().copied().map(Some).chain(std::iter::repeat(None));
            values.iter().zip(entries).map(|(value, entries)| Port::new(module, *value, entries)).collect()
        };
        let arguments = ports(&block.arguments, "argAttrs");
        let results = last.map(|output| ports(&output.operands, "resAttrs")).unwrap_or_default();
        Some(Function { name, body, arguments, results })
    }

    /// Arguments that are not states.
    pub fn inputs(&self) -> impl Iterator<Item = &Port<'m>> {
        self.arguments.iter().filter(|port| !port.is_state)
    }

    /// Arguments that are states.
    pub fn states(&self) -> impl Iterator<Item = &Port<'m>> {
        self.arguments.iter().filter(|port| port.is_state)
    }

    /// Tokens of a call: the second extent of the input [`TOKENS`], if there is that input.
    pub fn query_length(&self) -> Option<Dim> {
        let tokens = self.inputs().find(|port| port.name == Some(TOKENS))?;
        tokens.tensor.as_ref()?.shape.get(1).copied()
    }

    /// Results that are tensors.
    pub fn outputs(&self) -> impl Iterator<Item = &Port<'m>> {
        self.results.iter().filter(|port| !port.is_state && port.tensor.is_some())
    }
}

impl<'m> Port<'m> {
    fn new(module: &'m Module, value: ValueId, entries: Option<AttributeId>) -> Self {
        let ty = module.value(value).ty;
        let (is_state, ty) = match module.ty(ty) {
            Type::Handle(contents) => (true, *contents),
            _ => (false, ty),
        };
        let name = entries.and_then(|entries| module.named_entry(entries, NAME_KEY));
        Port { name, value, is_state, tensor: module.as_tensor(ty) }
    }

    /// Its name in quotes; empty if it has none.
    pub(crate) fn quoted_name(&self) -> String {
        self.name.map_or_else(String::new, |name| format!("{name:?}"))
    }
}
