//! What of a matrix comes out of the pass over its codes.

use half::f16;

use super::workers::Product;
use crate::quant::Statistics;

/// What is known of a matrix besides its codes: its scales, which stand behind them, and what quantization did.
#[derive(Default)]
pub(super) struct Matrix {
    pub(super) scales: Vec<f16>,
    pub(super) statistics: Option<Statistics>,
}

impl Matrix {
    /// Adds what was made of a piece.
    pub(super) fn append(&mut self, product: &Product) {
        self.scales.extend_from_slice(&product.scales);
        let Some(statistics) = &product.statistics else { return };
        match &mut self.statistics {
            Some(sum) => sum.merge(statistics),
            None => self.statistics = Some(statistics.clone()),
        }
    }
}
