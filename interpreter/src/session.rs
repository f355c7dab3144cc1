//! A running package: its functions share states, which can grow, and run one at a time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aimodel::{BlockId, Definition, Element, Module, OpId, Opcode, ValueId};
use progress::Progress;
use rayon::prelude::*;

use crate::Rounding;
use crate::error::InterpretError;
use crate::execute::compute;
use crate::matmul::matmul_together;
use crate::movement::slice_update;
use crate::program::{Function, Port, Program, Step};
use crate::tensor::Tensor;
use crate::value::Value;

/// Initial positions of states on their dynamic axis, as in Apple's engine.
const FIRST_POSITIONS: usize = 256;

/// Called with every tensor that a step computes: the op, its position among the steps, and the tensor.
pub type Observer<'o> = &'o mut (dyn FnMut(OpId, usize, &Tensor) + Send);

/// Outputs of one step by name.
#[derive(Clone, Debug)]
pub struct Outputs(Vec<(String, Tensor)>);

impl Outputs {
    /// The output with this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, tensor)| tensor)
    }

    /// The logits after fed token number `at`, from the output `logits`, as f32 `[V]`.
    ///
    /// # Errors
    /// [`InterpretError::Graph`] if there is no such output, or no logits for that token.
    pub fn logits(&self, at: usize) -> Result<Vec<f32>, InterpretError> {
        let graph_error = |reason: String| InterpretError::Graph(format!("logits: {reason}"));
        let tensor = self.get("logits").ok_or_else(|| graph_error("there is no such output".to_owned()))?;
        let length = tensor.shape().last().copied().unwrap_or(0);
        if length == 0 || at >= tensor.elements() / length {
            return Err(graph_error(format!("{:?} has none for token {at}", tensor.shape())));
        }
        let dense = tensor.to_dense().map_err(graph_error)?;
        dense.view(vec![length], vec![1], dense.offset() + at * length).to_floats().map_err(graph_error)
    }
}

/// A package with its states. Weights stay in the mapped file.
///
/// A step runs `main`; other functions are run by [`Session::call`]. All of them read and write the same states.
#[derive(Debug)]
pub struct Session {
    program: Arc<Program>,
    /// Bound inputs by slot: an input has one slot in each function.
    bound: HashMap<usize, Tensor>,
    /// `None` while a step overwrites the state, and after a step that failed meanwhile.
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

    /// Another session of the same program, with the same bound inputs and rounding, and with empty states.
    ///
    /// # Errors
    /// If the states cannot be allocated.
    pub fn sibling(&self) -> Result<Session, InterpretError> {
        let (program, bound) = (Arc::clone(&self.program), self.bound.clone());
        let mut session =
            Session { program, bound, states: Vec::new(), positions: 0, rounding: self.rounding };
        session.reset()?;
        Ok(session)
    }

    /// Sets how f16 results are rounded, starting with the next step.
    pub fn set_rounding(&mut self, rounding: Rounding) {
        self.rounding = rounding;
    }

    /// Inputs that must be given to each step, or bound by [`Session::bind`].
    pub fn inputs(&self) -> impl Iterator<Item = &Port> {
        self.program.main().inputs.iter().map(|(_, port)| port)
    }

    /// Inputs of a function, if the package has one of this name.
    pub fn inputs_of(&self, function: &str) -> Option<impl Iterator<Item = &Port>> {
        let found = self.program.functions().iter().find(|other| other.name == function)?;
        Some(found.inputs.iter().map(|(_, port)| port))
    }

    /// States, in the order of the graph's arguments.
    pub fn states(&self) -> impl Iterator<Item = &Port> {
        self.program.states.iter()
    }

    /// Outputs of a step.
    pub fn outputs(&self) -> impl Iterator<Item = &Port> {
        self.program.main().outputs.iter().map(|(_, port)| port)
    }

    /// The package's module.
    pub fn module(&self) -> &Module {
        &self.program.module
    }

    /// The block with the ops of `main`.
    pub fn body(&self) -> BlockId {
        self.program.main().body
    }

