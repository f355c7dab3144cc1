//! A running package: states that grow, inputs bound once, one step at a time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aimodel::{Element, Module, OpId, Opcode, TensorType, ValueId};

use super::Rounding;
use super::error::InterpretError;
use super::execute::compute;
use super::movement::slice_update;
use super::program::{Port, Program, Step};
use super::tensor::Tensor;
use super::value::Value;

/// Positions that states start with on their dynamic axis, as in Apple's engine.
const FIRST_POSITIONS: usize = 256;

/// Called with every tensor that a step computes: the op, and the position of the result.
pub type Observer<'o> = &'o mut dyn FnMut(OpId, usize, &Tensor);

/// Outputs of one step by name.
#[derive(Clone, Debug)]
pub struct Outputs(Vec<(String, Tensor)>);

impl Outputs {
    /// The output with this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor)
    }

    /// The output `logits` as f32, flattened.
    pub fn logits(&self) -> Result<Vec<f32>, InterpretError> {
        let tensor = self.get("logits");
        let tensor =
            tensor.ok_or_else(|| InterpretError::Graph("there is no output \"logits\"".to_owned()))?;
        tensor.to_floats().map_err(|reason| InterpretError::Graph(format!("logits: {reason}")))
    }
}

/// A package with its states. Weights stay in the mapped file.
#[derive(Debug)]
pub struct Session {
    program: Arc<Program>,
    bound: HashMap<usize, Tensor>,
    /// `None` while a step overwrites the state, and after a step that failed then.
    states: Vec<Option<Tensor>>,
    positions: usize,
    rounding: Rounding,
}

impl Session {
    /// Opens a package directory (`X.aimodel`); states are zero and hold 256 positions.
    pub fn open(package: &Path) -> Result<Session, InterpretError> {
        let program = Arc::new(Program::open(package)?);
        let rounding = Rounding::Once;
        let mut session =
            Session { program, bound: HashMap::new(), states: Vec::new(), positions: 0, rounding };
        session.reset()?;
        Ok(session)
    }

    /// Chooses how f16 results are rounded from the next step on.
    pub fn set_rounding(&mut self, rounding: Rounding) {
        self.rounding = rounding;
    }

    /// Inputs that each step, or [`Session::bind`], must give.
    pub fn inputs(&self) -> impl Iterator<Item = &Port> {
        self.program.inputs.iter().map(|(_, port)| port)
    }

    /// States, in the order of the graph's arguments.
    pub fn states(&self) -> impl Iterator<Item = &Port> {
        self.program.states.iter().map(|(_, port)| port)
    }

    /// Outputs of a step.
    pub fn outputs(&self) -> impl Iterator<Item = &Port> {
        self.program.outputs.iter().map(|(_, port)| port)
    }

    /// The graph.
    pub fn module(&self) -> &Module {
        &self.program.module
    }

    /// The tensor behind a constant op: a view of the file, or a copy if it is packed.
    pub fn constant(&self, value: ValueId) -> Option<Tensor> {
        let constant = self.program.constants.get(value.index())?.as_ref()?;
        constant.tensor().ok().map(std::borrow::Cow::into_owned)
    }

    /// Some rows of a stored matrix `[n, k]` as f32, dequantized if it is quantized: `value` is a constant, or the result of a
    /// `blockwise_shift_scale` of constants.
    ///
    /// # Errors
    /// [`InterpretError::Graph`] if it is neither, or has no such rows.
    pub fn matrix_rows(
        &self,
        value: ValueId,
        first: usize,
        height: usize,
    ) -> Result<Vec<f32>, InterpretError> {
        self.program.matrix_rows(value, first, height).map_err(InterpretError::Graph)
    }

    /// Sets all states to zero and to their first capacity. Bound inputs stay.
    pub fn reset(&mut self) -> Result<(), InterpretError> {
        self.positions = FIRST_POSITIONS;
        self.states = Vec::new();
        for (_, port) in &self.program.states {
            self.states.push(Some(empty_state(port, self.positions)?));
        }
        Ok(())
    }

    /// Positions that the states hold now.
    pub fn capacity(&self) -> usize {
        self.positions
    }

