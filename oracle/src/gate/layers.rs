//! The residual stream after each layer, in the bundle and in the reference.

use std::collections::HashMap;

use aimodel::{OpId, Opcode};
use serde::Serialize;

use super::GateError;
use super::structure::Graph;
use crate::reference::Reference;
use crate::score::relative_error;
use crate::stepper::Stepper;

/// A layer departs from the reference if its error exceeds the previous layer's by more than this ...
const STEP: f64 = 0.1;
/// ... and is more than this many times as large.
const GROWTH: f64 = 2.0;

/// How much a layer's result differs from the reference's.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct LayerError {
    /// The layer.
    pub layer: usize,
    /// Mean over the positions of the norm of the difference, relative to the norm of the reference's result.
    pub mean_error: f64,
    /// The largest such error of a position.
    pub worst_error: f64,
    /// The position of the largest error.
    pub worst_position: usize,
}

/// Errors of all layers, and the first that departs.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct LayerReport {
    /// All layers, in order.
    pub layers: Vec<LayerError>,
    /// The first layer whose error is much larger than the previous layer's.
    pub first_departing: Option<usize>,
}

/// Multiplications of the stream by a layer's factor, the only constants of shape `[1]` in the graph.
fn layer_results(graph: &Graph<'_>) -> HashMap<OpId, usize> {
    let module = graph.module();
    let factor = |value| {
        let tensor = module.tensor(value).filter(|_| module.constant(value).is_some());
        tensor.is_some_and(|tensor| {
            tensor.rank() == 1 && tensor.elements() == Some(1) && tensor.element.is_float()
        })
    };
    let results =
        graph.ops(Opcode::BroadcastingMul).filter(|op| op.operands.get(1).is_some_and(|at| factor(*at)));
    let makers = results.filter_map(|op| match module.value(*op.results.first()?).definition {
        aimodel::Definition::Result { op, .. } => Some(op),
        aimodel::Definition::Argument { .. } => None,
    });
    makers.enumerate().map(|(layer, op)| (op, layer)).collect()
}

/// Feeds a sequence to both and compares all layers at all positions.
pub(super) fn compare(
    stepper: &mut Stepper,
    reference: &mut Reference<'_>,
    tokens: &[u32],
) -> Result<LayerReport, GateError> {
    let results = layer_results(&Graph::new(stepper.session()));
    let count = reference.config().layers.len();
    if results.len() != count {
        return Err(GateError::Layers { found: results.len(), expected: count });
    }
    reference.reset();
    let mut expected: Vec<Vec<f32>> = Vec::with_capacity(count);
    reference.feed(tokens, &mut |_, stream| expected.push(stream.to_vec()))?;
    let width = reference.config().hidden;
    let mut errors = vec![Vec::with_capacity(tokens.len()); count];
    stepper.reset()?;
    for (at, token) in tokens.iter().enumerate() {
        stepper.feed_observed(*token, &mut |op, _, tensor| {
            if let (Some(layer), Ok(found)) = (results.get(&op), tensor.to_floats()) {
                let expected = &expected[*layer][at * width..(at + 1) * width];
                errors[*layer].push(relative_error(&found, expected));
            }
        })?;
    }
    Ok(report(&errors))
}

fn report(errors: &[Vec<f64>]) -> LayerReport {
    let layers: Vec<LayerError> = errors
        .iter()
        .enumerate()
        .map(|(layer, errors)| {
            let worst = errors.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            let (worst_position, worst_error) = worst.unwrap_or((0, 0.0));
            let mean_error = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
            LayerError { layer, mean_error, worst_error, worst_position }
        })
        .collect();
    let before = std::iter::once(0.0).chain(layers.iter().map(|layer| layer.worst_error));
    let first_departing = layers
        .iter()
        .zip(before)
        .find(|(layer, before)| layer.worst_error - before > STEP && layer.worst_error > GROWTH * before)
        .map(|(layer, _)| layer.layer);
    LayerReport { layers, first_departing }
}
