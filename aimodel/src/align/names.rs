//! Names for blobs that have none, from a corresponding graph.

use std::collections::HashMap;

use super::{Graph, Step, align};
use crate::attribute::{Attribute, ResourceId};
use crate::module::{Module, ValueId};

/// Gives blobs of a module the keys of the blobs that ops of another module use in the same places, and returns how many got one.
/// Apple's own exports have digests for keys. A key that is taken stays with its blob.
pub fn adopt_names(module: &mut Module, named: &Module) -> usize {
    let mut keys: HashMap<ResourceId, String> = HashMap::new();
    let mut found: Vec<ResourceId> = Vec::new();
    let others = Graph::all(named);
    let others: HashMap<&str, &Graph<'_>> = others.iter().rev().map(|other| (other.name(), other)).collect();
    for graph in Graph::all(module) {
        let Some(other) = others.get(graph.name()) else { continue };
        for step in align(&graph, other) {
            let Step::Both { left, right, .. } = step else { continue };
            let (ours, theirs) = (&module.op(left).operands, &named.op(right).operands);
            for (ours, theirs) in ours.iter().zip(theirs) {
                if let (Some(id), Some(like)) = (blob(module, *ours), blob(named, *theirs))
                    && !keys.contains_key(&id)
                {
                    keys.insert(id, named.resource(like).key.clone());
                    found.push(id);
                }
            }
        }
    }
    let mut renamed = 0;
    for id in found {
        let Some(key) = keys.remove(&id).filter(|key| module.find_resource(key).is_none()) else { continue };
        module.rename_resource(id, key);
        renamed += 1;
    }
    renamed
}

fn blob(module: &Module, value: ValueId) -> Option<ResourceId> {
    match module.constant(value)? {
        Attribute::DenseResource(id) => Some(*id),
        _ => None,
    }
}
