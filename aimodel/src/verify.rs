//! Checks of a module: everything that a loader checks, and what loaders silently misread, such as blobs of a wrong length.
//!
//! Run it before a module is laid out and after one is read. The rules are those of the format's description; a fault names
//! the op by its path.

mod attributes;
mod constant;
mod decompositions;
mod graph;
mod signature;

use std::collections::HashSet;

use crate::attribute::{Attribute, AttributeId};
use crate::describe::describe_type_within;
use crate::element::Element;
use crate::infer::{Known, is_exact, result_type};
use crate::module::{BlockId, Definition, Module, OpId, RegionId, ValueId};
use crate::opcode::Opcode;
use crate::types::{TensorType, TypeId};
use attributes::Attributes;
use graph::GraphFacts;

pub use decompositions::verify_decompositions;

/// Deepest nesting of regions. Apple's files nest six deep.
const DEEPEST: usize = 64;
/// Bytes after which a type in a message is cut.
const LONGEST: usize = 200;

/// What is wrong with a module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct VerifyError {
    /// Path to the op, such as `asset / main / op 120 broadcasting_mul_v1 / op 3 reshape_v2`: positions count all ops of a block.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
}

/// What is wrong with an op, without its path.
type Checked = Result<(), String>;

/// Checks a whole module: structure, types, constants, names, states, locations. Regions of composite ops are checked for their
/// structure; [`verify_decompositions`] checks what they compute.
pub fn verify(module: &Module) -> Result<(), VerifyError> {
    Verifier::new(module).root()
}

/// Whether every op and every argument has the one location that means "unknown".
pub fn only_unknown_locations(module: &Module) -> bool {
    let Some(root) = module.root() else { return true };
    let mut pending = vec![root];
    while let Some(op) = pending.pop() {
        if !is_unknown(module, module.op(op).location) {
            return false;
        }
        for region in &module.op(op).regions {
            for block in &module.region(*region).blocks {
                let block = module.block(*block);
                if block.arguments.iter().any(|value| !is_unknown(module, module.location_of(*value))) {
                    return false;
                }
                pending.extend(&block.ops);
            }
        }
    }
    true
}

/// Whether a location is the one that [`crate::build::AssetBuilder`] makes for every op.
fn is_unknown(module: &Module, location: AttributeId) -> bool {
    let Attribute::Location { source, scope, fused, metadata } = module.attribute(location) else {
        return false;
    };
    let Attribute::SourceLocation { file, range: [0, 0, 0, 0] } = module.attribute(*source) else {
        return false;
    };
    let Attribute::File { name, directory, sha256 } = module.attribute(*file) else { return false };
    fused.is_empty()
        && metadata.is_empty()
        && *module.attribute(*scope) == Attribute::Unit
        && name == "-"
        && directory.is_empty()
        && sha256.is_empty()
}

/// Which kind of region a block is in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surroundings {
    Asset,
    Graph,
    /// The region of a composite op or of a reduction.
    Decomposition,
}

struct Verifier<'m> {
    module: &'m Module,
    /// Region in which each value was defined so far, by [`ValueId::index`]. No op sees values from around its region.
    defined: Vec<Option<RegionId>>,
    /// Ops met so far, by [`OpId::index`]: none may occur twice.
    met: Vec<bool>,
    /// What was checked of attributes so far.
    attributes: Attributes<'m>,
    /// Values of constants checked so far, with their types: many ops may share one.
    constants: HashSet<(AttributeId, TypeId)>,
    /// Path to the op that is being checked.
    path: Vec<String>,
}

impl<'m> Verifier<'m> {
    fn new(module: &'m Module) -> Self {
        Verifier {
            module,
            defined: vec![None; module.value_count()],
            met: vec![false; module.op_count()],
            attributes: Attributes::new(module),
            constants: HashSet::new(),
            path: Vec::new(),
        }
    }

    fn fault(&self, reason: String) -> VerifyError {
        VerifyError { path: self.path.join(" / "), reason }
    }

    /// Adds the path of the current op to a fault.
    fn check(&self, checked: Checked) -> Result<(), VerifyError> {
        checked.map_err(|reason| self.fault(reason))
    }

    fn root(&mut self) -> Result<(), VerifyError> {
        self.path.push("asset".to_owned());
        let root = self.module.root().ok_or_else(|| self.fault("the module has no root op".to_owned()))?;
        if self.module.op(root).opcode != Opcode::Asset {
            return Err(self.fault(format!("the root op is {}", self.module.op(root).opcode)));
        }
        let checked = self.single(root);
        self.check(checked)?;
        let region = self.module.op(root).regions[0];
        let block = self.module.region(region).blocks[0];
        if self.module.block(block).ops.is_empty() {
            return Err(self.fault("there is no graph in it".to_owned()));
        }
        self.check(graph::distinct_names(self.module))?;
        self.block(block, region, Surroundings::Asset, None, Known::new())
    }