    /// Doubles the states on their dynamic axis until they hold this many positions.
    pub fn reserve(&mut self, positions: usize) -> Result<(), InterpretError> {
        while self.positions < positions {
            let larger = self.positions.checked_mul(2);
            let larger = larger.ok_or_else(|| InterpretError::Graph("too many positions".to_owned()))?;
            for ((_, port), state) in self.program.states.iter().zip(&mut self.states) {
                let old = state.take().ok_or(InterpretError::Poisoned)?;
                *state = Some(grown(port, &old, larger)?);
            }
            self.positions = larger;
        }
        Ok(())
    }

    /// Gives an input once for all steps to come.
    pub fn bind(&mut self, name: &str, tensor: Tensor) -> Result<(), InterpretError> {
        let slot = self.slot(name, &tensor)?;
        self.bound.insert(slot, tensor);
        Ok(())
    }

    fn slot(&self, name: &str, tensor: &Tensor) -> Result<usize, InterpretError> {
        let fault = |reason: String| InterpretError::Input { name: name.to_owned(), reason };
        let found = self.program.inputs.iter().find(|(_, port)| port.name == name);
        let (slot, port) = found.ok_or_else(|| {
            let known: Vec<&str> = self.inputs().map(|port| port.name.as_str()).collect();
            fault(format!("the graph has no such input, but {}", known.join(", ")))
        })?;
        if !tensor.fits(&port.ty) {
            return Err(fault(format!(
                "{} is declared, {:?} of {} given",
                port.ty,
                tensor.shape(),
                tensor.element()
            )));
        }
        Ok(*slot)
    }

    /// Runs the graph once.
    pub fn step(&mut self, inputs: &[(&str, Tensor)]) -> Result<Outputs, InterpretError> {
        self.step_observed(inputs, &mut |_, _, _| {})
    }

    /// Runs the graph once and shows every tensor that it computes. Weights are not shown.
    pub fn step_observed(
        &mut self,
        inputs: &[(&str, Tensor)],
        observer: Observer<'_>,
    ) -> Result<Outputs, InterpretError> {
        let program = Arc::clone(&self.program);
        let mut slots = program.constants.clone();
        for (slot, tensor) in &self.bound {
            slots[*slot] = Some(Value::Tensor(tensor.clone()));
        }
        for (name, tensor) in inputs {
            slots[self.slot(name, tensor)?] = Some(Value::Tensor(tensor.clone()));
        }
        for (slot, port) in &program.inputs {
            if slots[*slot].is_none() {
                return Err(InterpretError::Input {
                    name: port.name.clone(),
                    reason: "was not given".to_owned(),
                });
            }
        }
        for (at, step) in program.steps.iter().enumerate() {
            self.run(at, step, &mut slots, observer)?;
        }
        let output = |(slot, port): &(usize, Port)| match slots[*slot].as_ref().map(Value::tensor) {
            Some(Ok(tensor)) => Ok((port.name.clone(), tensor.into_owned())),
            _ => Err(InterpretError::Graph(format!("output {:?} was not computed", port.name))),
        };
        Ok(Outputs(program.outputs.iter().map(output).collect::<Result<_, _>>()?))
    }

    fn run(
        &mut self,
        at: usize,
        step: &Step,
        slots: &mut [Option<Value>],
        observer: Observer<'_>,
    ) -> Result<(), InterpretError> {
        let fault = |reason: String| InterpretError::Op { at, opcode: step.opcode, reason };
        let operands: Option<Vec<Value>> = step.operands.iter().map(|slot| slots[*slot].clone()).collect();
        let operands = operands.ok_or_else(|| fault("an operand was not computed".to_owned()))?;
        // Values that are read for the last time are let go, so that an update can work in place.
        for slot in &step.last_uses {
            slots[*slot] = None;
        }
        let results = match step.opcode {
            Opcode::CreateToken => vec![Value::Token],
            Opcode::ReadHandle => {
                vec![Value::Tensor(self.read(&operands).map_err(fault)?), Value::Token]
            }
            Opcode::WriteHandle => {
                self.write(&operands).map_err(fault)?;
                vec![Value::Token]
            }
            Opcode::SliceUpdate => vec![self.update(step, operands).map_err(fault)?],
            _ => vec![compute(step, &operands, self.rounding).map_err(fault)?],
        };
        for ((slot, value), declared) in step.results.iter().zip(results).zip(&step.declared) {
            check(&value, declared.as_ref()).map_err(fault)?;
            if let Value::Tensor(tensor) = &value {
                observer(step.op, at, tensor);
            }
            if !step.last_uses.contains(slot) {
                slots[*slot] = Some(value);
            }
        }
        Ok(())
    }