    /// The tensor of a constant op: a view of the file, or an unpacked copy if it is packed.
    pub fn constant(&self, value: ValueId) -> Option<Tensor> {
        let constant = self.program.constants.get(value.index())?.as_ref()?;
        let Definition::Result { op, .. } = self.program.module.value(value).definition else { return None };
        if self.program.module.op(op).opcode != Opcode::Constant {
            return None;
        }
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

    /// Sets all states to zero and to their initial capacity. Inputs stay bound.
    pub fn reset(&mut self) -> Result<(), InterpretError> {
        self.positions = FIRST_POSITIONS;
        self.states = Vec::new();
        for port in &self.program.states {
            self.states.push(Some(empty_state(port, self.positions)?));
        }
        Ok(())
    }

    /// Positions that the states can currently hold.
    pub fn capacity(&self) -> usize {
        self.positions
    }

    /// Doubles the states on their dynamic axis until they can hold this many positions.
    pub fn reserve(&mut self, positions: usize) -> Result<(), InterpretError> {
        while self.positions < positions {
            let larger = self.positions.checked_mul(2);
            let larger = larger.ok_or_else(|| InterpretError::Graph("too many positions".to_owned()))?;
            for (port, state) in self.program.states.iter().zip(&mut self.states) {
                let old = state.take().ok_or(InterpretError::Poisoned)?;
                *state = Some(grown(port, &old, larger)?);
            }
            self.positions = larger;
        }
        Ok(())
    }

    /// The contents of state number `at` of [`Session::states`], in its first `positions` positions.
    ///
    /// # Errors
    /// [`InterpretError::Graph`] if there is no such state or it holds fewer positions, [`InterpretError::Poisoned`] after a step
    /// that failed while it overwrote the state.
    pub fn state(&self, at: usize, positions: usize) -> Result<Tensor, InterpretError> {
        let port = self.program.states.get(at).ok_or_else(|| no_state(at))?;
        let state = self.states[at].as_ref().ok_or(InterpretError::Poisoned)?;
        let shape = state_shape(port, positions)?;
        let holds = shape.iter().zip(state.shape()).all(|(wanted, extent)| wanted <= extent);
        if !holds {
            return Err(state_error(port)(format!("it holds fewer than {positions} positions")));
        }
        Ok(state.view(shape, state.strides().to_vec(), state.offset()))
    }

    /// Replaces the contents of a state by a tensor of the same type and current shape.
    ///
    /// # Errors
    /// [`InterpretError::Graph`] if there is no such state, or the tensor has another type or shape.
    pub fn set_state(&mut self, at: usize, contents: Tensor) -> Result<(), InterpretError> {
        let port = self.program.states.get(at).ok_or_else(|| no_state(at))?;
        let shape = state_shape(port, self.positions)?;
        if contents.element() != port.ty.element || contents.shape() != shape {
            let found = format!("{:?} of {}", contents.shape(), contents.element());
            return Err(state_error(port)(format!("it has {shape:?} of {}, not {found}", port.ty.element)));
        }
        self.states[at] = Some(contents);
        Ok(())
    }

    /// Binds an input for all later calls, in all functions that have it.
    pub fn bind(&mut self, name: &str, tensor: Tensor) -> Result<(), InterpretError> {
        let program = Arc::clone(&self.program);
        let has = |function: &&Function| function.inputs.iter().any(|(_, port)| port.name == name);
        let others = program.functions().iter().filter(has);
        for function in std::iter::once(program.main()).chain(others) {
            self.bound.insert(slot(function, name, &tensor)?, tensor.clone());
        }
        Ok(())
    }

    /// Runs `main` once.
    pub fn step(&mut self, inputs: &[(&str, Tensor)]) -> Result<Outputs, InterpretError> {
        self.step_observed(inputs, &mut |_, _, _| {})
    }

    /// Runs `main` once and calls `observer` with every tensor that it computes. Quantized weights are not passed.
    pub fn step_observed(
        &mut self,
        inputs: &[(&str, Tensor)],
        observer: Observer<'_>,
    ) -> Result<Outputs, InterpretError> {
        let program = Arc::clone(&self.program);
        self.run(program.main(), inputs, observer)
    }

    /// Runs a function once.
    pub fn call(&mut self, function: &str, inputs: &[(&str, Tensor)]) -> Result<Outputs, InterpretError> {
        let program = Arc::clone(&self.program);
        let found = program.functions().iter().find(|other| other.name == function);
        let found = found
            .ok_or_else(|| InterpretError::Graph(format!("the package has no function {function:?}")))?;
        self.run(found, inputs, &mut |_, _, _| {})
    }

    /// Runs `main` once for each of several sessions of one program, with the inputs of each. The bits are those of separate steps,
    /// and weights are read once for all of them.
    ///
    /// # Errors
    /// As [`Session::step`], and [`InterpretError::Stopped`] soon after `progress` is cancelled; then some sessions may have advanced.
    pub fn step_together(
        sessions: &mut [&mut Session],
        inputs: &[Vec<(&str, Tensor)>],
        progress: &dyn Progress,
    ) -> Result<Vec<Outputs>, InterpretError> {
        let Some(program) = sessions.first().map(|session| Arc::clone(&session.program)) else {
            return Ok(Vec::new());
        };
        let function = program.main();
        let mut values = Vec::with_capacity(sessions.len());
        for (session, inputs) in sessions.iter().zip(inputs) {
            values.push(session.begin(&program.constants, function, inputs)?);
        }
        let mut from = 0;
        for at in function.by_weights.iter().copied().chain([function.steps.len()]) {
            if progress.cancelled() {
                return Err(InterpretError::Stopped);
            }
            let steps = &function.steps[from..at];
            sessions.par_iter_mut().zip(&mut values).try_for_each(|(session, values)| {
                steps.iter().try_for_each(|step| session.advance(step, values, &mut |_, _, _| {}))
            })?;
            if let Some(step) = function.steps.get(at) {
                multiply_together(step, sessions, &mut values)?;
            }
            from = at + 1;
        }
        values.iter().map(|values| values.outputs(function)).collect()
    }

    fn run(
        &mut self,
        function: &Function,
        inputs: &[(&str, Tensor)],
        observer: Observer<'_>,
    ) -> Result<Outputs, InterpretError> {
        let program = Arc::clone(&self.program);
        // On a thread of the pool, so that a product need not wake one and wait for it.
        rayon::scope(|_| {
            let mut values = self.begin(&program.constants, function, inputs)?;
            function.steps.iter().try_for_each(|step| self.advance(step, &mut values, observer))?;
            values.outputs(function)
        })
    }

    /// The values of a function before its first step.
    fn begin<'p>(
        &self,
        constants: &'p [Option<Value>],
        function: &Function,
        inputs: &[(&str, Tensor)],
    ) -> Result<Values<'p>, InterpretError> {
        let mut values = Values { constants, slots: vec![None; constants.len()], views: Vec::new() };
        for (slot, tensor) in &self.bound {
            values.slots[*slot] = Some(Value::Tensor(tensor.clone()));
        }
        for (name, tensor) in inputs {
            values.slots[slot(function, name, tensor)?] = Some(Value::Tensor(tensor.clone()));
        }
        match function.inputs.iter().find(|(slot, _)| values.get(*slot).is_none()) {
            Some((_, port)) => {
                Err(InterpretError::Input { name: port.name.clone(), reason: "is missing".to_owned() })
            }
            None => Ok(values),
        }
    }

    fn advance(
        &mut self,
        step: &Step,
        values: &mut Values<'_>,
        observer: Observer<'_>,
    ) -> Result<(), InterpretError> {
        let results = if step.opcode == Opcode::SliceUpdate {
            self.update(step, values.taken(step)?, values).map(|updated| vec![updated])
        } else {
            let operands = values.operands(step)?;
            let results = match step.opcode {
                Opcode::CreateToken => Ok(vec![Value::Token]),
                Opcode::ReadHandle => {
                    self.read(&operands).map(|state| vec![Value::Tensor(state), Value::Token])
                }
                Opcode::WriteHandle => self.write(&operands).map(|()| vec![Value::Token]),
                _ => compute(step, &operands, self.rounding).map(|value| vec![value]),
            };
            values.drop_unread(step);
            results
        };
        self.keep(step, results.map_err(|reason| step.fault(reason))?, values, observer)
    }

    /// Keeps the results of a step that are read again.
    fn keep(
        &self,
        step: &Step,
        results: Vec<Value>,
        values: &mut Values<'_>,
        observer: Observer<'_>,
    ) -> Result<(), InterpretError> {
        for ((slot, value), declared) in step.results.iter().zip(results).zip(&step.declared) {
            value.check(declared.as_ref()).map_err(|reason| step.fault(reason))?;
            if let Value::Tensor(tensor) = &value {
                observer(step.op, step.at, tensor);
            }
            if !step.last_uses.contains(slot) {
                self.put(*slot, value, values);
            }
        }
        Ok(())
    }

    fn put(&self, slot: usize, value: Value, values: &mut Values<'_>) {
        if let Value::Tensor(tensor) = &value
            && self.states.iter().flatten().any(|state| state.shares_bytes(tensor))
        {
            values.views.push(slot);
        }
        values.slots[slot] = Some(value);
    }

    fn index(operands: &[&Value]) -> Result<usize, String> {
        match operands.first() {
            Some(Value::State(state)) => Ok(*state),
            _ => Err("operand 0 is not a handle".to_owned()),
        }
    }

    fn read(&self, operands: &[&Value]) -> Result<Tensor, String> {
        let state = self.states.get(Self::index(operands)?).ok_or("refers to an unknown state")?;
        state.clone().ok_or_else(|| InterpretError::Poisoned.to_string())
    }

    fn write(&mut self, operands: &[&Value]) -> Result<(), String> {
        let index = Self::index(operands)?;
        let tensor = operands.get(1).ok_or("operand 1 is missing")?.tensor()?.into_owned();
        let ty = &self.program.states.get(index).ok_or("refers to an unknown state")?.ty;
        if !tensor.fits(ty) {
            return Err(format!("the state is declared as {ty}, but {:?} is written", tensor.shape()));
        }
        self.states[index] = Some(tensor);
        Ok(())
    }

    fn update(
        &mut self,
        step: &Step,
        mut operands: Vec<Value>,
        values: &mut Values<'_>,
    ) -> Result<Value, String> {
        if operands.len() != 5 {
            return Err(format!("takes 5 operands, but has {}", operands.len()));
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
            values.detach(&target)?;
        }
        slice_update(target, &rest[0], &rest[1], &rest[2], &rest[3]).map(Value::Tensor)
    }
}

