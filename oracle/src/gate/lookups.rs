//! Compares rows that the graph looks up as codes times scales of blocks with the checkpoint.

use aimodel::{Op, Opcode, ValueId};
use checkpoint::config::DecoderConfig;
use checkpoint::{BLOCK, Role};
use interpreter::Session;

use super::GateError;
use super::cause::Cause;
use super::structure::Graph;
use super::weights::{self, Sample};
use crate::reference::Reference;
use crate::score::{cosine, relative_error};

/// Least cosine between the codes and the checkpoint's weights of one block: scales do not change it.
const SAME_CODES: f64 = 0.9;

/// Rows of a table that the graph multiplies by their blocks' scales.
pub(super) struct Lookup {
    /// Codes, or bytes of two codes each: `[V, ..]`.
    table: ValueId,
    /// f16 `[V, k / 32]`.
    scales: ValueId,
    /// The two codes of each byte, where bytes are looked up: `[256, 2]`.
    pairs: Option<Vec<f32>>,
    /// Whether codes and scales are of the same rows.
    same_rows: bool,
}

/// The op that made a value, seen through ops that only change its shape or type.
fn source<'s>(graph: &Graph<'s>, mut value: ValueId) -> Option<&'s Op> {
    loop {
        let op = graph.maker(value)?;
        let passes = matches!(
            op.opcode,
            Opcode::Reshape | Opcode::Slice | Opcode::Cast | Opcode::ExpandDims | Opcode::ShrinkDims
        );
        if !passes {
            return Some(op);
        }
        value = *op.operands.first()?;
    }
}

/// The gather of constant rows that made a value.
fn gather<'s>(graph: &Graph<'s>, value: ValueId) -> Option<&'s Op> {
    let op = source(graph, value).filter(|op| op.opcode == Opcode::GatherNd)?;
    graph.maker(*op.operands.first()?).filter(|maker| maker.opcode == Opcode::Constant).map(|_| op)
}

/// What a product of codes and scales looks up.
fn lookup(graph: &Graph<'_>, product: &Op) -> Option<Lookup> {
    let [codes, scales] = product.operands[..] else { return None };
    let (outer, scales) = (gather(graph, codes)?, gather(graph, scales)?);
    let inner = gather(graph, *outer.operands.get(1)?);
    let pairs = inner.and_then(|_| graph.floats(outer.operands[0]));
    let codes = inner.unwrap_or(outer);
    let same_rows = codes.operands.get(1) == scales.operands.get(1);
    Some(Lookup { table: codes.operands[0], scales: scales.operands[0], pairs, same_rows })
}

impl Lookup {
    /// Codes and scales of one row.
    fn row(&self, session: &Session, row: usize) -> Result<(Vec<f32>, Vec<f32>), GateError> {
        let stored = session.matrix_rows(self.table, row, 1)?;
        let scales = session.matrix_rows(self.scales, row, 1)?;
        let Some(pairs) = &self.pairs else { return Ok((stored, scales)) };
        let of_byte = |byte: f32| pairs.get(2 * byte as usize..).and_then(|pairs| pairs.first_chunk::<2>());
        let codes = stored.into_iter().flat_map(|byte| of_byte(byte).copied().unwrap_or([f32::NAN; 2]));
        Ok((codes.collect(), scales))
    }

    /// One row, each code times its block's scale.
    pub(super) fn values(&self, session: &Session, row: usize) -> Result<Vec<f32>, GateError> {
        let (codes, scales) = self.row(session, row)?;
        Ok(scaled(&codes, &scales))
    }
}

fn scaled(codes: &[f32], scales: &[f32]) -> Vec<f32> {
    let scale = |at: usize| scales.get(at / BLOCK).copied().unwrap_or(f32::NAN);
    codes.iter().enumerate().map(|(at, code)| code * scale(at)).collect()
}

/// All tables that are looked up like this: the embedding, and the per-layer table.
pub(super) fn by_role(
    graph: &Graph<'_>,
    session: &Session,
    config: &DecoderConfig,
) -> Result<Vec<(Role, Lookup)>, GateError> {
    let tables = [Role::EmbedTokens, Role::EmbedTokensPerLayer].into_iter();
    let tables: Vec<Role> =
        tables.filter(|role| config.per_layer.is_some() || !role.is_per_layer()).collect();
    let mut found = Vec::new();
    for lookup in graph.ops(Opcode::BroadcastingMul).filter_map(|op| lookup(graph, op)) {
        let width = lookup.row(session, 0)?.0.len();
        let role = tables.iter().find(|role| role.shape(config).last() == Some(&width));
        found.extend(role.map(|role| (*role, lookup)));
    }
    Ok(found)
}

/// Compares samples of these tables.
pub(super) fn findings(
    graph: &Graph<'_>,
    session: &Session,
    reference: &Reference<'_>,
) -> Result<Vec<Cause>, GateError> {
    let mut causes = Vec::new();
    for (role, lookup) in by_role(graph, session, reference.config())? {
        causes.extend(finding(&lookup, role, session, reference)?);
    }
    Ok(causes)
}

fn finding(
    lookup: &Lookup,
    role: Role,
    session: &Session,
    reference: &Reference<'_>,
) -> Result<Option<Cause>, GateError> {
    let sample = Sample::of(&role.shape(reference.config()));
    let (mut codes, mut found) = (Vec::new(), Vec::new());
    for row in sample.rows() {
        let (of_row, scales) = lookup.row(session, *row as usize)?;
        found.extend(scaled(&of_row, &scales));
        codes.extend(of_row);
    }
    let expected = reference.weight_rows(role, sample.rows())?;
    let matrix = role.short_name();
    if !lookup.same_rows {
        return Ok(Some(Cause::ForeignScales { matrix }));
    }
    if found.len() == expected.len() && relative_error(&found, &expected) <= weights::ROUNDING {
        return Ok(None);
    }
    let exchanged: Vec<f32> = found.as_chunks::<2>().0.iter().flat_map(|[low, high]| [*high, *low]).collect();
    Ok(Some(if found.len() == expected.len() && cosine(&exchanged, &expected) > weights::ALIKE {
        Cause::SwappedNibbles { matrix }
    } else if same_codes(&codes, &expected) {
        Cause::ForeignScales { matrix }
    } else {
        Cause::ForeignWeights { matrix, relative_error: relative_error(&found, &expected) }
    }))
}

/// Whether most blocks have the checkpoint's codes, whatever their scales.
fn same_codes(codes: &[f32], expected: &[f32]) -> bool {
    let blocks = codes.as_chunks::<BLOCK>().0.iter().zip(expected.as_chunks::<BLOCK>().0);
    let (mut alike, mut all) = (0, 0);
    for (codes, expected) in blocks {
        if expected.iter().any(|value| *value != 0.0) {
            all += 1;
            alike += usize::from(cosine(codes, expected) > SAME_CODES);
        }
    }
    codes.len() == expected.len() && 2 * alike > all
}