    fn index(operands: &[Value]) -> Result<usize, String> {
        match operands.first() {
            Some(Value::State(state)) => Ok(*state),
            _ => Err("operand 0 is not a handle".to_owned()),
        }
    }

    fn read(&self, operands: &[Value]) -> Result<Tensor, String> {
        let state = self.states.get(Self::index(operands)?).ok_or("names a state that is not there")?;
        state.clone().ok_or_else(|| InterpretError::Poisoned.to_string())
    }

    fn write(&mut self, operands: &[Value]) -> Result<(), String> {
        let index = Self::index(operands)?;
        let tensor = operands.get(1).ok_or("operand 1 is missing")?.tensor()?.into_owned();
        let ty = &self.program.states.get(index).ok_or("names a state that is not there")?.1.ty;
        if !tensor.fits(ty) {
            return Err(format!("{ty} is declared, {:?} written", tensor.shape()));
        }
        self.states[index] = Some(tensor);
        Ok(())
    }

    fn update(&mut self, step: &Step, mut operands: Vec<Value>) -> Result<Value, String> {
        if operands.len() != 5 {
            return Err(format!("takes 5 operands, has {}", operands.len()));
        }
        let rest: Vec<Tensor> = operands[1..]
            .iter()
            .map(|value| Ok(value.tensor()?.into_owned()))
            .collect::<Result<_, String>>()?;
        let target = match operands.swap_remove(0) {
            Value::Tensor(tensor) => tensor,
            other => other.tensor()?.into_owned(),
        };
        drop(operands);
        if let Some(state) = step.overwrites {
            self.states[state] = None;
        }
        slice_update(target, &rest[0], &rest[1], &rest[2], &rest[3]).map(Value::Tensor)
    }
}

/// A state's shape with `positions` on each dynamic axis.
fn state_shape(port: &Port, positions: usize) -> Result<Vec<usize>, InterpretError> {
    let extents = port.ty.shape.iter().map(|dim| match dim.fixed() {
        Some(extent) => usize::try_from(extent).ok(),
        None => Some(positions),
    });
    let shape: Option<Vec<usize>> = extents.collect();
    shape.ok_or_else(|| InterpretError::Graph(format!("state {:?} is too large", port.name)))
}

fn state_error(port: &Port) -> impl Fn(String) -> InterpretError {
    let name = port.name.clone();
    move |reason| InterpretError::Graph(format!("state {name:?}: {reason}"))
}

fn empty_state(port: &Port, positions: usize) -> Result<Tensor, InterpretError> {
    Tensor::zeros(port.ty.element, &state_shape(port, positions)?).map_err(state_error(port))
}

/// A larger state that starts with the old one's contents.
fn grown(port: &Port, old: &Tensor, positions: usize) -> Result<Tensor, InterpretError> {
    let larger = empty_state(port, positions)?;
    let fault = state_error(port);
    let bounds =
        |values: Vec<i64>| Tensor::from_integers(Element::Si32, &[values.len()], &values).map_err(&fault);
    let start = bounds(vec![0; old.shape().len()])?;
    let stride = bounds(vec![1; old.shape().len()])?;
    let end = bounds(old.shape().iter().map(|extent| *extent as i64).collect())?;
    slice_update(larger, &start, &end, &stride, old).map_err(&fault)
}

/// A result must have the type that the graph declares for it.
fn check(value: &Value, declared: Option<&TensorType>) -> Result<(), String> {
    let (shape, element) = match value {
        Value::Tensor(tensor) => (tensor.shape().to_vec(), tensor.element()),
        Value::Quantized(weights) => (weights.shape().to_vec(), weights.element()),
        Value::Packed(_) | Value::State(_) | Value::Token => return Ok(()),
    };
    let Some(ty) = declared else { return Err("makes a tensor where none is declared".to_owned()) };
    let fits = ty.element == element
        && ty.rank() == shape.len()
        && ty
            .shape
            .iter()
            .zip(&shape)
            .all(|(dim, extent)| dim.fixed().is_none_or(|fixed| fixed == *extent as u64));
    if fits { Ok(()) } else { Err(format!("makes {shape:?} of {element} where {ty} is declared")) }
}
