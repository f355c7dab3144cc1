//! A package prepared to run: constants as views of the mapped file, and ops with the slots of their operands and of the values
//! that can be dropped after each.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aimodel::bytecode::reader::{BlobRange, Bytecode};
use aimodel::package::PROGRAM;
use aimodel::verify::verify;
use aimodel::view;
use aimodel::{Attribute, BlockId, Definition, Element, Module, OpId, Opcode, TensorType, ValueId};
use memmap2::Mmap;

use crate::Rounding;
use crate::arithmetic::{Approximation, Combine};
use crate::error::InterpretError;
use crate::execute::compute;
use crate::tensor::Tensor;
use crate::value::{Packed, Value, blockwise_shift_scale};

/// Name of the function that every package has; if it is the only function, it may have another name.
const MAIN: &str = "main";

/// An input or output: its name in the graph and its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Shape and element type; each step determines the dynamic axes.
    pub ty: TensorType,
}

/// What an op needs beyond its operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detail {
    None,
    Gelu(Approximation),
    Reduce(Combine),
}

/// One op, ready to run.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) op: OpId,
    /// Position among the function's ops that compute.
    pub(crate) at: usize,
    pub(crate) opcode: Opcode,
    pub(crate) detail: Detail,
    /// Slots of operands and results.
    pub(crate) operands: Vec<usize>,
    pub(crate) results: Vec<usize>,
    /// Declared type of each result that is a tensor.
    pub(crate) declared: Vec<Option<TensorType>>,
    /// Slots that are not read after this op.
    pub(crate) last_uses: Vec<usize>,
    /// A state whose old contents are not read again: the result of this op overwrites it.
    pub(crate) overwrites: Option<usize>,
}

impl Step {
    /// The error of this step.
    pub(crate) fn fault(&self, reason: String) -> InterpretError {
        InterpretError::Op { at: self.at, opcode: self.opcode, reason }
    }
}

/// A function, ready to run. Its states are those of the program.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) body: BlockId,
    pub(crate) steps: Vec<Step>,
    /// Indices of the steps that multiply by weights, which sequences in lockstep do together.
    pub(crate) by_weights: Vec<usize>,
    pub(crate) inputs: Vec<(usize, Port)>,
    pub(crate) outputs: Vec<(usize, Port)>,
}

/// The functions of a package, ready to run.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) module: Module,
    /// Constants, weights made from constants, and handles by slot. Slots are unique across all functions.
    pub(crate) constants: Vec<Option<Value>>,
    pub(crate) states: Vec<Port>,
    functions: Vec<Function>,
    /// Index of the function `main`.
    main: usize,
}

fn graph_error(reason: impl Into<String>) -> InterpretError {
    InterpretError::Graph(reason.into())
}

/// Converts ports, with their slots.
fn ports<'p>(
    ports: impl Iterator<Item = &'p view::Port<'p>>,
    what: &str,
) -> Result<Vec<(usize, Port)>, InterpretError> {
    let owned = |port: &view::Port<'_>| {
        let name = port.name.unwrap_or_default().to_owned();
        let ty =
            port.tensor.clone().ok_or_else(|| graph_error(format!("{what} {name:?} is not a tensor")))?;
        Ok((port.value.index(), Port { name, ty }))
    };
    ports.map(owned).collect()
}

impl Program {
    /// Reads and maps a package's program.
    pub(crate) fn open(package: &Path) -> Result<Program, InterpretError> {
        let path = package.join(PROGRAM);
        let Bytecode { module, blobs, .. } =
            Bytecode::open(&path).map_err(|source| InterpretError::Read { path: path.clone(), source })?;
        verify(&module).map_err(|error| graph_error(error.to_string()))?;
        let io = |source| InterpretError::Io { path: path.clone(), source };
        let map = Arc::new(paths::open(&path).and_then(|file| file.map()).map_err(io)?);
        Program::new(module, &blobs, &map)
    }

