//! Compares samples of the graph's matrices and of the tables' rows with the checkpoint.

use aimodel::{Opcode, ValueId};
use checkpoint::Role;
use checkpoint::config::DecoderConfig;
use interpreter::Session;

use super::GateError;
use super::cause::Cause;
use super::structure::Graph;
use crate::reference::Reference;
use crate::score::{cosine, norm, relative_error};
use crate::tables::Tables;

/// Rows of each matrix that are compared.
const SAMPLED_ROWS: usize = 6;
/// Largest relative error of a matrix that rounding explains: 4 bits without a lattice give 0.1.
pub(super) const ROUNDING: f64 = 0.3;
/// Two samples with a cosine above this are the same weights, except for their scales.
pub(super) const ALIKE: f64 = 0.8;
/// Largest relative error of a row of the tables that rounding explains: 8 bits with one scale per row give 0.01.
const TABLE_ROUNDING: f64 = 0.05;

/// Matrices in the order in which the graph multiplies by them, which is the model's.
fn roles(config: &DecoderConfig) -> Vec<Role> {
    Role::needed(config).filter(|role| role.is_projection()).collect()
}

/// Weights `[n, k]` that the graph multiplies by, transposed, in program order.
fn matrices(graph: &Graph<'_>) -> Vec<ValueId> {
    graph
        .ops(Opcode::BroadcastingBatchMatmul)
        .filter_map(|op| {
            let source = *graph.operand(op, 1, Opcode::Transpose)?.operands.first()?;
            let stored =
                matches!(graph.maker(source)?.opcode, Opcode::BlockwiseShiftScale | Opcode::Constant);
            stored.then_some(source)
        })
        .collect()
}

/// The matrices by role, or the fault that there are more or fewer than the model has.
pub(super) fn matrices_by_role(
    graph: &Graph<'_>,
    config: &DecoderConfig,
) -> Result<Vec<(Role, ValueId)>, Cause> {
    let (matrices, roles) = (matrices(graph), roles(config));
    if matrices.len() != roles.len() {
        return Err(Cause::MatrixCount { found: matrices.len(), expected: roles.len() });
    }
    Ok(roles.into_iter().zip(matrices).collect())
}

/// Compares samples of all matrices.
pub(super) fn findings(
    graph: &Graph<'_>,
    session: &Session,
    reference: &Reference<'_>,
) -> Result<Vec<Cause>, GateError> {
    let matrices = match matrices_by_role(graph, reference.config()) {
        Ok(matrices) => matrices,
        Err(cause) => return Ok(vec![cause]),
    };
    let roles: Vec<Role> = matrices.iter().map(|(role, _)| *role).collect();
    let mut causes = Vec::new();
    for (role, matrix) in matrices {
        let shape = role.shape(reference.config());
        let sample = Sample::of(&shape);
        let found = sample.taken(session, matrix)?;
        let expected = reference.weight_rows(role, &sample.rows)?;
        if found.len() != expected.len() {
            let matrix = role.short_name();
            causes.push(Cause::ForeignWeights { matrix, relative_error: f64::INFINITY });
        } else if relative_error(&found, &expected) > ROUNDING {
            causes.push(explain(role, &found, &expected, &sample, &roles, reference)?);
        }
    }
    Ok(causes)
}

/// A few rows of a matrix, evenly spaced.
pub(super) struct Sample {
    rows: Vec<u32>,
}

impl Sample {
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    pub(super) fn of(shape: &[usize]) -> Sample {
        let height = shape.first().copied().unwrap_or(0);
        let count = SAMPLED_ROWS.min(height);
        let row = |at: usize| u32::try_from(at * height / count).unwrap_or(u32::MAX);
        Sample { rows: (0..count).map(row).collect() }
    }

    fn taken(&self, session: &Session, matrix: ValueId) -> Result<Vec<f32>, GateError> {
        let mut values = Vec::new();
        for row in &self.rows {
            values.extend(session.matrix_rows(matrix, *row as usize, 1)?);
        }
        Ok(values)
    }
}

/// Finds out why a matrix differs.
fn explain(
    role: Role,
    found: &[f32],
    expected: &[f32],
    sample: &Sample,
    roles: &[Role],
    reference: &Reference<'_>,
) -> Result<Cause, GateError> {
    let matrix = role.short_name();
    if cosine(found, expected) > ALIKE {
        return Ok(Cause::WrongScale { matrix, factor: norm(found) / norm(expected) });
    }
    let exchanged: Vec<f32> = found.as_chunks::<2>().0.iter().flat_map(|[low, high]| [*high, *low]).collect();
    if cosine(&exchanged, expected) > ALIKE {
        return Ok(Cause::SwappedNibbles { matrix });
    }
    let shape = role.shape(reference.config());
    for other in roles.iter().filter(|other| **other != role && other.shape(reference.config()) == shape) {
        if cosine(found, &reference.weight_rows(*other, &sample.rows)?) > ALIKE {
            return Ok(Cause::SwappedWeights { used_as: matrix, belongs_to: other.short_name() });
        }
    }
    Ok(Cause::ForeignWeights { matrix, relative_error: relative_error(found, expected) })
}

/// Compares the tables' rows of some tokens.
pub(super) fn table_findings(
    tables: &Tables,
    tokens: &[u32],
    reference: &Reference<'_>,
) -> Result<Option<Cause>, GateError> {
    let Some(per_layer) = reference.config().per_layer else { return Ok(None) };
    let scale = (per_layer.width as f32).sqrt();
    for token in tokens {
        let mut expected = reference.weight_rows(Role::EmbedTokensPerLayer, &[*token])?;
        expected.iter_mut().for_each(|value| *value *= scale);
        let found = tables.row(*token)?;
        let silent = norm(&expected) == 0.0 && norm(&found) == 0.0;
        let relative_error = relative_error(&found, &expected);
        if !silent && (found.len() != expected.len() || relative_error > TABLE_ROUNDING) {
            return Ok(Some(Cause::ForeignTables { token: *token, relative_error }));
        }
    }
    Ok(None)
}
