//! Which of the checkpoint's weights a bundle holds exactly, read from the bundle itself: graph and tables.

use std::collections::{HashMap, HashSet};

use aimodel::{Element, Opcode, TensorType, ValueId};
use checkpoint::config::DecoderConfig;
use checkpoint::{LayerRole, Role};
use half::bf16;
use interpreter::Session;
use progress::Progress;
use rayon::prelude::*;
use serde::Serialize;

use super::lookups::{self, Lookup};
use super::structure::Graph;
use super::weights::matrices_by_role;
use super::{GateError, unless_cancelled};
use crate::reference::Reference;
use crate::stepper::Stepper;
use crate::tables::Tables;

/// Weights that are compared between two looks at whether to stop: a fraction of a second.
const AT_ONCE: usize = 1 << 24;
/// Weights that one thread compares at a time.
const PIECE: usize = 1 << 20;

/// How many weights of one part of the model a bundle holds exactly.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct PartExactness {
    /// The part, such as "attention".
    pub part: &'static str,
    /// Weights of the checkpoint.
    pub weights: u64,
    /// Those that are equal to what the bundle stores, code times scale, once it is rounded to bf16. Zeros of either sign are equal.
    pub weights_exact: u64,
}

/// The part that a role belongs to.
fn part(role: Role) -> &'static str {
    use LayerRole::{
        DownProj, GateProj, KProj, OProj, PerLayerInputGate, PerLayerProjection, QProj, UpProj, VProj,
    };
    match role {
        Role::Layer(_, QProj | KProj | VProj | OProj) => "attention",
        Role::Layer(_, GateProj | UpProj | DownProj) => "MLP",
        Role::Layer(_, PerLayerInputGate | PerLayerProjection) | Role::PerLayerModelProjection => {
            "per-layer inputs"
        }
        Role::EmbedTokens => "embedding",
        Role::EmbedTokensPerLayer => "per-layer table",
        Role::Head => "head",
        Role::Layer(..) | Role::PerLayerProjectionNorm | Role::FinalNorm => "norms and factors",
    }
}

/// Where a bundle holds the rows of a matrix.
enum Rows<'b> {
    /// A constant.
    Matrix(ValueId),
    /// Codes, scales, offsets of codes and offsets of values; all but the codes are of blocks.
    Blocks([ValueId; 4]),
    /// Codes that are looked up with the scales of their blocks.
    Lookup(Lookup),
    /// Codes in one table per layer, and the scale of each row.
    Columns { layers: Vec<ValueId>, scales: Vec<f32> },
    /// The folder of the tables.
    Tables(&'b Tables),
}

impl Rows<'_> {
    /// A matrix that the graph multiplies by, or takes rows of.
    fn of_matrix(graph: &Graph<'_>, matrix: ValueId) -> Self {
        match graph.maker(matrix) {
            Some(maker) if maker.opcode == Opcode::BlockwiseShiftScale => {
                maker.operands.first_chunk().map_or(Rows::Matrix(matrix), |operands| Rows::Blocks(*operands))
            }
            _ => Rows::Matrix(matrix),
        }
    }

    /// One row, with products in f32.
    fn row(&self, session: &Session, row: usize) -> Result<Vec<f32>, GateError> {
        Ok(match self {
            Rows::Matrix(matrix) => session.matrix_rows(*matrix, row, 1)?,
            Rows::Blocks(operands) => {
                let [codes, scales, code_offsets, value_offsets] =
                    operands.map(|operand| session.matrix_rows(operand, row, 1));
                dequantized(&codes?, &scales?, &code_offsets?, &value_offsets?)
            }
            Rows::Lookup(lookup) => lookup.values(session, row)?,
            Rows::Columns { layers, scales } => {
                let scale = scales.get(row).copied().unwrap_or(f32::NAN);
                let mut values = Vec::new();
                for layer in layers {
                    values.extend(session.matrix_rows(*layer, row, 1)?.into_iter().map(|code| code * scale));
                }
                values
            }
            Rows::Tables(tables) => tables.stored_row(u32::try_from(row).unwrap_or(u32::MAX))?,
        })
    }
}

