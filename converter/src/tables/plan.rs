//! Files of a table folder and their sizes, from the configuration alone.

use serde::Serialize;

use crate::error::PlanError;
use checkpoint::config::{DecoderConfig, PerLayer};
use checkpoint::source::bytes_of;
use checkpoint::{Checkpoint, CheckpointError, Role};

/// One file of a table folder.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PlannedFile {
    /// Name in the folder.
    pub name: &'static str,
    /// Tensor of the checkpoint that it is made from.
    pub tensor: String,
    /// Number of bytes.
    pub bytes: u64,
}

/// How a table stores a tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TableTreatment {
    /// 8-bit codes with one f32 scale per row, in a separate file.
    RowInt8 { scales: &'static str },
    /// Widened to single precision.
    F32,
}

/// One tensor's way into the folder.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Job {
    pub(super) role: Role,
    pub(super) tensor: String,
    pub(super) rows: u64,
    pub(super) width: u64,
    /// File of the codes, or of the numbers.
    pub(super) data: &'static str,
    pub(super) treatment: TableTreatment,
}

/// What a table folder will hold, apart from `meta.json`.
#[derive(Clone, PartialEq, Debug)]
pub struct TablesPlan {
    pub(super) jobs: Vec<Job>,
    /// Contents of `meta.json`.
    pub meta: String,
}

impl TablesPlan {
    /// Plans the tables of a checkpoint.
    ///
    /// # Errors
    /// If a tensor is missing, or the model has no per-layer embeddings.
    pub fn new(config: &DecoderConfig, checkpoint: &Checkpoint) -> Result<Self, PlanError> {
        let quantized =
            |role, data, scales| job(config, checkpoint, role, data, TableTreatment::RowInt8 { scales });
        let widened = |role, data| job(config, checkpoint, role, data, TableTreatment::F32);
        let per_layer = config.per_layer.ok_or(PlanError::NoPerLayer)?;
        Ok(TablesPlan {
            jobs: vec![
                quantized(Role::EmbedTokensPerLayer, "embed_per_layer.i8", "embed_per_layer.scale.f32")?,
                quantized(Role::EmbedTokens, "embed_tokens.i8", "embed_tokens.scale.f32")?,
                widened(Role::PerLayerModelProjection, "proj.f32")?,
                widened(Role::PerLayerProjectionNorm, "proj_norm.f32")?,
            ],
            meta: meta(config, per_layer),
        })
    }

    /// The files, in the order in which they are written; `meta.json` is made from the configuration.
    pub fn files(&self) -> Vec<PlannedFile> {
        self.jobs.iter().flat_map(Job::files).collect()
    }

    /// Bytes of all files, `meta.json` included.
    pub fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.bytes).sum::<u64>() + self.meta.len() as u64
    }

    /// Bytes of the checkpoint that are read.
    pub fn input_bytes(&self) -> u64 {
        self.reads().map(|(_, bytes)| bytes).sum()
    }

    /// The tensors that are read, and their bytes.
    pub(crate) fn reads(&self) -> impl Iterator<Item = (&str, u64)> {
        self.jobs.iter().map(|job| (&*job.tensor, bytes_of(job.rows * job.width)))
    }
}

impl Job {
    fn files(&self) -> Vec<PlannedFile> {
        let file = |name, bytes| PlannedFile { name, tensor: self.tensor.clone(), bytes };
        let element = if self.treatment == TableTreatment::F32 { 4 } else { 1 };
        let data = file(self.data, self.rows * self.width * element);
        std::iter::once(data).chain(self.scales().map(|name| file(name, self.rows * 4))).collect()
    }

    /// File of the row scales.
    pub(super) fn scales(&self) -> Option<&'static str> {
        match self.treatment {
            TableTreatment::RowInt8 { scales } => Some(scales),
            TableTreatment::F32 => None,
        }
    }
}

fn job(
    config: &DecoderConfig,
    checkpoint: &Checkpoint,
    role: Role,
    data: &'static str,
    treatment: TableTreatment,
) -> Result<Job, CheckpointError> {
    let shape = role.shape(config);
    let width = shape.last().copied().unwrap_or(1) as u64;
    let rows = shape[..shape.len().saturating_sub(1)].iter().map(|extent| *extent as u64).product();
    let tensor = checkpoint.require(role)?.name.clone();
    Ok(Job { role, tensor, rows, width, data, treatment })
}

/// What the host needs to know to use the tables.
#[derive(Serialize)]
#[allow(non_snake_case)]
struct Meta {
    V: usize,
    D: usize,
    PLD: usize,
    L: usize,
    ld: usize,
    embed_scale_main: f64,
    embed_scale_pl: f64,
    proj_scale: f64,
    input_scale: f64,
    rms_eps: f64,
}

fn meta(config: &DecoderConfig, per_layer: PerLayer) -> String {
    let meta = Meta {
        V: config.vocab,
        D: config.hidden,
        PLD: per_layer.total,
        L: config.layers.len(),
        ld: per_layer.width,
        embed_scale_main: (config.hidden as f64).sqrt(),
        embed_scale_pl: (per_layer.width as f64).sqrt(),
        proj_scale: (config.hidden as f64).powf(-0.5),
        input_scale: 0.5_f64.sqrt(),
        rms_eps: config.rms_eps,
    };
    serde_json::to_string_pretty(&meta).unwrap_or_default()
}
