//! Text of a module: one op per line, for people and for comparing.
//!
//! Names follow from the order of ops alone: `%c0`, `%c1`, ... are a block's constants, `%0`, `%1`, ... its other values. In a
//! region of an op, names get a dot for each op around them (`%.0`, `%..c1`), so that no name is used twice on the path to an op.
//! Op names lose their prefix and version: `primitive.reshape_v2` is `reshape`.

pub(crate) mod literal;
mod select;

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::align::SMALL;
use crate::attribute::{Attribute, AttributeId};
use crate::describe::{describe_attribute_within, describe_type_within};
use crate::module::{BlockId, Module, Op, OpId, RegionId, ValueId};
use crate::opcode::Opcode;
use crate::types::TypeId;
use crate::view::{Function, Port};
use literal::write_literal;

/// Bytes after which a type or an attribute is cut.
const LONGEST: usize = 1000;

/// Which ops of the graphs are listed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Part {
    /// All.
    #[default]
    Whole,
    /// One layer: from the first op that uses a blob whose key starts with `layers.N.` up to the first one that uses a later
    /// layer's. The last layer ends where a blob of no layer is used for the first time.
    Layer(u64),
    /// What touches weights: the constants whose key contains the text, what is computed from constants and from them, and the
    /// ops where that meets the inputs.
    Weights(String),
}

/// A listing of a module: its `Display` is the text.
///
/// ```
/// use aimodel::build::AssetBuilder;
/// use aimodel::print::Listing;
/// use aimodel::{Element, TensorType};
///
/// let mut graph = AssetBuilder::new().function("main");
/// let x = graph.input("x", &TensorType::fixed(&[2, 3], Element::F16));
/// let y = graph.relu(x)?;
/// let module = graph.finish(&[], &[("y", y)])?.finish();
/// let text = Listing::new(&module).to_string();
/// assert!(text.contains("\n  %1 = relu(%0) : tensor<2x3xf16>\n"));
/// # Ok::<(), aimodel::build::BuildError>(())
/// ```
pub struct Listing<'m> {
    module: &'m Module,
    regions: bool,
    /// Ops of graphs that are listed; all if `None`.
    selected: Option<HashSet<OpId>>,
}

impl<'m> Listing<'m> {
    /// All ops of all graphs, without the regions of composite ops.
    pub fn new(module: &'m Module) -> Self {
        Listing { module, regions: false, selected: None }
    }

    /// Sets whether regions of ops are listed: mostly decompositions.
    pub fn regions(mut self, regions: bool) -> Self {
        self.regions = regions;
        self
    }

    /// Picks the ops to list.
    pub fn part(mut self, part: &Part) -> Self {
        self.selected = match part {
            Part::Whole => None,
            Part::Layer(layer) => Some(self.select(|block| select::layer(self.module, block, *layer))),
            Part::Weights(text) => Some(self.select(|block| select::weights(self.module, block, text))),
        };
        self
    }

    /// Whether the part that was picked has no ops.
    pub fn is_empty(&self) -> bool {
        self.selected.as_ref().is_some_and(HashSet::is_empty)
    }

    fn select(&self, pick: impl Fn(BlockId) -> HashSet<OpId>) -> HashSet<OpId> {
        self.module.graphs().into_iter().filter_map(|graph| self.module.body(graph)).flat_map(pick).collect()
    }
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(root) = self.module.root() else { return writeln!(f, "an empty module") };
        let names = vec![None; self.module.value_count()];
        let types = vec![None; self.module.type_count()];
        let literals = HashMap::new();
        Printer { listing: self, module: self.module, names, types, literals, out: f }.root(root)
    }
}

/// Name of a value: constants are counted separately.
#[derive(Clone, Copy)]
pub(crate) struct Name {
    depth: usize,
    constant: bool,
    number: usize,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let constant = if self.constant { "c" } else { "" };
        write!(f, "%{:.<depth$}{constant}{}", "", self.number, depth = self.depth)
    }
}

struct Printer<'p, 'f> {
    listing: &'p Listing<'p>,
    module: &'p Module,
    /// Names given so far, by [`ValueId::index`].
    names: Vec<Option<Name>>,
    /// Texts of types made so far: the same few types occur on thousands of lines.
    types: Vec<Option<String>>,
    /// Texts of larger constants made so far: many ops may share one, and all of it is read.
    literals: HashMap<(AttributeId, TypeId), String>,
    out: &'p mut fmt::Formatter<'f>,
}