    fn new(module: Module, blobs: &[BlobRange], map: &Arc<Mmap>) -> Result<Program, InterpretError> {
        let graphs = module.graphs();
        let named =
            |graph: &OpId| view::Function::of(&module, *graph).is_some_and(|it| it.name == Some(MAIN));
        let main = match graphs.iter().position(named) {
            Some(main) => main,
            None if graphs.len() == 1 => 0,
            None => {
                return Err(graph_error(format!("none of its {} functions is named {MAIN:?}", graphs.len())));
            }
        };
        let entry = view::Function::of(&module, graphs[main]);
        let entry = entry.ok_or_else(|| graph_error("the body is not a single block"))?;
        if entry.outputs().next().is_none() {
            return Err(graph_error("it has no output"));
        }
        let states = ports(entry.states(), "state")?.into_iter().map(|(_, port)| port).collect();
        let constants = vec![None; module.value_count()];
        let mut program = Program { module, constants, states, functions: Vec::new(), main };
        for graph in graphs {
            let function = program.function(graph, blobs, map)?;
            program.functions.push(function);
        }
        Ok(program)
    }

    /// The function that takes the last token of a prompt and all tokens after it.
    pub(crate) fn main(&self) -> &Function {
        &self.functions[self.main]
    }

    /// All functions, in the order of the file.
    pub(crate) fn functions(&self) -> &[Function] {
        &self.functions
    }

    fn function(
        &mut self,
        graph: OpId,
        blobs: &[BlobRange],
        map: &Arc<Mmap>,
    ) -> Result<Function, InterpretError> {
        let function = view::Function::of(&self.module, graph);
        let function = function.ok_or_else(|| graph_error("the body is not a single block"))?;
        let name = function.name.unwrap_or_default().to_owned();
        let states = ports(function.states(), "state")?;
        let (inputs, outputs) = (ports(function.inputs(), "input")?, ports(function.outputs(), "output")?);
        let body = function.body;
        self.share_states(&name, states)?;
        let (mut steps, mut computing) = (Vec::new(), 0);
        for (at, op) in self.module.block(body).ops.clone().into_iter().enumerate() {
            let opcode = self.module.op(op).opcode;
            let fault = |reason| InterpretError::Op { at, opcode, reason };
            match opcode {
                Opcode::Constant => self.constant(op, blobs, map).map_err(fault)?,
                Opcode::Output => {}
                _ => {
                    let step = self.step(op, computing).map_err(fault)?;
                    computing += 1;
                    match self.weights(&step) {
                        Some(weights) => self.constants[step.results[0]] = Some(weights),
                        None => steps.push(step),
                    }
                }
            }
        }
        self.find_last_uses(&mut steps, &outputs);
        self.find_overwrites(&mut steps);
        let by_weights = (0..steps.len()).filter(|at| self.multiplies_by_weights(&steps[*at])).collect();
        Ok(Function { name, body, steps, by_weights, inputs, outputs })
    }

    /// Maps a function's states to the program's: all functions must have the same states, by name and type.
    fn share_states(&mut self, function: &str, states: Vec<(usize, Port)>) -> Result<(), InterpretError> {
        if states.len() != self.states.len() {
            let (found, expected) = (states.len(), self.states.len());
            return Err(graph_error(format!("{function:?} has {found} states, but {MAIN:?} has {expected}")));
        }
        for (slot, port) in states {
            let state = self.states.iter().position(|other| *other == port).ok_or_else(|| {
                graph_error(format!(
                    "{function:?} has a state {:?} of {}, but {MAIN:?} does not",
                    port.name, port.ty
                ))
            })?;
            self.constants[slot] = Some(Value::State(state));
        }
        Ok(())
    }

    fn constant(&mut self, op: OpId, blobs: &[BlobRange], map: &Arc<Mmap>) -> Result<(), String> {
        let result = *self.module.op(op).results.first().ok_or("has no result")?;
        let ty = self.module.tensor(result).ok_or("is not a tensor")?;
        let attribute = self.module.constant(result).ok_or("has no value")?;
        self.constants[result.index()] = Some(constant_value(attribute, &ty, blobs, map)?);
        Ok(())
    }

