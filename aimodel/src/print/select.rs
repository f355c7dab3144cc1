//! Picks the ops of a graph that a part of a listing shows.

use std::collections::HashSet;

use crate::attribute::Attribute;
use crate::module::{BlockId, Definition, Module, Op, OpId, ValueId};
use crate::opcode::Opcode;

/// Key of the blob behind a value, if a constant op promises one.
fn blob_key(module: &Module, value: ValueId) -> Option<&str> {
    match module.constant(value)? {
        Attribute::DenseResource(resource) => Some(&module.resource(*resource).key),
        _ => None,
    }
}

/// Number of the layer in a key such as `layers.5.mlp.up_proj.weight/codes`.
fn layer_of(key: &str) -> Option<u64> {
    key.strip_prefix("layers.")?.split_once('.')?.0.parse().ok()
}

/// The constant op that makes a value, if one does.
fn constant_op(module: &Module, value: ValueId) -> Option<OpId> {
    match module.value(value).definition {
        Definition::Result { op, .. } => Some(op).filter(|op| module.op(*op).opcode == Opcode::Constant),
        Definition::Argument { .. } => None,
    }
}

/// Ops from the first use of a layer's blobs to the first use of a later layer's, and the constants that they use.
pub(super) fn layer(module: &Module, block: BlockId, layer: u64) -> HashSet<OpId> {
    let ops: Vec<(OpId, Vec<&str>)> = module
        .block(block)
        .ops
        .iter()
        .filter(|id| module.op(**id).opcode != Opcode::Constant)
        .map(|id| {
            (*id, module.op(*id).operands.iter().filter_map(|value| blob_key(module, *value)).collect())
        })
        .collect();
    let layers = |keys: &[&str]| keys.iter().filter_map(|key| layer_of(key)).collect::<Vec<_>>();
    let Some(start) = ops.iter().position(|(_, keys)| layers(keys).contains(&layer)) else {
        return HashSet::new();
    };
    let before: HashSet<&str> = ops[..start].iter().flat_map(|(_, keys)| keys).copied().collect();
    let later = |keys: &[&str]| layers(keys).iter().any(|other| *other > layer);
    // The final norm and the head follow the last layer.
    let beyond = |keys: &[&str]| keys.iter().any(|key| !key.contains("layers.") && !before.contains(key));
    let rest = &ops[start..];
    let end = rest.iter().position(|(_, keys)| later(keys));
    let end = end.or_else(|| rest.iter().position(|(_, keys)| beyond(keys))).unwrap_or(rest.len());
    let mut selected = HashSet::new();
    for (id, _) in &rest[..end] {
        select_with_constants(module, *id, module.op(*id), &mut selected);
    }
    selected
}

fn select_with_constants(module: &Module, id: OpId, op: &Op, selected: &mut HashSet<OpId>) {
    selected.insert(id);
    selected.extend(op.operands.iter().filter_map(|value| constant_op(module, *value)));
}

/// Constants whose key contains `text`, ops that compute from them and from other constants only, and the ops that combine the results
/// with anything else.
pub(super) fn weights(module: &Module, block: BlockId, text: &str) -> HashSet<OpId> {
    let mut selected = HashSet::new();
    let mut constant: HashSet<ValueId> = HashSet::new();
    let mut touched: HashSet<ValueId> = HashSet::new();
    for id in &module.block(block).ops {
        let op = module.op(*id);
        if op.opcode == Opcode::Constant {
            constant.extend(&op.results);
            let found = |value: &&ValueId| blob_key(module, **value).is_some_and(|key| key.contains(text));
            let before = touched.len();
            touched.extend(op.results.iter().filter(found));
            selected.extend(Some(*id).filter(|_| touched.len() > before));
            continue;
        }
        let only_constants = op.opcode.is_pure() && op.operands.iter().all(|value| constant.contains(value));
        if only_constants {
            constant.extend(&op.results);
        }
        if op.operands.iter().any(|value| touched.contains(value)) {
            select_with_constants(module, *id, op, &mut selected);
            if only_constants {
                touched.extend(&op.results);
            }
        }
    }
    selected
}