impl Printer<'_, '_> {
    fn root(&mut self, root: OpId) -> fmt::Result {
        let op = self.module.op(root);
        if op.opcode != Opcode::Asset {
            return self.op(root, 0);
        }
        write!(self.out, "asset")?;
        self.properties(op)?;
        writeln!(self.out)?;
        for region in &op.regions {
            for block in &self.module.region(*region).blocks {
                for op in &self.module.block(*block).ops {
                    let is_graph = self.module.op(*op).opcode == Opcode::Graph;
                    match is_graph.then(|| Function::of(self.module, *op)).flatten() {
                        Some(function) => self.function(&function)?,
                        None => self.op(*op, 0)?,
                    }
                }
            }
        }
        Ok(())
    }

    fn function(&mut self, function: &Function<'_>) -> fmt::Result {
        self.name_block(function.body, 0);
        match function.name {
            Some(name) => writeln!(self.out, "graph {name:?} {{")?,
            None => writeln!(self.out, "graph without a name {{")?,
        }
        for port in &function.arguments {
            self.port(if port.is_state { "state" } else { "input" }, port)?;
        }
        for port in &function.results {
            self.port("output", port)?;
        }
        self.ops(function.body, 0)?;
        writeln!(self.out, "}}")
    }

    fn port(&mut self, kind: &str, port: &Port<'_>) -> fmt::Result {
        write!(self.out, "  {kind} ")?;
        self.value(port.value)?;
        write!(self.out, " {} : ", port.quoted_name())?;
        self.ty(self.module.value(port.value).ty)?;
        writeln!(self.out)
    }

    /// Ops of a block. In a graph, those that were not picked are left out; one line says how many consecutive ones there were, constants
    /// counted separately.
    fn ops(&mut self, block: BlockId, depth: usize) -> fmt::Result {
        let listing = self.listing;
        let mut skipped = 0;
        for op in &self.module.block(block).ops {
            if depth == 0 && listing.selected.as_ref().is_some_and(|selected| !selected.contains(op)) {
                skipped += usize::from(self.module.op(*op).opcode != Opcode::Constant);
                continue;
            }
            self.skipped(&mut skipped)?;
            self.op(*op, depth + 1)?;
        }
        self.skipped(&mut skipped)
    }

    fn skipped(&mut self, count: &mut usize) -> fmt::Result {
        match std::mem::take(count) {
            0 => Ok(()),
            1 => writeln!(self.out, "  ... 1 op"),
            many => writeln!(self.out, "  ... {many} ops"),
        }
    }

    fn op(&mut self, id: OpId, depth: usize) -> fmt::Result {
        let op = self.module.op(id);
        write!(self.out, "{:depth$}", "", depth = 2 * depth)?;
        self.values(&op.results)?;
        if !op.results.is_empty() {
            write!(self.out, " = ")?;
        }
        write!(self.out, "{}", short_name(op.opcode))?;
        if op.opcode == Opcode::Constant {
            self.constant(op)?;
        } else {
            write!(self.out, "(")?;
            self.values(&op.operands)?;
            write!(self.out, ")")?;
            self.properties(op)?;
        }
        for (at, result) in op.results.iter().enumerate() {
            write!(self.out, "{}", if at == 0 { " : " } else { ", " })?;
            self.ty(self.module.value(*result).ty)?;
        }
        if self.listing.regions {
            for region in &op.regions {
                write!(self.out, " {{")?;
                self.region(*region, depth)?;
                write!(self.out, "{:depth$}}}", "", depth = 2 * depth)?;
            }
        }
        writeln!(self.out)
    }

    fn region(&mut self, region: RegionId, depth: usize) -> fmt::Result {
        writeln!(self.out)?;
        for block in &self.module.region(region).blocks {
            self.name_block(*block, depth);
            write!(self.out, "{:depth$}(", "", depth = 2 * depth + 2)?;
            for (at, argument) in self.module.block(*block).arguments.iter().enumerate() {
                write!(self.out, "{}", if at == 0 { "" } else { ", " })?;
                self.value(*argument)?;
                write!(self.out, " : ")?;
                self.ty(self.module.value(*argument).ty)?;
            }
            writeln!(self.out, ")")?;
            self.ops(*block, depth)?;
        }
        Ok(())
    }