/// Does a step that multiplies by weights for all sessions.
fn multiply_together(
    step: &Step,
    sessions: &[&mut Session],
    values: &mut [Values<'_>],
) -> Result<(), InterpretError> {
    let fault = |reason: String| step.fault(reason);
    let operands = values.iter().map(|values| values.operands(step)).collect::<Result<Vec<_>, _>>()?;
    let activations = operands.iter().map(|operands| operands[0].tensor());
    let activations = activations.collect::<Result<Vec<_>, String>>().map_err(fault)?;
    let activations: Vec<&Tensor> = activations.iter().map(AsRef::as_ref).collect();
    let (Some(operands), Some(session)) = (operands.first(), sessions.first()) else { return Ok(()) };
    let products = matmul_together(&activations, operands[1], session.rounding).map_err(fault)?;
    for ((session, product), values) in sessions.iter().zip(products).zip(values) {
        values.drop_unread(step);
        session.keep(step, vec![Value::Tensor(product)], values, &mut |_, _, _| {})?;
    }
    Ok(())
}

/// Values of a running function.
struct Values<'p> {
    constants: &'p [Option<Value>],
    /// What was given or computed.
    slots: Vec<Option<Value>>,
    /// Slots of tensors that are views of a state.
    views: Vec<usize>,
}