    /// The result of a step that only says how constants are read: dequantized, or with their axes in another order. If that
    /// fails, the step is left for when it is run.
    fn weights(&self, step: &Step) -> Option<Value> {
        let operand = |slot: &usize| self.constants[*slot].as_ref();
        let operands = step.operands.iter().map(operand).collect::<Option<Vec<_>>>()?;
        let is_read = match (step.opcode, operands.first()?) {
            (Opcode::BlockwiseShiftScale, _) => step.declared.first()?.as_ref()?.rank() == 2,
            (Opcode::Transpose, Value::Tensor(_) | Value::Quantized(_)) => true,
            _ => false,
        };
        if !is_read {
            return None;
        }
        let value = compute(step, &operands, Rounding::Once).ok()?;
        value.check(step.declared.first()?.as_ref()).is_ok().then_some(value)
    }

    fn multiplies_by_weights(&self, step: &Step) -> bool {
        let is_constant = |slot: &usize| self.constants[*slot].is_some();
        matches!(step.opcode, Opcode::BatchMatmul | Opcode::BroadcastingBatchMatmul)
            && matches!(&step.operands[..], [a, b] if !is_constant(a) && is_constant(b))
    }

    fn step(&self, op: OpId, at: usize) -> Result<Step, String> {
        let body = self.module.op(op);
        Ok(Step {
            op,
            at,
            opcode: body.opcode,
            detail: self.detail(op)?,
            operands: body.operands.iter().map(|value| value.index()).collect(),
            results: body.results.iter().map(|value| value.index()).collect(),
            declared: body.results.iter().map(|value| self.module.tensor(*value)).collect(),
            last_uses: Vec::new(),
            overwrites: None,
        })
    }

    fn detail(&self, op: OpId) -> Result<Detail, String> {
        let body = self.module.op(op);
        let case = || match body.properties.first().copied().flatten().map(|id| self.module.attribute(id)) {
            Some(Attribute::Enumeration { of, value }) => of.case(*value),
            _ => None,
        };
        Ok(match body.opcode {
            Opcode::Gelu => Detail::Gelu(match case() {
                Some("none") => Approximation::None,
                Some("tanh") => Approximation::Tanh,
                Some("sigmoid") => Approximation::Sigmoid,
                _ => return Err("has no known approximation".to_owned()),
            }),
            Opcode::Pad if case() != Some("constant") => {
                return Err(format!(
                    "its mode {:?} is not supported, only \"constant\"",
                    case().unwrap_or("unknown")
                ));
            }
            Opcode::ReduceSum => Detail::Reduce(Combine::Sum),
            Opcode::ReduceProduct => Detail::Reduce(Combine::Product),
            Opcode::ReduceMax => Detail::Reduce(Combine::Max),
            Opcode::ReduceMin => Detail::Reduce(Combine::Min),
            Opcode::ReduceMean => Detail::Reduce(Combine::Mean),
            Opcode::Reduce => Detail::Reduce(self.combiner(op)?),
            _ => Detail::None,
        })
    }

    /// How the region of a `reduce` combines two elements.
    fn combiner(&self, op: OpId) -> Result<Combine, String> {
        let block = self.module.body(op).ok_or("its body is not a single block")?;
        let ops = &self.module.block(block).ops;
        let meaning = ops.iter().find_map(|op| match self.module.op(*op).opcode {
            Opcode::Add => Some(Combine::Sum),
            Opcode::Mul => Some(Combine::Product),
            Opcode::Maximum => Some(Combine::Max),
            Opcode::Minimum => Some(Combine::Min),
            _ => None,
        });
        meaning.ok_or_else(|| "combines elements by an unsupported op".to_owned())
    }

