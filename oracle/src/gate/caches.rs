//! The graph's caches against the configuration: which slots layers write and read, what they keep as values, and which head
//! each query head reads.

use aimodel::{Op, Opcode, ValueId};
use checkpoint::config::{CacheForm, DecoderConfig, Layer};

use super::cause::{Cause, ValueSource};
use super::structure::Graph;

/// An access to a cache, as the graph has it.
#[derive(Clone, PartialEq, Debug, Default)]
struct Access<'s> {
    /// Name of the state.
    state: Option<&'s str>,
    slot: Option<i64>,
    /// What is written, or multiplied by.
    tensor: Option<ValueId>,
}

/// An access to a cache, as the configuration calls for it.
struct Expected<'c> {
    layer: &'c Layer,
    state: &'static str,
    slot: usize,
    /// KV heads in the cache.
    kv_heads: usize,
}

/// All faults that the use of caches shows.
pub(super) fn findings(graph: &Graph<'_>, config: &DecoderConfig) -> Vec<Cause> {
    let form = form(graph, config);
    let owners = config.layers.iter().filter(|layer| layer.owns_slot());
    let (written, read) = (written(graph), read(graph));
    let writes = expected(config, form, owners);
    let reads = expected(config, form, config.layers.iter());
    let mut causes = differing(&writes, &written, "writes");
    causes.extend(differing(&reads, &read, "reads"));
    causes.extend(
        writes.iter().zip(&written).filter_map(|(expected, found)| value_source(graph, expected, found)),
    );
    causes.extend(
        writes.iter().zip(&written).filter_map(|(expected, found)| repetition(graph, expected, found)),
    );
    causes.extend(
        reads.iter().zip(&read).filter_map(|(expected, found)| sharing(graph, config, expected, found)),
    );
    causes.dedup();
    causes
}

/// The form of the caches, by the number of states.
fn form(graph: &Graph<'_>, config: &DecoderConfig) -> CacheForm {
    let has_as_many = |form: &CacheForm| 2 * config.cache_pairs(*form).len() == graph.state_count();
    CacheForm::ALL.into_iter().find(has_as_many).unwrap_or_default()
}

/// Accesses of layers, to keys and then to values.
fn expected<'c>(
    config: &'c DecoderConfig,
    form: CacheForm,
    layers: impl Iterator<Item = &'c Layer>,
) -> Vec<Expected<'c>> {
    let pairs = config.cache_pairs(form);
    let accesses = layers.flat_map(|layer| {
        let place = config.cache_place(layer, form);
        let pair = pairs.get(place.pair).copied();
        pair.into_iter().flat_map(move |pair| {
            pair.names.map(|state| Expected { layer, state, slot: place.slot, kv_heads: pair.kv_heads })
        })
    });
    accesses.collect()
}

/// Writes in program order: each owner writes its keys, then its values.
fn written<'s>(graph: &Graph<'s>) -> Vec<Access<'s>> {
    let access = |op: &Op| {
        let update = graph.operand(op, 1, Opcode::SliceUpdate);
        Access {
            state: op.operands.first().and_then(|handle| graph.state_name(*handle)),
            slot: update.and_then(|update| graph.element(update, 1, 0)),
            tensor: update.and_then(|update| update.operands.get(4).copied()),
        }
    };
    graph.ops(Opcode::WriteHandle).map(access).collect()
}

/// Reads in program order: each layer's attention multiplies by keys, then by values; both come from a slice of a cache.
fn read<'s>(graph: &Graph<'s>) -> Vec<Access<'s>> {
    graph
        .ops(Opcode::BroadcastingBatchMatmul)
        .filter_map(|op| {
            let tensor = *op.operands.get(1)?;
            let mut value = tensor;
            loop {
                let maker = graph.maker(value)?;
                let source = *maker.operands.first()?;
                match maker.opcode {
                    Opcode::Slice if state_behind(graph, source).is_some() => {
                        let (state, slot) = (state_behind(graph, source), graph.element(maker, 1, 0));
                        return Some(Access { state, slot, tensor: Some(tensor) });
                    }
                    Opcode::Slice
                    | Opcode::Reshape
                    | Opcode::Transpose
                    | Opcode::BroadcastTo
                    | Opcode::GatherAlongAxis
                    | Opcode::ShrinkDims => value = source,
                    _ => return None,
                }
            }
        })
        .collect()
}