impl Values<'_> {
    fn get(&self, slot: usize) -> Option<&Value> {
        self.slots[slot].as_ref().or(self.constants[slot].as_ref())
    }

    /// Operands of a step.
    fn operands(&self, step: &Step) -> Result<Vec<&Value>, InterpretError> {
        let operands: Option<Vec<&Value>> = step.operands.iter().map(|slot| self.get(*slot)).collect();
        operands.ok_or_else(|| step.fault("an operand was not computed".to_owned()))
    }

    /// Operands of a step that works in place if nothing else has them: those that are not read again are not kept.
    fn taken(&mut self, step: &Step) -> Result<Vec<Value>, InterpretError> {
        let operands = self.operands(step)?.into_iter().cloned().collect();
        self.drop_unread(step);
        Ok(operands)
    }

    /// Drops what is not read after a step.
    fn drop_unread(&mut self, step: &Step) {
        for slot in &step.last_uses {
            self.slots[*slot] = None;
        }
    }

    fn outputs(&self, function: &Function) -> Result<Outputs, InterpretError> {
        let output = |(slot, port): &(usize, Port)| match self.get(*slot).map(Value::tensor) {
            Some(Ok(tensor)) => Ok((port.name.clone(), tensor.into_owned())),
            _ => Err(InterpretError::Graph(format!("output {:?} was not computed", port.name))),
        };
        Ok(Outputs(function.outputs.iter().map(output).collect::<Result<_, _>>()?))
    }

    /// Copies the views of a state that are still needed, so that the state can be overwritten in place. They are small: one
    /// layer's keys or values, where the state has those of all layers.
    fn detach(&mut self, state: &Tensor) -> Result<(), String> {
        let mut others = Vec::new();
        for slot in self.views.drain(..) {
            match &mut self.slots[slot] {
                Some(Value::Tensor(tensor)) if tensor.shares_bytes(state) => *tensor = tensor.copied()?,
                Some(_) => others.push(slot),
                None => {}
            }
        }
        self.views = others;
        Ok(())
    }
}

