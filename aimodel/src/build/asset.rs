//! Builds an asset: one or several functions that share blobs.

use super::function::FunctionBuilder;
use crate::attribute::{Attribute, AttributeId};
use crate::module::{BlockId, Module, OpId};
use crate::opcode::Opcode;

/// Builds an asset. Functions are built one after the other, and keep that order. Each has its own constants; a blob that two
/// of them promise under one key is stored once.
///
/// ```
/// use aimodel::build::AssetBuilder;
/// use aimodel::{Element, TensorType};
///
/// let mut asset = AssetBuilder::new();
/// for name in ["main", "prefill"] {
///     let mut function = asset.function(name);
///     let x = function.input("x", &TensorType::fixed(&[1, 4], Element::F16));
///     let weight = function.blob("weight", &TensorType::fixed(&[4, 4], Element::F16))?;
///     let y = function.matmul(x, weight)?;
///     asset = function.finish(&[], &[("y", y)])?;
/// }
/// let module = asset.finish();
/// assert_eq!((module.graphs().len(), module.resources().len()), (2, 1));
/// # Ok::<(), aimodel::build::BuildError>(())
/// ```
pub struct AssetBuilder {
    pub(super) module: Module,
    /// The location of every op.
    pub(super) location: AttributeId,
    asset: OpId,
    /// The block that contains the functions.
    functions: BlockId,
}

/// The location that everything without debug information shares.
fn unknown_location(module: &mut Module) -> AttributeId {
    let file = Attribute::File { name: "-".to_owned(), directory: String::new(), sha256: String::new() };
    let file = module.intern(file);
    let source = module.intern(Attribute::SourceLocation { file, range: [0; 4] });
    let scope = module.intern(Attribute::Unit);
    module.intern(Attribute::Location { source, scope, fused: Vec::new(), metadata: Vec::new() })
}

impl Default for AssetBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl AssetBuilder {
    /// An asset without functions.
    pub fn new() -> Self {
        let mut module = Module::new();
        let location = unknown_location(&mut module);
        let asset = module.add_op(Opcode::Asset, location);
        let region = module.add_region(asset);
        let functions = module.add_block(region);
        module.set_root(asset);
        AssetBuilder { module, location, asset, functions }
    }

    /// Starts the next function; [`FunctionBuilder::finish`] returns the asset.
    pub fn function(mut self, name: &str) -> FunctionBuilder {
        let graph = self.module.add_op(Opcode::Graph, self.location);
        self.module.block_mut(self.functions).ops.push(graph);
        FunctionBuilder::new(self, graph, name)
    }

    /// The asset's module, with the version of the newest op in it.
    pub fn finish(mut self) -> Module {
        let version =
            Attribute::Integer { width: 32, unsigned: true, value: i64::from(asset_version(&self.module)) };
        let version = self.module.intern(version);
        self.module.op_mut(self.asset).properties = vec![None, Some(version)];
        self.module
    }
}

/// The newest introduction date among all ops, those inside decompositions included.
fn asset_version(module: &Module) -> u32 {
    (0..module.op_count()).map(|at| module.op(OpId::at(at)).opcode.since()).max().unwrap_or_default()
}