/// `scale * (code - code offset) + value offset`, as Apple's dequantization is defined.
fn dequantized(codes: &[f32], scales: &[f32], code_offsets: &[f32], value_offsets: &[f32]) -> Vec<f32> {
    let block = codes.len().checked_div(scales.len()).unwrap_or(1).max(1);
    let of_block = |values: &[f32], at: usize| values.get(at / block).copied().unwrap_or(f32::NAN);
    let value = |(at, code): (usize, &f32)| {
        of_block(scales, at) * (code - of_block(code_offsets, at)) + of_block(value_offsets, at)
    };
    codes.iter().enumerate().map(value).collect()
}

/// Everything that a bundle holds, by role.
struct Contents<'b> {
    matrices: HashMap<Role, Rows<'b>>,
    /// Bits of all small constants in half precision.
    vectors: HashSet<Vec<u32>>,
}

impl<'b> Contents<'b> {
    fn new(graph: &Graph<'_>, stepper: &'b Stepper, reference: &Reference<'_>) -> Result<Self, GateError> {
        let (session, config) = (stepper.session(), reference.config());
        let mut matrices: HashMap<Role, Rows<'b>> = HashMap::new();
        for (role, matrix) in matrices_by_role(graph, config).unwrap_or_default() {
            matrices.insert(role, Rows::of_matrix(graph, matrix));
        }
        if let Some(table) = embedding(graph, config) {
            matrices.insert(Role::EmbedTokens, Rows::of_matrix(graph, table));
        }
        for (role, lookup) in lookups::by_role(graph, session, config)? {
            matrices.insert(role, Rows::Lookup(lookup));
        }
        if let Some(rows) = columns(graph, session, config) {
            matrices.insert(Role::EmbedTokensPerLayer, rows);
        }
        if let Some(tables) = stepper.tables() {
            matrices.insert(Role::EmbedTokensPerLayer, Rows::Tables(tables));
        }
        Ok(Contents { matrices, vectors: vectors(graph, session, config) })
    }
}

/// The table whose rows are the tokens' embeddings, if it is one of half precision or is dequantized before rows are taken.
fn embedding(graph: &Graph<'_>, config: &DecoderConfig) -> Option<ValueId> {
    let shape = Role::EmbedTokens.shape(config);
    graph.ops(Opcode::GatherNd).find_map(|op| {
        let table = *op.operands.first()?;
        let ty = graph.module().tensor(table)?;
        let fits = ty.element == Element::F16 && fixed(&ty).is_some_and(|found| found == shape);
        fits.then_some(table)
    })
}

/// The per-layer table as one table of 8-bit codes per layer.
fn columns<'b>(graph: &Graph<'_>, session: &Session, config: &DecoderConfig) -> Option<Rows<'b>> {
    let per_layer = config.per_layer?;
    let gathered = |element: Element, rank: usize| {
        graph.ops(Opcode::GatherAlongAxis).filter_map(move |op| {
            let table = *op.operands.first()?;
            let ty = graph.module().tensor(table)?;
            let is_constant = graph.maker(table).is_some_and(|maker| maker.opcode == Opcode::Constant);
            (is_constant && ty.element == element && ty.rank() == rank).then_some(table)
        })
    };
    let layers: Vec<ValueId> = gathered(Element::Si8, 2).collect();
    let scales = session.constant(gathered(Element::F32, 1).next()?)?.to_floats().ok()?;
    (layers.len() * per_layer.width == per_layer.total).then_some(Rows::Columns { layers, scales })
}

/// All constants that are small enough to be a norm.
fn vectors(graph: &Graph<'_>, session: &Session, config: &DecoderConfig) -> HashSet<Vec<u32>> {
    let largest = Role::needed(config)
        .filter(|role| is_vector(*role, config))
        .map(|role| role.shape(config).iter().product())
        .max()
        .unwrap_or(0);
    let bits = |value: ValueId| {
        let ty = graph.module().tensor(value)?;
        let elements: usize = fixed(&ty)?.iter().product();
        if !ty.element.is_float() || elements > largest {
            return None;
        }
        let values = session.constant(value)?.to_floats().ok()?;
        Some(values.into_iter().map(f32::to_bits).collect())
    };
    graph.ops(Opcode::Constant).filter_map(|op| bits(*op.results.first()?)).collect()
}

