//! The plan: every output file and every tensor in it, from the configuration and the tensors' headers alone.
//!
//! It is what a dry run prints, what disk space is checked against, and what the writer obeys.

use aimodel::bytecode::layout::Layout;
use aimodel::verify::{VerifyError, verify};
use aimodel::{Attribute, Element, Module, Opcode};
use serde::Serialize;

use crate::decoder::{self, BlobContent, GraphOptions, InlineTensors, Part, Variant, WeightFormat};
use crate::graphs::course;
use crate::quant::Int4Rule;
use checkpoint::config::DecoderConfig;
use checkpoint::{Checkpoint, CheckpointError, Role};

/// Why nothing can be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A tensor does not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The graph cannot be built.
    #[error("the graph cannot be built: {0}; please report this with the checkpoint's config.json")]
    Graph(#[from] aimodel::build::BuildError),
    /// The graph breaks a rule of the format. None is written then.
    #[error("the graph is not valid: {0}; please report this with the checkpoint's config.json")]
    Invalid(#[from] VerifyError),
    /// A blob is planned as something that is never made for a graph. No plan that this crate makes has one.
    #[error(
        "blob {key} cannot be written as {treatment}; please report this with the checkpoint's config.json"
    )]
    Blob {
        /// Key of the blob.
        key: String,
        /// How it was to be stored.
        treatment: String,
    },
    /// A blob is a part of the per-layer table, and the table was not made.
    #[error(
        "blob {key} is a part of the per-layer table, which was not made; please report this with the checkpoint's config.json"
    )]
    NoTable {
        /// Key of the blob.
        key: String,
    },
    /// The sizes add up to more than a file can hold.
    #[error("the graph's blobs add up to more than 2^63 bytes; the sizes in config.json are wrong")]
    TooLarge,
}

/// What is done to a tensor's elements on the way into a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// Rounded to half precision.
    F16,
    /// 4-bit codes, by a rule.
    Int4(#[serde(serialize_with = "rule_name")] Int4Rule),
    /// 8-bit codes in blocks of 32.
    Int8,
    /// 8-bit codes with one scale a row.
    RowInt8,
    /// Widened to single precision.
    F32,
}

fn rule_name<S: serde::Serializer>(rule: &Int4Rule, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(rule.name())
}

/// What a blob holds of a tensor that is read for it: the treatments that a worker can carry out on any piece of a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Encoding {
    /// Half precision.
    F16,
    /// 4-bit codes and scales, by a rule.
    Int4(Int4Rule),
    /// 8-bit codes and scales, in blocks of 32.
    Int8,
}

impl Treatment {
    /// The encoding; none for what only tables have, whose rows are made elsewhere.
    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self {
            Treatment::F16 => Some(Encoding::F16),
            Treatment::Int4(rule) => Some(Encoding::Int4(rule)),
            Treatment::Int8 => Some(Encoding::Int8),
            Treatment::RowInt8 | Treatment::F32 => None,
        }
    }

    /// Bytes of so many elements, without scales.
    pub(crate) fn bytes(self, elements: usize) -> usize {
        match self {
            Treatment::Int4(_) => elements / 2,
            Treatment::Int8 | Treatment::RowInt8 => elements,
            Treatment::F16 => elements * 2,
            Treatment::F32 => elements * 4,
        }
    }

    /// Name in listings, such as `int4 lattice`.
    pub fn name(self) -> String {
        match self {
            Treatment::F16 => "f16".to_owned(),
            Treatment::Int4(rule) => format!("int4 {}", rule.name()),
            Treatment::Int8 => "int8".to_owned(),
            Treatment::RowInt8 => "int8 rows".to_owned(),
            Treatment::F32 => "f32".to_owned(),
        }
    }
}

/// One blob of a graph.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct PlannedBlob {
    /// Key in the package, such as `layers.5.mlp.down_proj.weight/codes`.
    pub key: String,
    /// Tensor of the checkpoint that it is made of.
    pub tensor: String,
    /// What is done to it.
    pub treatment: Treatment,
    /// Shape in the package.
    pub shape: Vec<u64>,
    /// Element type in the package.
    #[serde(serialize_with = "element_name")]
    pub element: Element,
    /// First byte in `main.mlirb`.
    pub offset: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// What the blob holds.
    #[serde(skip)]
    pub content: BlobContent,
}

impl PlannedBlob {
    /// Name of the quantized matrix whose codes it holds, such as `layers.5.mlp.down_proj.weight`.
    pub(crate) fn matrix(&self) -> Option<&str> {
        let is_codes = matches!(self.content, BlobContent::Quantized { part: Part::Codes, .. });
        (is_codes && self.treatment != Treatment::F16).then(|| self.key.trim_end_matches("/codes"))
    }
}

fn element_name<S: serde::Serializer>(element: &Element, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(element.name())
}