/// The state whose contents a value is, with or without what this call has written.
fn state_behind<'s>(graph: &Graph<'s>, mut value: ValueId) -> Option<&'s str> {
    loop {
        let maker = graph.maker(value)?;
        let source = *maker.operands.first()?;
        match maker.opcode {
            Opcode::ReadHandle => return graph.state_name(source),
            Opcode::SliceUpdate => value = source,
            _ => return None,
        }
    }
}

fn differing(expected: &[Expected<'_>], found: &[Access<'_>], does: &'static str) -> Vec<Cause> {
    let found = found.iter().cloned().chain(std::iter::repeat(Access::default()));
    let mut causes: Vec<Cause> = Vec::new();
    for (Expected { layer, state, slot, .. }, found) in expected.iter().zip(found) {
        if found.slot != i64::try_from(*slot).ok() {
            causes.push(Cause::CacheSlot { layer: layer.index, does, found: found.slot, expected: *slot });
        } else if found.state != Some(*state) {
            let found = found.state.unwrap_or_default().to_owned();
            causes.push(Cause::CacheState { layer: layer.index, does, found, expected: state });
        }
    }
    causes.dedup();
    causes
}

/// Values that are projected keys must be taken before the keys' norm and rotation.
fn value_source(graph: &Graph<'_>, expected: &Expected<'_>, found: &Access<'_>) -> Option<Cause> {
    let is_of_values = expected.state.starts_with("value");
    let tensor = found.tensor.filter(|_| is_of_values && expected.layer.values_from_keys)?;
    // The values' own norm: `wide * factor`, computed in f32.
    let product = behind(
        graph,
        tensor,
        &[Opcode::Cast, Opcode::Reshape, Opcode::BroadcastInDims, Opcode::ExpandDims, Opcode::Pad],
    )?;
    let product = graph.maker(product).filter(|op| op.opcode == Opcode::BroadcastingMul)?;
    let source =
        behind(graph, *product.operands.first()?, &[Opcode::Cast, Opcode::Reshape, Opcode::Transpose])?;
    let found = match graph.maker(source)?.opcode {
        Opcode::BroadcastingMul => ValueSource::NormedKeys,
        Opcode::Concat => ValueSource::RotatedKeys,
        _ => return None,
    };
    Some(Cause::Values { layer: expected.layer.index, found })
}

/// The value behind ops of these kinds, each of which passes its first operand on.
fn behind(graph: &Graph<'_>, mut value: ValueId, passing: &[Opcode]) -> Option<ValueId> {
    loop {
        let Some(maker) = graph.maker(value).filter(|op| passing.contains(&op.opcode)) else {
            return Some(value);
        };
        value = *maker.operands.first()?;
    }
}

/// Where a layer has fewer heads than its cache, each is repeated for consecutive heads of the cache.
fn repetition(graph: &Graph<'_>, expected: &Expected<'_>, found: &Access<'_>) -> Option<Cause> {
    let layer = expected.layer;
    if layer.kv_heads == expected.kv_heads {
        return None;
    }
    let repeated = behind(graph, found.tensor?, &[Opcode::Reshape])?;
    let is_right = graph.maker(repeated).is_some_and(|op| {
        let axes = op.operands.get(2).and_then(|axes| graph.known(*axes));
        let repetitions = op.operands.get(1).and_then(|sizes| graph.known(*sizes));
        op.opcode == Opcode::BroadcastInDims
            && axes == Some(vec![2])
            && repetitions == i64::try_from(expected.kv_heads / layer.kv_heads).ok().map(|count| vec![count])
    });
    (!is_right).then_some(Cause::HeadRepetition {
        layer: layer.index,
        heads: layer.kv_heads,
        cached: expected.kv_heads,
    })
}

/// Consecutive query heads share a head of the cache.
fn sharing(
    graph: &Graph<'_>,
    config: &DecoderConfig,
    expected: &Expected<'_>,
    found: &Access<'_>,
) -> Option<Cause> {
    let gathered = behind(graph, found.tensor?, &[Opcode::Transpose, Opcode::BroadcastTo, Opcode::Reshape])?;
    let gather = graph.maker(gathered).filter(|op| op.opcode == Opcode::GatherAlongAxis)?;
    let indices = behind(graph, *gather.operands.get(1)?, &[Opcode::BroadcastInDims])?;
    let indices = graph.integers(indices)?;
    let shared_by = config.heads / expected.kv_heads;
    let wrong = indices
        .iter()
        .enumerate()
        .find(|(head, index)| i64::try_from(head / shared_by).ok() != Some(**index));
    wrong.map(|(head, index)| Cause::HeadSharing {
        layer: expected.layer.index,
        head,
        found: *index,
        expected: head / shared_by,
    })
}
