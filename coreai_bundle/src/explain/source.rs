//! A block of a checkpoint: its values, its lattice, and what each rule does to it.

use anyhow::{Context, bail};
use checkpoint::source::{Dtype, Source};
use half::bf16;
use quantizer::lattice::{Recovered, recover};
use quantizer::{BLOCK, Fit, Int4Rule, fit, fit_int8};
use serde::Serialize;

use super::{BlockPlace, find};
use crate::origin::{Access, Opener};
use crate::source::SourceSpec;

/// A block of a checkpoint.
#[derive(Debug, Serialize)]
pub struct SourceBlock {
    /// Name of the tensor.
    pub tensor: String,
    /// Type of its elements.
    pub dtype: String,
    /// Its extents.
    pub shape: Vec<u64>,
    /// Row of the block.
    pub row: u64,
    /// Its place in the row.
    pub block: u64,
    /// Column of its first weight.
    pub column: u64,
    /// The weights.
    pub source: Vec<f32>,
    /// None if the block does not lie on a lattice.
    pub lattice: Option<ExplainedLattice>,
    /// The results of the rules.
    pub rules: Vec<ExplainedFit>,
}

/// The lattice of a block.
#[derive(Debug, Serialize)]
pub struct ExplainedLattice {
    /// The scale as an f16 number.
    pub scale: f32,
    /// Its bits.
    pub scale_bits: u16,
    /// Whether the scale, an f16 number, lies in the interval, so that it reproduces every weight.
    pub exact: bool,
    /// The codes.
    pub codes: Vec<i8>,
    /// Code of the weight with the largest magnitude.
    pub extremum_code: i8,
    /// Magnitudes of all real scales that reproduce the block; a block of zeros has no upper bound.
    pub interval: ScaleInterval,
}

/// Magnitudes of scales.
#[derive(Debug, Serialize)]
pub struct ScaleInterval {
    /// The lower bound.
    pub lowest: f64,
    /// Whether it is one of them.
    pub includes_lowest: bool,
    /// The upper bound.
    pub highest: Option<f64>,
    /// Whether it is one of them.
    pub includes_highest: bool,
}

/// What a rule does to a block.
#[derive(Debug, Serialize)]
pub struct ExplainedFit {
    /// Name of the rule.
    pub rule: &'static str,
    /// The scale.
    pub scale: f32,
    /// Its bits as an f16 number.
    pub scale_bits: u16,
    /// The codes.
    pub codes: Vec<i8>,
    /// Weights that `code * scale`, rounded to bf16, equals.
    pub exact: u32,
    /// Root of the squared error over the squared weights.
    pub relative_error: f64,
}

impl SourceBlock {
    /// Reads a block of a checkpoint; shows what these rules do to it, or all of them and int8 if none are given.
    ///
    /// # Errors
    /// If there is no such block, it is not BF16, or it cannot be read.
    pub fn read(
        checkpoint: &SourceSpec,
        access: Access,
        place: BlockPlace<'_>,
        rules: &[Int4Rule],
        opener: Opener<'_>,
    ) -> anyhow::Result<Self> {
        let opened = opener.open(checkpoint, access)?;
        let source: &dyn Source = &*opened.source;
        let names: Vec<&str> = source.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        let at = find(&names, place.tensor, &checkpoint.to_string())?;
        let tensor = source.tensors().get(at).context("the tensor is gone")?;
        if tensor.dtype != Dtype::BF16 {
            bail!("{} is {:?}; the rules are for BF16", tensor.name, tensor.dtype);
        }
        let shape: Vec<u64> = tensor.shape.iter().map(|extent| *extent as u64).collect();
        let (columns, block) = (shape.last().copied().unwrap_or(1).max(1), BLOCK as u64);
        if !columns.is_multiple_of(block) {
            bail!(
                "{}: its last axis {columns} is not a multiple of {BLOCK}, so it has no blocks",
                tensor.name
            );
        }
        let rows = shape.iter().rev().skip(1).product();
        place.check(&tensor.name, rows, columns / block)?;
        let column = place.block * block;
        let mut weights = [bf16::ZERO; BLOCK];
        source.read_weights(tensor, place.row * columns + column, &mut weights)?;
        let told = || format!("{}, row {}, block {}", tensor.name, place.row, place.block);
        Ok(SourceBlock {
            tensor: tensor.name.clone(),
            dtype: format!("{:?}", tensor.dtype),
            shape,
            row: place.row,
            block: place.block,
            column,
            source: weights.iter().map(|weight| weight.to_f32()).collect(),
            lattice: recover(&weights).map(|recovered| ExplainedLattice::from(&recovered)),
            rules: all_rules(rules, &weights).with_context(told)?,
        })
    }
}

fn all_rules(given: &[Int4Rule], weights: &[bf16; BLOCK]) -> anyhow::Result<Vec<ExplainedFit>> {
    let rules = if given.is_empty() { &Int4Rule::ALL } else { given };
    let mut made = Vec::new();
    for rule in rules {
        made.push(ExplainedFit::new(rule.name(), &fit(*rule, weights)?));
    }
    if given.is_empty() {
        made.push(ExplainedFit::new("int8", &fit_int8(weights)?));
    }
    Ok(made)
}

impl From<&Recovered> for ExplainedLattice {
    fn from(recovered: &Recovered) -> Self {
        let (lowest, includes_lowest) = recovered.interval.lower_bound();
        let (highest, includes_highest) = recovered.interval.upper_bound();
        ExplainedLattice {
            scale: recovered.scale.to_f32(),
            scale_bits: recovered.scale.to_bits(),
            exact: recovered.is_exact,
            codes: recovered.codes.to_vec(),
            extremum_code: recovered.extremum_code,
            interval: ScaleInterval {
                lowest,
                includes_lowest,
                highest: Some(highest).filter(|bound| bound.is_finite()),
                includes_highest,
            },
        }
    }
}

impl ExplainedFit {
    fn new(rule: &'static str, fit: &Fit) -> Self {
        let (error, weights) = (f64::from(fit.squared_error), f64::from(fit.squared_weights));
        ExplainedFit {
            rule,
            scale: fit.scale.to_f32(),
            scale_bits: fit.scale.to_bits(),
            codes: fit.codes.to_vec(),
            exact: fit.exact,
            relative_error: if weights > 0.0 { (error / weights).sqrt() } else { 0.0 },
        }
    }
}