    /// Some rows of a matrix that is a constant, or dequantized from constants.
    pub(crate) fn matrix_rows(
        &self,
        value: ValueId,
        first: usize,
        height: usize,
    ) -> Result<Vec<f32>, String> {
        let constant = |value: ValueId| {
            let found = self.constants.get(value.index()).and_then(Option::as_ref);
            found.ok_or_else(|| "the matrix is not computed from constants only".to_owned())
        };
        let stored = match self.module.value(value).definition {
            Definition::Result { op, .. } if self.module.op(op).opcode == Opcode::BlockwiseShiftScale => {
                let [codes, scale, code_offset, value_offset] = self.module.op(op).operands[..] else {
                    return Err("the dequantization does not have four operands".to_owned());
                };
                blockwise_shift_scale(
                    constant(codes)?,
                    &*constant(scale)?.tensor()?,
                    &*constant(code_offset)?.tensor()?,
                    &*constant(value_offset)?.tensor()?,
                )?
            }
            _ => constant(value)?.clone(),
        };
        stored.rows(first, height)
    }

    fn find_last_uses(&self, steps: &mut [Step], outputs: &[(usize, Port)]) {
        let mut seen = vec![false; self.constants.len()];
        outputs.iter().for_each(|(slot, _)| seen[*slot] = true);
        for step in steps.iter_mut().rev() {
            for slot in step.results.iter().chain(&step.operands) {
                if !seen[*slot] && self.constants[*slot].is_none() {
                    seen[*slot] = true;
                    step.last_uses.push(*slot);
                }
            }
        }
    }

    /// Finds updates whose result is written to a state that is not accessed in between, so that they can work in place.
    fn find_overwrites(&self, steps: &mut [Step]) {
        let mut written: HashMap<usize, usize> = HashMap::new();
        for step in steps.iter_mut().rev() {
            let state = step.operands.first().and_then(|slot| match self.constants[*slot] {
                Some(Value::State(state)) => Some(state),
                _ => None,
            });
            match (step.opcode, state) {
                (Opcode::WriteHandle, Some(state)) => {
                    written.retain(|_, other| *other != state);
                    if let Some(value) = step.operands.get(1) {
                        written.insert(*value, state);
                    }
                }
                (Opcode::ReadHandle, Some(state)) => written.retain(|_, other| *other != state),
                (Opcode::SliceUpdate, _) => {
                    step.overwrites = step.results.first().and_then(|slot| written.remove(slot));
                }
                _ => {}
            }
        }
    }
}

/// A constant's bytes: inline ones are copied, blobs are views of the file.
fn constant_value(
    attribute: &Attribute,
    ty: &TensorType,
    blobs: &[BlobRange],
    map: &Arc<Mmap>,
) -> Result<Value, String> {
    let extent = |dim: &aimodel::Dim| dim.fixed().and_then(|extent| usize::try_from(extent).ok());
    let shape: Option<Vec<usize>> = ty.shape.iter().map(extent).collect();
    let shape = shape.ok_or("the constant has a dynamic shape")?;
    match attribute {
        Attribute::DenseElements { splat: true, bytes } => {
            // A splat bool is stored in full.
            let one = bytes.get(..ty.element.inline_bytes() as usize).ok_or("has too few bytes")?;
            Tensor::splat(ty.element, &shape, one).map(Value::Tensor)
        }
        Attribute::DenseElements { splat: false, bytes } => {
            Tensor::from_bytes(ty.element, &shape, bytes).map(Value::Tensor)
        }
        Attribute::DenseResource(resource) => {
            let blob = blobs.get(resource.index()).ok_or("refers to a blob that does not exist")?;
            if Some(blob.length) != ty.blob_bytes() {
                return Err(format!("its blob has {} bytes, which does not match {ty}", blob.length));
            }
            let start = usize::try_from(blob.offset).map_err(|_| "starts beyond what memory can map")?;
            if ty.element.bits() < 8 && ty.element != Element::Bool {
                Packed::new(ty.element, &shape, map, start).map(Value::Packed)
            } else {
                Tensor::mapped(ty.element, &shape, map, start).map(Value::Tensor)
            }
        }
        _ => Err("has a value of an unsupported kind".to_owned()),
    }
}
