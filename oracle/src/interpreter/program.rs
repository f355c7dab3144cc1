//! A package made ready to run: constants as views of the mapped file, ops with the places of their operands, and what may be
//! let go after each.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use aimodel::bytecode::reader::{BlobRange, Bytecode};
use aimodel::package::PROGRAM;
use aimodel::verify::verify;
use aimodel::view::{self, Function};
use aimodel::{Attribute, Definition, Element, Module, OpId, Opcode, TensorType, ValueId};
use memmap2::Mmap;

use super::arithmetic::{Approximation, Combine};
use super::error::InterpretError;
use super::tensor::Tensor;
use super::value::{Packed, Value, blockwise_shift_scale};

/// An input or output: its name in the graph and its type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Shape and element; dynamic axes are given by each step.
    pub ty: TensorType,
}

/// What an op needs beyond its operands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Detail {
    None,
    Gelu(Approximation),
    Reduce(Combine),
}

/// One op, ready to run.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) op: OpId,
    pub(super) opcode: Opcode,
    pub(super) detail: Detail,
    /// Slots of operands and results.
    pub(super) operands: Vec<usize>,
    pub(super) results: Vec<usize>,
    /// Declared type of each result that is a tensor.
    pub(super) declared: Vec<Option<TensorType>>,
    /// Slots that nobody reads after this op.
    pub(super) last_uses: Vec<usize>,
    /// A state whose old contents nobody reads again: the result of this op overwrites it.
    pub(super) overwrites: Option<usize>,
}

/// A graph, ready to run.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) module: Module,
    pub(super) steps: Vec<Step>,
    /// Values that are there from the start, by slot.
    pub(super) constants: Vec<Option<Value>>,
    pub(super) inputs: Vec<(usize, Port)>,
    pub(super) states: Vec<(usize, Port)>,
    pub(super) outputs: Vec<(usize, Port)>,
}

fn graph_error(reason: impl Into<String>) -> InterpretError {
    InterpretError::Graph(reason.into())
}