    /// ` = value`, the name of a blob or the elements.
    fn constant(&mut self, op: &Op) -> fmt::Result {
        let Some(value) = op.properties.first().copied().flatten() else {
            return write!(self.out, " without a value");
        };
        let ty = op.results.first().map(|result| self.module.value(*result).ty);
        let tensor = ty.and_then(|ty| Some((ty, self.module.as_tensor(ty)?)));
        match (self.module.attribute(value), tensor) {
            (Attribute::DenseResource(resource), _) => {
                write!(self.out, " @{}", plain(&self.module.resource(*resource).key))
            }
            (Attribute::DenseElements { splat, bytes }, Some((_, tensor))) if bytes.len() <= SMALL => {
                write!(self.out, " ")?;
                write_literal(self.out, &tensor, *splat, bytes)
            }
            (Attribute::DenseElements { splat, bytes }, Some((ty, tensor))) => {
                let text = self.literals.entry((value, ty)).or_insert_with(|| {
                    let mut text = String::new();
                    // Writing to a String cannot fail.
                    let _ = write_literal(&mut text, &tensor, *splat, bytes);
                    text
                });
                write!(self.out, " {text}")
            }
            _ => write!(self.out, " {}", describe_attribute_within(self.module, value, LONGEST)),
        }
    }

    /// Properties that are there, as ` {name = value, ...}`.
    fn properties(&mut self, op: &Op) -> fmt::Result {
        let present = op.opcode.properties().iter().zip(&op.properties);
        let present = present.filter_map(|(name, property)| property.map(|property| (*name, property)));
        let mut separator = " {";
        for (name, property) in present {
            let value = describe_attribute_within(self.module, property, LONGEST);
            write!(self.out, "{separator}{} = {value}", name.trim_end_matches('?'))?;
            separator = ", ";
        }
        if separator == ", " { write!(self.out, "}}") } else { Ok(()) }
    }

    fn values(&mut self, values: &[ValueId]) -> fmt::Result {
        for (at, value) in values.iter().enumerate() {
            write!(self.out, "{}", if at == 0 { "" } else { ", " })?;
            self.value(*value)?;
        }
        Ok(())
    }

    /// Name of a value; one that is not defined, or only later, has none.
    fn value(&mut self, value: ValueId) -> fmt::Result {
        match self.names[value.index()] {
            Some(name) => write!(self.out, "{name}"),
            None => write!(self.out, "%?"),
        }
    }

    fn ty(&mut self, id: TypeId) -> fmt::Result {
        let module = self.module;
        let text = self.types[id.index()].get_or_insert_with(|| describe_type_within(module, id, LONGEST));
        self.out.write_str(text)
    }

    fn name_block(&mut self, block: BlockId, depth: usize) {
        let names = &mut self.names;
        name_block(self.module, block, depth, |value, name| names[value.index()] = Some(name));
    }
}

/// Names the values of a block, in the order of its ops.
pub(crate) fn name_block(
    module: &Module,
    block: BlockId,
    depth: usize,
    mut named: impl FnMut(ValueId, Name),
) {
    let (mut constants, mut others) = (0, 0);
    let block = module.block(block);
    let mut name = |value: &ValueId, constant: bool| {
        let count = if constant { &mut constants } else { &mut others };
        named(*value, Name { depth, constant, number: *count });
        *count += 1;
    };
    block.arguments.iter().for_each(|argument| name(argument, false));
    for op in &block.ops {
        let op = module.op(*op);
        op.results.iter().for_each(|result| name(result, op.opcode == Opcode::Constant));
    }
}

/// An op's name without its prefix and version.
pub fn short_name(opcode: Opcode) -> &'static str {
    let name = opcode.name();
    let name = name.rsplit_once('.').map_or(name, |(_, name)| name);
    name.rsplit_once("_v").map_or(name, |(name, _)| name)
}

/// A key as it is, or quoted if it could make a line ambiguous.
pub(crate) fn plain(key: &str) -> String {
    let safe = |letter: char| letter.is_alphanumeric() || "._-/~".contains(letter);
    if !key.is_empty() && key.chars().all(safe) { key.to_owned() } else { format!("{key:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_as_many_as_names() {
        let short: HashSet<&str> = Opcode::ALL.iter().map(|opcode| short_name(*opcode)).collect();
        assert_eq!(short.len(), Opcode::ALL.len());
        assert_eq!(short_name(Opcode::BlockwiseShiftScale), "blockwise_shift_scale");
        assert_eq!(short_name(Opcode::Output), "output");
    }

    #[test]
    fn ambiguous_keys_are_quoted() {
        assert_eq!(plain("layers.5.mlp/codes~"), "layers.5.mlp/codes~");
        assert_eq!(plain("a b\n"), "\"a b\\n\"");
        assert_eq!(plain(""), "\"\"");
    }
}
