//! One block under a rule, for explanations.

use half::bf16;

use super::absmax::{self, Width};
use super::block::{BLOCK, Fit, widen};
use super::{Int4Rule, QuantizeError, lattice, q4_0};

/// The result of [`super::quantize_int4`] for a block.
///
/// # Errors
/// If a weight is not finite or too large.
pub fn fit(rule: Int4Rule, block: &[bf16; BLOCK]) -> Result<Fit, QuantizeError> {
    match rule {
        Int4Rule::Lattice => lattice::fit(block),
        Int4Rule::Q4_0 => q4_0::fit(&widen(block)?),
        Int4Rule::Absmax => absmax::fit(&widen(block)?, Width::Int4),
    }
}

/// The result of [`super::quantize_int8`] for a block.
///
/// # Errors
/// If a weight is not finite or too large.
pub fn fit_int8(block: &[bf16; BLOCK]) -> Result<Fit, QuantizeError> {
    absmax::fit(&widen(block)?, Width::Int8)
}
