//! Compares the graph's constants with the configuration: window, rotary frequencies, cache slots, soft cap.

use aimodel::infer::Known;
use aimodel::view::Function;
use aimodel::{Definition, Module, Op, OpId, Opcode, ValueId};
use checkpoint::config::{DecoderConfig, LayerKind};
use interpreter::Session;

use super::caches;
use super::cause::Cause;

/// Largest relative difference of two frequencies that count as equal.
const SAME_FREQUENCY: f32 = 1e-4;

/// A package's `main`, whose constants can be looked up.
pub(super) struct Graph<'s> {
    session: &'s Session,
    known: Known,
    ops: Vec<OpId>,
    /// Handles of the states, with their names.
    states: Vec<(ValueId, &'s str)>,
}

impl<'s> Graph<'s> {
    pub(super) fn new(session: &'s Session) -> Self {
        let module = session.module();
        let ops = module.block(session.body()).ops.clone();
        let mut known = Known::new();
        ops.iter().for_each(|op| known.learn(module, *op));
        let functions = Function::all(module).flatten();
        let main = functions.filter(|function| function.body == session.body());
        let states = main.flat_map(|function| {
            let states: Vec<_> =
                function.states().filter_map(|port| Some((port.value, port.name?))).collect();
            states
        });
        Graph { session, known, states: states.collect(), ops }
    }

    pub(super) fn module(&self) -> &'s Module {
        self.session.module()
    }

    /// Ops of a kind, in program order.
    pub(super) fn ops(&self, opcode: Opcode) -> impl Iterator<Item = &'s Op> {
        let module = self.module();
        self.ops.iter().map(move |op| module.op(*op)).filter(move |op| op.opcode == opcode)
    }

    /// The op that computes a value.
    pub(super) fn maker(&self, value: ValueId) -> Option<&'s Op> {
        match self.module().value(value).definition {
            Definition::Result { op, .. } => Some(self.module().op(op)),
            Definition::Argument { .. } => None,
        }
    }

    /// The op that computes an operand, if it is of this kind.
    pub(super) fn operand(&self, op: &Op, at: usize, opcode: Opcode) -> Option<&'s Op> {
        self.maker(*op.operands.get(at)?).filter(|maker| maker.opcode == opcode)
    }

    pub(super) fn floats(&self, value: ValueId) -> Option<Vec<f32>> {
        self.session.constant(value)?.to_floats().ok()
    }

    /// Element `at` of an integer vector operand, if it is known.
    pub(super) fn element(&self, op: &Op, operand: usize, at: usize) -> Option<i64> {
        *self.known.elements(*op.operands.get(operand)?)?.get(at)?
    }

    /// Elements of a small integer vector, if all are known.
    pub(super) fn known(&self, value: ValueId) -> Option<Vec<i64>> {
        self.known.all(value)
    }

    /// Elements of a constant of integers.
    pub(super) fn integers(&self, value: ValueId) -> Option<Vec<i64>> {
        self.session.constant(value)?.to_integers().ok()
    }

    /// Name of the state that a handle stands for.
    pub(super) fn state_name(&self, handle: ValueId) -> Option<&'s str> {
        self.states.iter().find(|(value, _)| *value == handle).map(|(_, name)| *name)
    }

    /// Number of states.
    pub(super) fn state_count(&self) -> usize {
        self.states.len()
    }
}

/// All faults that the constants show.
pub(super) fn findings(graph: &Graph<'_>, config: &DecoderConfig) -> Vec<Cause> {
    let mut causes = Vec::new();
    causes.extend(window(graph, config));
    causes.extend(rotary(graph, config));
    causes.extend(caches::findings(graph, config));
    causes.extend(softcap(graph, config));
    causes
}

/// Checks the width of the sliding window, which is found by how the mask uses it.
///
/// In graphs that take one token at a time, the mask subtracts the width plus 1 from the number of positions; the other such
/// subtraction, of 1, gives the token's position. In graphs that take any number of tokens, the mask subtracts the width from the
/// position of the first token, which is the result of another subtraction.
fn window(graph: &Graph<'_>, config: &DecoderConfig) -> Option<Cause> {
    if !config.layers.iter().any(|layer| layer.kind == LayerKind::Sliding) {
        return None;
    }
    let widths = graph.ops(Opcode::BroadcastingSub).filter_map(|op| {
        let amount = *op.operands.get(1)?;
        let scalar = graph.module().tensor(amount)?.rank() == 0;
        let amount = graph.known.all(amount).filter(|_| scalar)?.first().copied()?;
        if graph.operand(op, 0, Opcode::BroadcastingSub).is_some() {
            return Some(amount);
        }
        graph.operand(op, 0, Opcode::Slice).filter(|_| amount != 1).map(|_| amount - 1)
    });
    let found = widths.into_iter().next();
    let expected = config.sliding_window;
    (found != i64::try_from(expected).ok()).then_some(Cause::Window { found, expected })
}

fn rotary(graph: &Graph<'_>, config: &DecoderConfig) -> Vec<Cause> {
    let kinds = [LayerKind::Sliding, LayerKind::Full];
    let expected = kinds.map(|kind| {
        let rope = config.rope(kind);
        let width = if kind == LayerKind::Sliding { config.head_dim } else { config.global_head_dim };
        let frequency = |pair: usize| match pair < rope.rotary_pairs {
            true => libm::pow(rope.theta, -2.0 * pair as f64 / width as f64) as f32,
            false => 0.0,
        };
        (0..width / 2).map(frequency).collect::<Vec<f32>>()
    });
    let mut causes = Vec::new();
    for op in graph.ops(Opcode::Cos) {
        let product = graph.operand(op, 0, Opcode::BroadcastingMul);
        let found = product.and_then(|op| op.operands.iter().find_map(|operand| graph.floats(*operand)));
        let Some(found) = found else { continue };
        if !expected.iter().any(|expected| same(&found, expected)) {
            let second = f64::from(found.get(1).copied().unwrap_or(1.0));
            let base = libm::pow(second, -(found.len() as f64));
            causes
                .push(Cause::RotaryBase { found: base, expected: kinds.map(|kind| config.rope(kind).theta) });
        }
    }
    causes
}

fn same(found: &[f32], expected: &[f32]) -> bool {
    let close = |(a, b): (&f32, &f32)| (a - b).abs() <= SAME_FREQUENCY * b.abs();
    found.len() == expected.len() && found.iter().zip(expected).all(close)
}

/// The logits are `tanh(x / cap) * cap`.
fn softcap(graph: &Graph<'_>, config: &DecoderConfig) -> Option<Cause> {
    let logits = graph.ops(Opcode::Output).next()?.operands.last().copied();
    let cap = || {
        let product = graph.maker(logits?).filter(|op| op.opcode == Opcode::BroadcastingMul)?;
        let tanh = graph.operand(product, 0, Opcode::Tanh)?;
        let quotient = graph.operand(tanh, 0, Opcode::BroadcastingDivide)?;
        let scalar = |op: &Op| graph.floats(*op.operands.get(1)?)?.first().copied();
        let (divisor, factor) = (scalar(quotient)?, scalar(product)?);
        (divisor == factor).then(|| f64::from(factor))
    };
    let found = cap();
    let matches = found.is_some_and(|found| (found - config.softcap).abs() <= 1e-3 * config.softcap);
    (!matches).then_some(Cause::Softcap { found, expected: config.softcap })
}
