//! A block of a package: the codes and the scale as they are packed.

use std::path::Path;

use ::oracle::bundle::BundlePaths;
use aimodel::package::Package;
use aimodel::view::Weight;
use anyhow::Context;
use half::f16;
use serde::Serialize;

use super::{BlockPlace, find};
use crate::contents;

/// Weights that are shown of a tensor that is not in blocks.
const SHOWN: u64 = 32;

/// A block as it is packed.
#[derive(Debug, Serialize)]
pub struct PackedBlock {
    /// Name of the tensor.
    pub tensor: String,
    /// Its format, such as `si4/32`.
    pub format: String,
    /// Its extents.
    pub shape: Vec<u64>,
    /// Row of the block.
    pub row: u64,
    /// Its place in the row.
    pub block: u64,
    /// Column of its first weight.
    pub column: u64,
    /// Of weights in blocks.
    #[serde(flatten)]
    pub codes: Option<ExplainedCodes>,
    /// What the graph computes with.
    pub values: Vec<f32>,
}

/// Codes and their scale.
#[derive(Debug, Serialize)]
pub struct ExplainedCodes {
    /// The scale.
    pub scale: f32,
    /// Its bits as an f16 number.
    pub scale_bits: u16,
    /// The codes.
    pub codes: Vec<i32>,
}

impl PackedBlock {
    /// Reads a block of a package or a bundle.
    ///
    /// # Errors
    /// If there is no such block, or it cannot be read.
    pub fn read(path: &Path, place: BlockPlace<'_>) -> anyhow::Result<Self> {
        let path = &BundlePaths::find(&contents::one_bundle(path)?)?.package;
        let package = Package::open(path)?;
        let weights = package.weights();
        let names: Vec<&str> = weights.iter().map(Weight::name).collect();
        let at = find(&names, place.tensor, &path.display().to_string())?;
        let weight = weights.get(at).context("the tensor is gone")?;
        let stored = weight.stored();
        let columns = stored.shape.last().copied().unwrap_or(1).max(1);
        let width = weight.block().unwrap_or(SHOWN.min(columns));
        place.check(weight.name(), stored.count() / columns, columns / width)?;
        let column = place.block * width;
        let start = place.row * columns + column;
        let count = usize::try_from(width)?;
        let codes = match weight {
            Weight::Whole(_) => None,
            Weight::Blocks { codes, scales } => {
                let scale = package.elements(scales, start / width, 1)?.first().copied().unwrap_or_default();
                let codes =
                    package.elements(codes, start, count)?.into_iter().map(|code| code as i32).collect();
                Some(ExplainedCodes { scale, scale_bits: f16::from_f32(scale).to_bits(), codes })
            }
        };
        Ok(PackedBlock {
            tensor: weight.name().to_owned(),
            format: weight.format(),
            shape: stored.shape.clone(),
            row: place.row,
            block: place.block,
            column,
            codes,
            values: package.values(weight, start, count)?,
        })
    }
}