/// Slot of a function's input; fails unless the tensor has the declared type.
fn slot(function: &Function, name: &str, tensor: &Tensor) -> Result<usize, InterpretError> {
    let fault = |reason: String| InterpretError::Input { name: name.to_owned(), reason };
    let found = function.inputs.iter().find(|(_, port)| port.name == name);
    let (slot, port) = found.ok_or_else(|| {
        let known: Vec<&str> = function.inputs.iter().map(|(_, port)| port.name.as_str()).collect();
        fault(format!("the graph does not have this input, only {}", known.join(", ")))
    })?;
    if !tensor.fits(&port.ty) {
        return Err(fault(format!(
            "declared as {}, but {:?} of {} was given",
            port.ty,
            tensor.shape(),
            tensor.element()
        )));
    }
    Ok(*slot)
}

fn no_state(at: usize) -> InterpretError {
    InterpretError::Graph(format!("there is no state {at}"))
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

/// A larger state that starts with the contents of the old one.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fixtures::data::{PrefillReference, ReferencePackage};

    use super::*;

    /// Addresses of the bytes of each state.
    fn places(session: &Session) -> Vec<*const u16> {
        session.states.iter().map(|state| state.as_ref().unwrap().items::<u16>().unwrap().as_ptr()).collect()
    }

    fn call(session: &mut Session, function: &str, past: usize, tokens: usize) {
        let integers =
            |values: &[i64]| Tensor::from_integers(Element::Si32, &[1, values.len()], values).unwrap();
        let positions: Vec<i64> = (0..(past + tokens) as i64).collect();
        let mut inputs =
            vec![("input_ids", integers(&vec![7; tokens])), ("position_ids", integers(&positions))];
        if session.inputs().any(|port| port.name == "ple_tokens") {
            inputs.push(("ple_tokens", Tensor::zeros(Element::F16, &[1, 1, 12, 32]).unwrap()));
        }
        session.call(function, &inputs).unwrap();
    }

    fn assert_in_place(package: &Path, calls: &[(&str, usize)]) {
        let mut session = Session::open(package).unwrap();
        let before = places(&session);
        let mut past = 0;
        for (function, tokens) in calls {
            call(&mut session, function, past, *tokens);
            past += tokens;
            assert_eq!(places(&session), before, "{function} after {past}");
        }
        let keys = session.state(0, past).unwrap().to_floats().unwrap();
        assert!(keys.iter().any(|key| *key != 0.0));
    }

    /// The caches hold all layers: copying them would take longer than the rest of a step. In the packages of two functions,
    /// shared layers still need the keys of one slot when the next slot is written.
    #[test]
    fn caches_are_written_in_place() {
        assert_in_place(&ReferencePackage::ProviderF16.path(), &[("main", 1), ("main", 1)]);
        assert_in_place(&PrefillReference::F16.path(), &[("main", 3), ("prefill", 5), ("main", 1)]);
    }

    #[test]
    fn states_can_be_read_and_replaced() {
        let mut session = Session::open(&PrefillReference::F16.path()).unwrap();
        assert_eq!(session.state(1, 3).unwrap().shape(), [7, 1, 2, 3, 64]);
        assert!(session.state(1, 257).is_err() && session.state(2, 1).is_err());
        let ones = |positions: usize| {
            let shape = [7, 1, 2, positions, 64];
            Tensor::from_floats(Element::F16, &shape, vec![1.0; shape.iter().product()]).unwrap()
        };
        session.set_state(1, ones(256)).unwrap();
        assert!(session.set_state(1, ones(255)).is_err());
        assert_eq!(session.state(1, 1).unwrap().to_floats().unwrap(), vec![1.0; 7 * 2 * 64]);
    }
}