/// The extents of a type without dynamic ones.
fn fixed(ty: &TensorType) -> Option<Vec<usize>> {
    ty.shape.iter().map(|extent| usize::try_from(extent.fixed()?).ok()).collect()
}

fn is_vector(role: Role, config: &DecoderConfig) -> bool {
    role.shape(config).len() < 2
}

/// Compares every weight of the checkpoint with the bundle's, part by part. Weights whose place in the graph is unknown are left out.
///
/// # Errors
/// If the bundle or the checkpoint cannot be read, or `progress` is cancelled.
pub fn exactness(
    stepper: &Stepper,
    reference: &Reference<'_>,
    progress: &dyn Progress,
) -> Result<Vec<PartExactness>, GateError> {
    let graph = Graph::new(stepper.session());
    let contents = Contents::new(&graph, stepper, reference)?;
    let mut parts: Vec<PartExactness> = Vec::new();
    for role in Role::needed(reference.config()) {
        let counts = if is_vector(role, reference.config()) {
            Some(count_vector(&contents, reference, role)?)
        } else if let Some(rows) = contents.matrices.get(&role) {
            Some(count_matrix(stepper.session(), rows, reference, role, progress)?)
        } else {
            None
        };
        let Some((weights, weights_exact)) = counts else { continue };
        let part = part(role);
        match parts.iter_mut().find(|other| other.part == part) {
            Some(sum) => {
                sum.weights += weights;
                sum.weights_exact += weights_exact;
            }
            None => parts.push(PartExactness { part, weights, weights_exact }),
        }
    }
    Ok(parts)
}

/// Weights of a vector, and how many are exact: all of them if the program has a constant of these numbers, otherwise none.
fn count_vector(
    contents: &Contents<'_>,
    reference: &Reference<'_>,
    role: Role,
) -> Result<(u64, u64), GateError> {
    let expected: Vec<u32> = reference.weight_rows(role, &[0])?.into_iter().map(f32::to_bits).collect();
    let weights = expected.len() as u64;
    Ok((weights, if contents.vectors.contains(&expected) { weights } else { 0 }))
}

/// Weights of a matrix, and how many are exact.
fn count_matrix(
    session: &Session,
    rows: &Rows<'_>,
    reference: &Reference<'_>,
    role: Role,
    progress: &dyn Progress,
) -> Result<(u64, u64), GateError> {
    let shape = role.shape(reference.config());
    let (height, width) = (shape[0], shape.get(1).copied().unwrap_or(1).max(1));
    let count = |piece: &[u32]| -> Result<u64, GateError> {
        let expected = reference.weight_rows(role, piece)?;
        let mut exact = 0;
        for (row, expected) in piece.iter().zip(expected.chunks_exact(width)) {
            exact += count_exact(&rows.row(session, *row as usize)?, expected);
        }
        Ok(exact)
    };
    let all: Vec<u32> = (0..u32::try_from(height).unwrap_or(u32::MAX)).collect();
    let mut exact = 0;
    for part in all.chunks((AT_ONCE / width).max(1)) {
        unless_cancelled(progress)?;
        let counts: Result<Vec<u64>, GateError> =
            part.par_chunks((PIECE / width).max(1)).map(count).collect();
        exact += counts?.into_iter().sum::<u64>();
    }
    Ok(((height * width) as u64, exact))
}

/// How many values are those of the checkpoint after rounding to bf16.
fn count_exact(found: &[f32], expected: &[f32]) -> u64 {
    let is_exact = |(found, expected): (&f32, &f32)| bf16::from_f32(*found).to_f32() == *expected;
    if found.len() != expected.len() {
        return 0;
    }
    found.iter().zip(expected).filter(|pair| is_exact(*pair)).count() as u64
}
