//! A package: inputs, outputs, ops, blobs.

use std::collections::BTreeMap;
use std::path::Path;

use ::oracle::bundle::BundlePaths;
use aimodel::align::adopt_names;
use aimodel::describe::describe_type_within;
use aimodel::package::Package;
use aimodel::print::{Listing, Part};
use aimodel::view::{Function, Port};
use aimodel::{Module, Opcode};
use anyhow::bail;
use serde_json::{Value, json};
use text::terminal::word;

use super::{Lines, Report, Shown, weights};
use crate::digits;

/// Bytes of a type, in text and JSON: that of a tensor of 16 axes is far below it.
const LONGEST_TYPE: usize = 512;

pub(super) fn inspect(path: &Path, shown: &Shown) -> anyhow::Result<Report> {
    let mut package = Package::open(path)?;
    if let Some(other) = &shown.names {
        take_names(&mut package, path, other)?;
    }
    let module = &package.bytecode.module;
    let mut lines = Lines::default();
    lines.title(format_args!("package {}", path.display()));
    let producer = package.metadata.as_ref().and_then(|metadata| metadata.producer.clone());
    lines.field("producer", producer.as_deref().unwrap_or("not stated"));
    lines.field("program", digits::bytes(package.bytecode.length));
    let graphs: Vec<Value> =
        Function::all(module).map(|function| inspect_function(module, function, &mut lines)).collect();
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
    let statistics = shown.weights.then(|| weights::read(&package)).transpose()?;
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
pub(super) fn take_names(package: &mut Package, path: &Path, other: &Path) -> anyhow::Result<()> {
    let named = Package::open(&BundlePaths::find(other)?.package)?;
    if adopt_names(&mut package.bytecode.module, &named.bytecode.module) == 0 {
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

fn inspect_function(module: &Module, function: Option<Function<'_>>, lines: &mut Lines) -> Value {
    let Some(function) = function else { return Value::Null };
    let name = function.name.unwrap_or("?");
    let mut counts: BTreeMap<Opcode, u64> = BTreeMap::new();
    for op in &module.block(function.body).ops {
        *counts.entry(module.op(*op).opcode).or_default() += 1;
    }
    let constants = counts.remove(&Opcode::Constant).unwrap_or_default();
    let ops: u64 = counts.values().sum();
    lines.field("graph", format!("{name}: {ops} ops, {constants} constants"));
    let mut list = |what: &str, ports: &[Port<'_>]| -> Vec<Value> {
        let one = |port: &Port<'_>| {
            let name = port.name.unwrap_or("?");
            let ty = describe_type_within(module, module.value(port.value).ty, LONGEST_TYPE);
            lines.field(what, format!("{name}: {ty}"));
            json!({"name": name, "type": ty})
        };
        ports.iter().map(one).collect()
    };
    let (inputs, outputs) = (list("in", &function.arguments), list("out", &function.results));
    let counts: BTreeMap<&str, u64> =
        counts.into_iter().map(|(opcode, count)| (opcode.name(), count)).collect();
    json!({
        "name": name,
        "ops": counts,
        "constants": constants,
        "inputs": inputs,
        "outputs": outputs,
    })
}