    /// Checks of an op that need nothing around it: parts, kinds, location.
    fn single(&mut self, id: OpId) -> Checked {
        if std::mem::replace(&mut self.met[id.index()], true) {
            return Err("occurs a second time".to_owned());
        }
        let op = self.module.op(id);
        self.attributes.location(op.location)?;
        signature::check(self.module, id)?;
        match op.opcode {
            Opcode::Constant => self.constant(id),
            Opcode::Graph => graph::check(self.module, id, &mut self.attributes),
            _ => Ok(()),
        }
    }

    fn constant(&mut self, id: OpId) -> Checked {
        let op = self.module.op(id);
        let value = op.properties.first().copied().flatten();
        let ty = op.results.first().map(|result| self.module.value(*result).ty);
        if let (Some(value), Some(ty)) = (value, ty)
            && !self.constants.insert((value, ty))
        {
            return Ok(());
        }
        constant::check(self.module, op)
    }

    /// Checks the ops of a block. `facts` are those of the graph, if the block is a graph's; `known` is what is known of the
    /// block's arguments.
    fn block(
        &mut self,
        block: BlockId,
        region: RegionId,
        surroundings: Surroundings,
        facts: Option<&GraphFacts>,
        mut known: Known,
    ) -> Result<(), VerifyError> {
        for argument in &self.module.block(block).arguments {
            let checked = self.attributes.location(self.module.location_of(*argument));
            self.check(checked)?;
            self.defined[argument.index()] = Some(region);
        }
        let ops = &self.module.block(block).ops;
        for (at, id) in ops.iter().enumerate() {
            self.path.push(self.segment(at, *id));
            self.check(placed(self.module.op(*id).opcode, surroundings, at + 1 == ops.len()))?;
            self.check(self.operands_defined(*id, region))?;
            let checked = self.single(*id);
            self.check(checked)?;
            if surroundings != Surroundings::Asset {
                self.check(self.result(*id, &known, surroundings))?;
                known.learn(self.module, *id);
            }
            if let Some(facts) = facts {
                self.check(facts.check_op(self.module, *id))?;
            }
            self.region_of(*id, surroundings, &known)?;
            self.define_results(*id, region)?;
            self.path.pop();
        }
        Ok(())
    }

    fn segment(&self, at: usize, id: OpId) -> String {
        match self.module.op(id).opcode {
            Opcode::Graph => graph::name(self.module, id).unwrap_or("a graph without a name").to_owned(),
            opcode => format!("op {at} {}", opcode.name().rsplit('.').next().unwrap_or_default()),
        }
    }

    fn operands_defined(&self, id: OpId, region: RegionId) -> Checked {
        let operands = &self.module.op(id).operands;
        match operands.iter().position(|operand| self.defined[operand.index()] != Some(region)) {
            Some(at) => Err(format!("operand {at} is not defined before it in its block")),
            None => Ok(()),
        }
    }

    fn define_results(&mut self, id: OpId, region: RegionId) -> Result<(), VerifyError> {
        for (at, result) in self.module.op(id).results.iter().enumerate() {
            let made_here = Definition::Result { op: id, index: at as u32 };
            let first = self.defined[result.index()].replace(region).is_none();
            if !first || self.module.value(*result).definition != made_here {
                return Err(self.fault(format!("result {at} is a value that something else defines")));
            }
        }
        Ok(())
    }

    /// Compares the declared type of a tensor op's result with what its operands imply.
    fn result(&self, id: OpId, known: &Known, surroundings: Surroundings) -> Checked {
        let op = self.module.op(id);
        if !signature::is_inferred(op.opcode) {
            return Ok(());
        }
        let declared = op.results.first().and_then(|result| self.module.tensor(*result));
        let declared = declared.ok_or("its result is not a tensor")?;
        let inferred = result_type(self.module, known, op.opcode, &op.operands, declared.element)
            .map_err(|error| error.reason)?;
        // Apple's own decompositions declare composite ops inside them with other shapes: a softmax declares its sums as not
        // reduced, activations of scalars declare a vector of one element as a scalar.
        let nested = surroundings == Surroundings::Decomposition && op.opcode.is_composite();
        if nested && declared.element == inferred.element {
            return Ok(());
        }
        let fits = if is_exact(op.opcode) { declared == inferred } else { declared.compatible(&inferred) };
        if fits { Ok(()) } else { Err(format!("declared as {declared}, but its operands imply {inferred}")) }
    }

