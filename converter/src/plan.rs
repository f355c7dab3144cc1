//! The plan: every output file and every tensor in it, from the configuration and the tensors' headers alone.
//!
//! A dry run prints it, disk space is checked against it, and the writer follows it.

use aimodel::bytecode::layout::Layout;
use aimodel::verify::verify;
use aimodel::{Module, Opcode};
use serde::Serialize;

use crate::blob::Blob;
use crate::decoder::{self, Functions, GraphOptions, InlineTensors, Variant};
use crate::error::PlanError;
use crate::graphs::schedule;
use crate::recipe::Recipe;
use checkpoint::config::{CacheForm, DecoderConfig};
use checkpoint::{Checkpoint, CheckpointError, Role};

/// A tensor that is stored in the program itself, in half precision.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct InlineTensor {
    /// Name, such as `layers.5.layer_scalar`.
    pub name: String,
    /// Tensor of the checkpoint.
    pub tensor: String,
    /// Shape.
    pub shape: Vec<u64>,
}

/// One graph: its program without the blobs, and the blobs in file order.
#[derive(Debug)]
pub struct GraphPlan {
    /// Where the per-layer rows come from.
    pub variant: Variant,
    /// The functions.
    pub functions: Functions,
    /// How tensors are stored.
    pub recipe: Recipe,
    /// The caches of keys and values.
    pub caches: CacheForm,
    /// Whether there are per-layer tables, which is what variants differ in.
    pub has_tables: bool,
    /// The program as bytes, with gaps for the blobs.
    pub layout: Layout,
    /// What fills the gaps, in the same order.
    pub blobs: Vec<Blob>,
    /// Small tensors in the program itself.
    pub inline: Vec<InlineTensor>,
    /// Ops in the graph, those in decompositions not counted.
    pub ops: usize,
}

impl GraphPlan {
    /// Plans a graph of a checkpoint.
    ///
    /// # Errors
    /// If a matrix to be quantized does not divide into blocks, the model has no such graph, or it cannot be built.
    pub fn new(
        config: &DecoderConfig,
        checkpoint: &Checkpoint,
        options: &GraphOptions,
        inline: &InlineTensors,
    ) -> Result<Self, PlanError> {
        let GraphOptions { variant, functions, caches, .. } = *options;
        let recipe = options.recipe.clone();
        check_blocks(config, checkpoint, &recipe)?;
        check_options(config, options)?;
        let mut graph = decoder::build(config, options, inline)?;
        verify(&graph.module)?;
        let layout = Layout::avoiding_whole_pages(&mut graph.module).ok_or(PlanError::TooLarge)?;
        let blobs = placed(&graph.module, &graph.blobs, &layout);
        let inline = inline_tensors(config, checkpoint, inline)?;
        let ops = top_level_ops(&graph.module);
        let has_tables = config.per_layer.is_some();
        Ok(GraphPlan { variant, functions, recipe, caches, has_tables, layout, blobs, inline, ops })
    }

    /// Cache forms that a model's graphs can have. No reference graph of the E-series has a pair for each kind of layer to
    /// compare with.
    pub fn cache_forms(config: &DecoderConfig) -> &'static [CacheForm] {
        if config.per_layer.is_some() { &[CacheForm::Padded] } else { &CacheForm::ALL }
    }

    /// Bytes of temporary files beside the outputs, for blobs that are made before their turn.
    pub fn spool_bytes(&self) -> u64 {
        schedule::spooled_bytes(&self.blobs)
    }

    /// The tensors that are read for the blobs, and their bytes.
    pub(crate) fn reads(&self) -> impl Iterator<Item = (&str, u64)> {
        schedule::reads(&self.blobs)
    }

    /// Size of `main.mlirb` in bytes.
    pub fn bytes(&self) -> u64 {
        self.layout.total
    }
}

/// Every matrix that becomes codes must divide into blocks.
fn check_blocks(
    config: &DecoderConfig,
    checkpoint: &Checkpoint,
    recipe: &Recipe,
) -> Result<(), CheckpointError> {
    Role::needed(config)
        .filter(|role| recipe.treatment(*role).has_codes())
        .try_for_each(|role| checkpoint.check_blocks(role))
}

/// Refuses what only models with per-layer embeddings have, or only those without.
fn check_options(config: &DecoderConfig, options: &GraphOptions) -> Result<(), PlanError> {
    let GraphOptions { variant, caches, .. } = *options;
    if config.per_layer.is_none() && variant != Variant::Stock {
        return Err(PlanError::NoVariant { variant: variant.name() });
    }
    if !GraphPlan::cache_forms(config).contains(&caches) {
        return Err(PlanError::NoSplitCaches);
    }
    Ok(())
}

/// The blobs in file order, with their keys and places in the file.
fn placed(module: &Module, blobs: &[Blob], layout: &Layout) -> Vec<Blob> {
    let placed = layout.placements.iter().map(|placement| Blob {
        key: module.resource(placement.resource).key.clone(),
        offset: placement.offset,
        ..blobs[placement.resource.index()].clone()
    });
    placed.collect()
}

fn inline_tensors(
    config: &DecoderConfig,
    checkpoint: &Checkpoint,
    inline: &InlineTensors,
) -> Result<Vec<InlineTensor>, PlanError> {
    let listed = inline.keys().map(|role| {
        Ok(InlineTensor {
            name: role.short_name(),
            tensor: checkpoint.require(*role)?.name.clone(),
            shape: role.shape(config).into_iter().map(|extent| extent as u64).collect(),
        })
    });
    listed.collect()
}

fn top_level_ops(module: &Module) -> usize {
    let bodies = module.graphs().into_iter().filter_map(|graph| module.body(graph));
    bodies
        .flat_map(|body| &module.block(body).ops)
        .filter(|op| module.op(**op).opcode != Opcode::Constant)
        .count()
}