/// A tensor that stands in the program itself, in half precision.
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
    /// How projections are stored.
    pub weights: WeightFormat,
    /// How the head is stored.
    pub head: WeightFormat,
    /// Rule for int4 weights.
    pub rule: Int4Rule,
    /// The program as bytes, with gaps for the blobs.
    pub layout: Layout,
    /// What fills the gaps, in the same order.
    pub blobs: Vec<PlannedBlob>,
    /// Small tensors in the program itself.
    pub inline: Vec<InlineTensor>,
    /// Ops in the graph, those in decompositions not counted.
    pub ops: usize,
}

/// How weights are stored, apart from the variant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WeightChoice {
    /// Format of projections.
    pub weights: WeightFormat,
    /// Format of the head.
    pub head: WeightFormat,
    /// Rule for int4.
    pub rule: Int4Rule,
}

impl GraphPlan {
    /// Plans a variant of a checkpoint's graph.
    ///
    /// # Errors
    /// If a matrix to be quantized does not divide into blocks, or the graph cannot be built.
    pub fn new(
        config: &DecoderConfig,
        checkpoint: &Checkpoint,
        variant: Variant,
        choice: WeightChoice,
        inline: &InlineTensors,
    ) -> Result<Self, PlanError> {
        check_blocks(config, checkpoint, choice)?;
        let options = GraphOptions {
            variant,
            weights: choice.weights,
            head: choice.head,
            tied_head: checkpoint.head_is_tied(),
        };
        let mut graph = decoder::build(config, options, inline)?;
        verify(&graph.module)?;
        let layout = Layout::avoiding_whole_pages(&mut graph.module).ok_or(PlanError::TooLarge)?;
        let blobs = planned_blobs(&graph.module, &graph.blobs, &layout, checkpoint, choice.rule)?;
        let inline = inline_tensors(config, checkpoint, inline)?;
        let ops = top_level_ops(&graph.module);
        Ok(GraphPlan {
            variant,
            weights: choice.weights,
            head: choice.head,
            rule: choice.rule,
            layout,
            blobs,
            inline,
            ops,
        })
    }

    /// Bytes of temporary files beside the outputs, for blobs that are made before their turn.
    pub fn spool_bytes(&self) -> u64 {
        course::spooled_bytes(&self.blobs)
    }

    /// The tensors that are read for the blobs, and their bytes.
    pub(crate) fn reads(&self) -> impl Iterator<Item = (Role, u64)> {
        course::reads(&self.blobs)
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
    choice: WeightChoice,
) -> Result<(), CheckpointError> {
    for role in Role::needed(config).filter(|role| role.is_projection()) {
        let format = if role == Role::Head { choice.head } else { choice.weights };
        if format != WeightFormat::F16 {
            checkpoint.check_blocks(role)?;
        }
    }
    Ok(())
}

fn planned_blobs(
    module: &Module,
    contents: &[BlobContent],
    layout: &Layout,
    checkpoint: &Checkpoint,
    rule: Int4Rule,
) -> Result<Vec<PlannedBlob>, PlanError> {
    let types = blob_types(module);
    let planned = layout.placements.iter().map(|placement| {
        let at = placement.resource.index();
        let content = contents[at];
        let (role, treatment) = source_of(content, rule);
        let (shape, element) = types[at].clone();
        Ok(PlannedBlob {
            key: module.resource(placement.resource).key.clone(),
            tensor: checkpoint.require(role)?.name.clone(),
            treatment,
            shape,
            element,
            offset: placement.offset,
            bytes: placement.length,
            content,
        })
    });
    planned.collect()
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

/// Which tensor a blob is made of, and how.
fn source_of(content: BlobContent, rule: Int4Rule) -> (Role, Treatment) {
    match content {
        BlobContent::Whole(role) => (role, Treatment::F16),
        BlobContent::Quantized { role, format: WeightFormat::Int4, .. } => (role, Treatment::Int4(rule)),
        BlobContent::Quantized { role, format: WeightFormat::Int8, .. } => (role, Treatment::Int8),
        BlobContent::Quantized { role, format: WeightFormat::F16, .. } => (role, Treatment::F16),
        BlobContent::PerLayerCodes { .. } | BlobContent::PerLayerScales => {
            (Role::EmbedTokensPerLayer, Treatment::RowInt8)
        }
    }
}

/// Shape and element of each blob, by resource.
fn blob_types(module: &Module) -> Vec<(Vec<u64>, Element)> {
    let mut types = vec![(Vec::new(), Element::Bool); module.resources().len()];
    for graph in module.graphs() {
        let Some(body) = module.body(graph) else { continue };
        for op in &module.block(body).ops {
            let [result] = module.op(*op).results[..] else { continue };
            if let (Some(Attribute::DenseResource(id)), Some(ty)) =
                (module.constant(result), module.tensor(result))
            {
                types[id.index()] = (ty.shape.iter().filter_map(|dim| dim.fixed()).collect(), ty.element);
            }
        }
    }
    types
}

fn top_level_ops(module: &Module) -> usize {
    let bodies = module.graphs().into_iter().filter_map(|graph| module.body(graph));
    bodies
        .flat_map(|body| &module.block(body).ops)
        .filter(|op| module.op(**op).opcode != Opcode::Constant)
        .count()
}
