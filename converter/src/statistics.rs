//! What quantization did to the weights, measured on the bytes that were written.

use quantizer::{RuleSample, Statistics};
use serde::{Deserialize, Serialize};

use crate::recipe::Treatment;

/// What quantization did to one matrix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorStatistics {
    /// Name in the package, such as `layers.5.mlp.down_proj.weight`.
    pub name: String,
    /// Name in the checkpoint.
    pub tensor: String,
    /// Shape `[n, k]`.
    pub shape: Vec<u64>,
    /// How it is stored.
    pub treatment: Treatment,
    /// Counts and errors.
    pub statistics: Statistics,
}

/// What quantization did to all matrices of a conversion.
#[derive(Clone, Debug, Default)]
pub struct WeightStatistics {
    /// Quantized matrices in the order of the package.
    pub tensors: Vec<TensorStatistics>,
}

/// Totals of one weight format.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Totals {
    /// Format of the weights.
    pub format: &'static str,
    /// Matrices.
    pub tensors: u64,
    /// Blocks of 32.
    pub blocks: u64,
    /// Blocks on a lattice: their codes are the trained ones, whether or not f16 holds their scale.
    pub blocks_on_lattice: u64,
    /// Blocks of which every weight is reproduced byte for byte: f16 holds their scale.
    pub blocks_exact: u64,
    /// Weights.
    pub weights: u64,
    /// Weights reproduced byte for byte.
    pub weights_exact: u64,
    /// Root of the summed squared error over that of the summed squared weights.
    pub relative_error: f64,
    /// Scales below 2^-14, which have lost bits.
    pub subnormal_scales: u64,
    /// Scales below zero.
    pub negative_scales: u64,
}

impl WeightStatistics {
    /// Totals of each format that occurs.
    pub fn totals(&self) -> Vec<Totals> {
        ["int4", "int8"].into_iter().filter_map(|format| self.total(format)).collect()
    }

    /// What each 4-bit rule keeps of a sample of the matrices with 4-bit codes.
    pub fn sample(&self) -> RuleSample {
        let mut sum = RuleSample::default();
        self.tensors.iter().for_each(|tensor| sum.merge(&tensor.statistics.sample));
        sum
    }

    fn total(&self, format: &'static str) -> Option<Totals> {
        let mut tensors = self.tensors.iter().filter(|tensor| tensor.treatment.format() == format);
        let mut sum = tensors.next()?.statistics.clone();
        let mut count = 1;
        for tensor in tensors {
            sum.merge(&tensor.statistics);
            count += 1;
        }
        Some(Totals {
            format,
            tensors: count,
            blocks: sum.blocks,
            blocks_on_lattice: sum.blocks_on_lattice,
            blocks_exact: sum.blocks_exact,
            weights: sum.weights,
            weights_exact: sum.weights_exact,
            relative_error: sum.relative_error(),
            subnormal_scales: sum.subnormal_scales,
            negative_scales: sum.negative_scales,
        })
    }
}
