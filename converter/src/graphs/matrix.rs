//! The results of the pass over a matrix's codes, other than the codes.

use half::f16;

use super::workers::Product;
use crate::quant::Statistics;

/// What belongs to a matrix besides its codes: its scales, which follow them, and what quantization did.
#[derive(Default)]
pub(super) struct Matrix {
    pub(super) scales: Vec<f16>,
    pub(super) statistics: Option<Statistics>,
}

impl Matrix {
    /// Adds the results for a piece.
    pub(super) fn append(&mut self, product: &Product) {
        self.scales.extend_from_slice(&product.scales);
        let Some(statistics) = &product.statistics else { return };
        match &mut self.statistics {
            Some(sum) => sum.merge(statistics),
            None => self.statistics = Some(statistics.clone()),
        }
    }
}
