//! A package: inputs, outputs, ops, blobs.

use std::collections::BTreeMap;
use std::path::Path;

use ::oracle::bundle::BundlePaths;
use aimodel::align::adopt_names;
use aimodel::describe::describe_type_within;
use aimodel::print::{Listing, Part};
use aimodel::{Attribute, Module, OpId, Opcode};
use anyhow::bail;
use serde_json::{Value, json};
use text::terminal::word;

use super::{Lines, Report, Shown, weights};
use crate::digits;
use crate::weights::Program;

/// Bytes of a type, in text and JSON: that of a tensor of 16 axes is far below it.
const LONGEST_TYPE: usize = 512;

pub(super) fn inspect(path: &Path, shown: &Shown) -> anyhow::Result<Report> {
    let mut program = Program::open(path)?;
    if let Some(other) = &shown.names {
        take_names(&mut program, path, other)?;
    }
    let package = &program.package;
    let module = &package.bytecode.module;
    let mut lines = Lines::default();
    lines.title(format_args!("package {}", path.display()));
    let producer = package.metadata.as_ref().and_then(|metadata| metadata.producer.clone());
    lines.field("producer", producer.as_deref().unwrap_or("not stated"));
    lines.field("program", digits::bytes(package.bytecode.length));
    let graphs: Vec<Value> =
        module.graphs().into_iter().map(|graph| inspect_graph(module, graph, &mut lines)).collect();
    let blob_bytes: u64 = package.bytecode.blobs.iter().map(|blob| blob.length).sum();
    lines.field("blobs", format!("{}, {}", package.bytecode.blobs.len(), digits::bytes(blob_bytes)));
    let blobs: Vec<Value> = module
        .resources()
        .zip(&package.bytecode.blobs)
        .map(|(resource, blob)| json!({"key": resource.key, "offset": blob.offset, "bytes": blob.length}))
        .collect();
    if shown.blobs {
        for (resource, blob) in module.resources().zip(&package.bytecode.blobs) {
            let (offset, bytes) = (digits::grouped(blob.offset), digits::grouped(blob.length));
            lines.add(format!("{offset:>15} {bytes:>13}  {}", word(&resource.key)));
        }
    }
    let listing = shown.graph.then(|| listing(path, module, shown)).transpose()?;
    lines.0.push_str(listing.as_deref().unwrap_or_default());
    let statistics = shown.weights.then(|| weights::read(&program)).transpose()?;
    if let Some(statistics) = &statistics {
        lines.0.push_str(&weights::text(statistics));
    }
    let mut json = json!({
        "kind": "package",
        "producer": producer,
        "bytes": package.bytecode.length,
        "graphs": graphs,
        "blob_bytes": blob_bytes,
        "blobs": blobs,
    });
    if let Some(listing) = listing {
        json["listing"] = listing.lines().collect();
    }
    if let Some(statistics) = statistics {
        json["weights"] = serde_json::to_value(statistics)?;
    }
    Ok(Report { text: lines.0, json })
}

/// Names weights after those of another package.
pub(super) fn take_names(program: &mut Program, path: &Path, other: &Path) -> anyhow::Result<()> {
    let named = Program::open(&BundlePaths::find(other)?.package)?;
    if adopt_names(&mut program.package.bytecode.module, &named.bytecode().module) == 0 {
        bail!("{}: none of its weights is used as one of {}", path.display(), other.display());
    }
    Ok(())
}

/// The ops as text: all, or those of a layer.
fn listing(path: &Path, module: &Module, shown: &Shown) -> anyhow::Result<String> {
    let part = shown.layer.map_or(Part::Whole, Part::Layer);
    let listing = Listing::new(module).regions(shown.regions).part(&part);
    if listing.is_empty() {
        let layer = shown.layer.unwrap_or_default();
        bail!(
            "{}: no weight is named after layer {layer}; only packages of this tool have names, --names takes them",
            path.display()
        );
    }
    Ok(listing.to_string())
}

fn inspect_graph(module: &Module, graph: OpId, lines: &mut Lines) -> Value {
    let properties = &module.op(graph).properties;
    let property = |name: &str| {
        let at = Opcode::Graph.properties().iter().position(|known| *known == name)?;
        properties.get(at).copied().flatten()
    };
    let name = match property("name").map(|id| module.attribute(id)) {
        Some(Attribute::String(name)) => name.as_str(),
        _ => "?",
    };
    let Some(body) = module.body(graph) else { return Value::Null };
    let block = module.block(body);
    let mut counts: BTreeMap<Opcode, u64> = BTreeMap::new();
    for op in &block.ops {
        *counts.entry(module.op(*op).opcode).or_default() += 1;
    }
    let constants = counts.remove(&Opcode::Constant).unwrap_or_default();
    let ops: u64 = counts.values().sum();
    lines.field("graph", format!("{name}: {ops} ops, {constants} constants"));
    let outputs = block.ops.last().map(|op| module.op(*op).operands.clone()).unwrap_or_default();
    let describe = |names: Option<aimodel::AttributeId>,
                    values: &[aimodel::ValueId]|
     -> Vec<(String, String)> {
        let names = names.map(|id| argument_names(module, id)).unwrap_or_default();
        let types =
            values.iter().map(|value| describe_type_within(module, module.value(*value).ty, LONGEST_TYPE));
        types
            .enumerate()
            .map(|(at, ty)| (names.get(at).cloned().unwrap_or_else(|| "?".to_owned()), ty))
            .collect()
    };
    let inputs = describe(property("argAttrs"), &block.arguments);
    let outputs = describe(property("resAttrs"), &outputs);
    inputs.iter().for_each(|(name, ty)| lines.field("in", format!("{name}: {ty}")));
    outputs.iter().for_each(|(name, ty)| lines.field("out", format!("{name}: {ty}")));
    let list = |values: &[(String, String)]| -> Vec<Value> {
        values.iter().map(|(name, ty)| json!({"name": name, "type": ty})).collect()
    };
    let counts: BTreeMap<&str, u64> =
        counts.into_iter().map(|(opcode, count)| (opcode.name(), count)).collect();
    json!({
        "name": name,
        "ops": counts,
        "constants": constants,
        "inputs": list(&inputs),
        "outputs": list(&outputs),
    })
}

/// The `aicode.name` of each argument or result.
fn argument_names(module: &Module, list: aimodel::AttributeId) -> Vec<String> {
    let Attribute::Array(arguments) = module.attribute(list) else { return Vec::new() };
    arguments
        .iter()
        .map(|argument| argument_name(module, *argument).unwrap_or_else(|| "?".to_owned()))
        .collect()
}

fn argument_name(module: &Module, argument: aimodel::AttributeId) -> Option<String> {
    let Attribute::Array(entries) = module.attribute(argument) else { return None };
    entries.iter().find_map(|entry| match module.attribute(*entry) {
        Attribute::Opaque { name, parameters } if name == "aicode.name" => {
            match parameters.first().map(|id| module.attribute(*id)) {
                Some(Attribute::String(name)) => Some(name.clone()),
                _ => None,
            }
        }
        _ => None,
    })
}