    fn region_of(&mut self, id: OpId, surroundings: Surroundings, known: &Known) -> Result<(), VerifyError> {
        let op = self.module.op(id);
        let [region] = op.regions[..] else { return Ok(()) };
        if self.path.len() > DEEPEST {
            return Err(self.fault("regions nest too deep".to_owned()));
        }
        let block =
            self.module.body(id).ok_or_else(|| self.fault("its region must be one block".to_owned()))?;
        if op.opcode == Opcode::Graph {
            let facts = GraphFacts::new(self.module, block);
            return self.block(block, region, Surroundings::Graph, Some(&facts), Known::new());
        }
        let yielded = self.region_arguments(id, block);
        // See `result`: inside a decomposition, a scalar may be made by a region that yields a vector of one element.
        let checked = match surroundings {
            Surroundings::Graph => yielded.and_then(|yielded| self.yielded_type(id, yielded)),
            _ => yielded.map(|_| ()),
        };
        self.check(checked)?;
        let mut known_inside = Known::new();
        if op.opcode != Opcode::Reduce {
            for (argument, operand) in self.module.block(block).arguments.iter().zip(&op.operands) {
                known_inside.adopt(*argument, known, *operand);
            }
        }
        self.block(block, region, Surroundings::Decomposition, None, known_inside)
    }

    /// Checks that a region takes what its op is given; returns the value that it yields.
    fn region_arguments(&self, id: OpId, block: BlockId) -> Result<ValueId, String> {
        let op = self.module.op(id);
        let given: Vec<TypeId> =
            self.module.block(block).arguments.iter().map(|value| self.module.value(*value).ty).collect();
        let last = self.module.block(block).ops.last().map(|last| self.module.op(*last));
        let [yielded] =
            last.filter(|last| last.opcode == Opcode::Yield).map_or(&[][..], |last| &last.operands)
        else {
            return Err("its region does not end in a yield of one value".to_owned());
        };
        if op.opcode == Opcode::Reduce {
            self.reduction_types(op.operands[0], op.operands[2], &given, *yielded)?;
            return Ok(*yielded);
        }
        let taken: Vec<TypeId> = op.operands.iter().map(|value| self.module.value(*value).ty).collect();
        if given != taken {
            let first = (0..).find(|at| given.get(*at) != taken.get(*at)).unwrap_or_default();
            let text = |types: &[TypeId]| types.get(first).map_or("absent".to_owned(), |ty| self.text(*ty));
            let (given, taken) = (text(&given), text(&taken));
            return Err(format!("argument {first} of its region is {given}, operand {first} is {taken}"));
        }
        Ok(*yielded)
    }

    /// Checks that a composite op's region yields what the op makes.
    fn yielded_type(&self, id: OpId, yielded: ValueId) -> Checked {
        let op = self.module.op(id);
        if op.opcode == Opcode::Reduce {
            return Ok(());
        }
        match (self.module.tensor(yielded), self.module.tensor(op.results[0])) {
            (Some(yielded), Some(result)) if result.compatible(&yielded) => Ok(()),
            (Some(yielded), Some(result)) => {
                Err(format!("declared as {result}, but its region yields {yielded}"))
            }
            _ => Err("its region does not yield a tensor".to_owned()),
        }
    }

    /// A reduction's region combines what was accumulated, of the type of `start`, with an element of `source`.
    fn reduction_types(
        &self,
        source: ValueId,
        start: ValueId,
        given: &[TypeId],
        yielded: ValueId,
    ) -> Checked {
        let sum = self.module.tensor(start);
        let element = self.module.tensor(source).map(|source| TensorType::fixed(&[], source.element));
        let given: Vec<_> = given.iter().map(|ty| self.module.as_tensor(*ty)).collect();
        if given != [sum.clone(), element] || self.module.tensor(yielded) != sum {
            return Err("its region does not combine an accumulated scalar with an element".to_owned());
        }
        Ok(())
    }

    fn text(&self, ty: TypeId) -> String {
        describe_type_within(self.module, ty, LONGEST)
    }
}

/// Whether an op may be where it is: terminators only at the end, and one at every end.
fn placed(opcode: Opcode, surroundings: Surroundings, last: bool) -> Checked {
    use Opcode::{Asset, CreateToken, Graph, Output, ReadHandle, WriteHandle, Yield};
    let (belongs, terminator) = match surroundings {
        Surroundings::Asset => (opcode == Graph, None),
        Surroundings::Graph => (!matches!(opcode, Asset | Graph | Yield), Some(Output)),
        Surroundings::Decomposition => {
            (!matches!(opcode, Asset | Graph | Output | CreateToken | ReadHandle | WriteHandle), Some(Yield))
        }
    };
    match terminator {
        _ if !belongs => Err(format!("{opcode} does not belong here")),
        Some(terminator) if last && opcode != terminator => Err(format!("{terminator} must follow it")),
        Some(terminator) if !last && opcode == terminator => Err("ops follow it in its block".to_owned()),
        _ => Ok(()),
    }
}

/// Whether a decomposition can be written for an element type: whether there can be constants of it.
pub(crate) fn is_decomposable(element: Element) -> bool {
    use Element::{Bf16, Bool, F16, F32, F64};
    matches!(element, Bool | F64 | F32 | F16 | Bf16) || (element.is_integer() && element.bits() >= 8)
}