/// Ports with their slots.
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
    pub(super) fn open(package: &Path) -> Result<Program, InterpretError> {
        let path = package.join(PROGRAM);
        let Bytecode { module, blobs, .. } =
            Bytecode::open(&path).map_err(|source| InterpretError::Read { path: path.clone(), source })?;
        verify(&module).map_err(|error| graph_error(error.to_string()))?;
        let io = |source| InterpretError::Io { path: path.clone(), source };
        let file = File::open(&path).map_err(io)?;
        // SAFETY: the map is only read; packages are replaced by rename, never rewritten in place.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(io)?);
        Program::new(module, &blobs, &map)
    }

    fn new(module: Module, blobs: &[BlobRange], map: &Arc<Mmap>) -> Result<Program, InterpretError> {
        let graph = match module.graphs()[..] {
            [graph] => graph,
            ref graphs => return Err(graph_error(format!("{} graphs where one is expected", graphs.len()))),
        };
        let function = Function::of(&module, graph);
        let function = function.ok_or_else(|| graph_error("the graph has no single block"))?;
        let (inputs, states) = (ports(function.inputs(), "input")?, ports(function.states(), "state")?);
        let outputs = ports(function.outputs(), "output")?;
        if outputs.is_empty() {
            return Err(graph_error("there is no output"));
        }
        let mut constants = vec![None; module.value_count()];
        for (state, (slot, _)) in states.iter().enumerate() {
            constants[*slot] = Some(Value::State(state));
        }
        let ops = module.block(function.body).ops.clone();
        let mut program = Program { module, steps: Vec::new(), constants, inputs, states, outputs };
        for (at, op) in ops.iter().enumerate() {
            let opcode = program.module.op(*op).opcode;
            let fault = |reason| InterpretError::Op { at, opcode, reason };
            match opcode {
                Opcode::Constant => program.constant(*op, blobs, map).map_err(fault)?,
                Opcode::Output => {}
                _ => {
                    let step = program.step(*op).map_err(fault)?;
                    program.steps.push(step);
                }
            }
        }
        program.find_last_uses();
        program.find_overwrites();
        Ok(program)
    }

    fn constant(&mut self, op: OpId, blobs: &[BlobRange], map: &Arc<Mmap>) -> Result<(), String> {
        let result = *self.module.op(op).results.first().ok_or("has no result")?;
        let ty = self.module.tensor(result).ok_or("is not a tensor")?;
        let attribute = self.module.constant(result).ok_or("has no value")?;
        self.constants[result.index()] = Some(constant_value(attribute, &ty, blobs, map)?);
        Ok(())
    }

    fn step(&self, op: OpId) -> Result<Step, String> {
        let body = self.module.op(op);
        Ok(Step {
            op,
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
                    "pads by {:?}, only \"constant\" is supported",
                    case().unwrap_or("nothing")
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

    /// What the region of a `reduce` does with two elements.
    fn combiner(&self, op: OpId) -> Result<Combine, String> {
        let block = self.module.body(op).ok_or("has no single block")?;
        let ops = &self.module.block(block).ops;
        let meaning = ops.iter().find_map(|op| match self.module.op(*op).opcode {
            Opcode::Add => Some(Combine::Sum),
            Opcode::Mul => Some(Combine::Product),
            Opcode::Maximum => Some(Combine::Max),
            Opcode::Minimum => Some(Combine::Min),
            _ => None,
        });
        meaning.ok_or_else(|| "combines by an unknown op".to_owned())
    }

    /// Some rows of a matrix that is a constant, or dequantized from constants.
    pub(super) fn matrix_rows(
        &self,
        value: ValueId,
        first: usize,
        height: usize,
    ) -> Result<Vec<f32>, String> {
        let constant = |value: ValueId| {
            let found = self.constants.get(value.index()).and_then(Option::as_ref);
            found.ok_or_else(|| "a matrix is not made of constants".to_owned())
        };
        let stored = match self.module.value(value).definition {
            Definition::Result { op, .. } if self.module.op(op).opcode == Opcode::BlockwiseShiftScale => {
                let [codes, scale, code_offset, value_offset] = self.module.op(op).operands[..] else {
                    return Err("a dequantization without its four operands".to_owned());
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

    fn find_last_uses(&mut self) {
        let kept: Vec<usize> = self.outputs.iter().map(|(slot, _)| *slot).collect();
        let mut seen = vec![false; self.constants.len()];
        kept.into_iter().for_each(|slot| seen[slot] = true);
        for step in self.steps.iter_mut().rev() {
            for slot in step.results.iter().chain(&step.operands) {
                if !seen[*slot] && self.constants[*slot].is_none() {
                    seen[*slot] = true;
                    step.last_uses.push(*slot);
                }
            }
        }
    }

    /// Finds updates whose result is the next thing that happens to the state they come from, so that they can work in place.
    fn find_overwrites(&mut self) {
        let mut written: HashMap<usize, usize> = HashMap::new();
        for step in self.steps.iter_mut().rev() {
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
    let shape = shape.ok_or("a constant of dynamic shape")?;
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
            let blob = blobs.get(resource.index()).ok_or("names a blob that is not there")?;
            if Some(blob.length) != ty.blob_bytes() {
                return Err(format!("its blob has {} bytes, {ty} takes another number", blob.length));
            }
            let start = usize::try_from(blob.offset).map_err(|_| "lies beyond what memory can map")?;
            if ty.element.bits() < 8 && ty.element != Element::Bool {
                Packed::new(ty.element, &shape, map, start).map(Value::Packed)
            } else {
                Tensor::mapped(ty.element, &shape, map, start).map(Value::Tensor)
            }
        }
        _ => Err("has a value of an unknown kind".to_owned()),
    }
}
