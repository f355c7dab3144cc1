//! A package: inputs, outputs, ops, blobs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ::oracle::bundle::BundlePaths;
use aimodel::align::adopt_names;
use aimodel::describe::describe_type_within;
use aimodel::package::Package;
use aimodel::print::{Listing, Part};
use aimodel::view::{Function, Port};
use aimodel::{Module, Opcode};
use anyhow::bail;
use report::FunctionWork;
use serde::Serialize;

use super::Shown;
use super::weights::{self, WeightSummary};
use crate::functions;

/// Longest type in text and JSON, in bytes: that of a tensor with 16 axes is far shorter.
const LONGEST_TYPE: usize = 512;

/// What is in a package.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename = "package")]
pub struct PackageSummary {
    /// Its folder.
    #[serde(skip)]
    pub path: PathBuf,
    /// What wrote it.
    pub producer: Option<String>,
    /// Bytes of the program.
    pub bytes: u64,
    /// Its graphs; none for those without a body.
    pub graphs: Vec<Option<GraphSummary>>,
    /// Bytes of all blobs.
    pub blob_bytes: u64,
    /// Its blobs.
    pub blobs: Vec<BlobSummary>,
    /// Lines of the listing, if it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listing: Option<Vec<String>>,
    /// Statistics of the weights, if they are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<Vec<WeightSummary>>,
}

/// A blob.
#[derive(Debug, Serialize)]
pub struct BlobSummary {
    /// Its key.
    pub key: String,
    /// Where it is in the program.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
}

/// A graph.
#[derive(Debug, Serialize)]
pub struct GraphSummary {
    /// Its name, and what it costs.
    #[serde(flatten)]
    pub work: FunctionWork,
    /// How many ops there are of each kind.
    pub ops: BTreeMap<&'static str, u64>,
    /// Number of constants.
    pub constants: u64,
    /// Inputs and states.
    pub inputs: Vec<PortSummary>,
    /// Outputs.
    pub outputs: Vec<PortSummary>,
}

/// An input or an output.
#[derive(Debug, Serialize)]
pub struct PortSummary {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub ty: String,
}

impl PackageSummary {
    /// Reads a package that the engine feeds in chunks of this many tokens.
    pub(super) fn read(path: &Path, shown: &Shown, chunk: u64) -> anyhow::Result<Self> {
        let mut package = Package::open(path)?;
        if let Some(other) = &shown.names {
            take_names(&mut package, path, other)?;
        }
        let bytecode = &package.bytecode;
        let blobs = bytecode.module.resources().zip(&bytecode.blobs);
        Ok(PackageSummary {
            path: path.to_owned(),
            producer: package.metadata.as_ref().and_then(|metadata| metadata.producer.clone()),
            bytes: bytecode.length,
            graphs: Function::all(&bytecode.module)
                .map(|function| Some(GraphSummary::of(&package, &function?, chunk)))
                .collect(),
            blob_bytes: bytecode.blobs.iter().map(|blob| blob.length).sum(),
            blobs: blobs
                .map(|(resource, blob)| BlobSummary {
                    key: resource.key.clone(),
                    offset: blob.offset,
                    bytes: blob.length,
                })
                .collect(),
            listing: shown.graph.then(|| listing(path, &bytecode.module, shown)).transpose()?,
            weights: shown.weights.then(|| weights::read(&package)).transpose()?,
        })
    }
}

/// Names weights after those of another package.
pub(super) fn take_names(package: &mut Package, path: &Path, other: &Path) -> anyhow::Result<()> {
    let named = Package::open(&BundlePaths::find(other)?.package)?;
    if adopt_names(&mut package.bytecode.module, &named.bytecode.module) == 0 {
        bail!("{}: none of its weights is used as one of {}", path.display(), other.display());
    }
    Ok(())
}

/// The ops as lines of text: all, or those of a layer.
fn listing(path: &Path, module: &Module, shown: &Shown) -> anyhow::Result<Vec<String>> {
    let part = shown.layer.map_or(Part::Whole, Part::Layer);
    let listing = Listing::new(module).regions(shown.regions).part(&part);
    if listing.is_empty() {
        let layer = shown.layer.unwrap_or_default();
        bail!(
            "{}: no weight is named after layer {layer}; only packages of this tool have names, --names takes them",
            path.display()
        );
    }
    Ok(listing.to_string().lines().map(str::to_owned).collect())
}

impl GraphSummary {
    fn of(package: &Package, function: &Function<'_>, chunk: u64) -> Self {
        let module = &package.bytecode.module;
        let mut ops: BTreeMap<&'static str, u64> = BTreeMap::new();
        for op in &module.block(function.body).ops {
            *ops.entry(module.op(*op).opcode.name()).or_default() += 1;
        }
        let constants = ops.remove(Opcode::Constant.name()).unwrap_or_default();
        let port = |port: &Port<'_>| PortSummary {
            name: port.name.unwrap_or("?").to_owned(),
            ty: describe_type_within(module, module.value(port.value).ty, LONGEST_TYPE),
        };
        GraphSummary {
            work: functions::of_function(package, function, chunk),
            ops,
            constants,
            inputs: function.arguments.iter().map(port).collect(),
            outputs: function.results.iter().map(port).collect(),
        }
    }
}
