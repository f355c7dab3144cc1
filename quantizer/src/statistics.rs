//! What quantization did to the weights.

use serde::{Deserialize, Serialize};

use super::RuleSample;

/// Counts and errors of quantized blocks, computed from the packed codes and the stored f16 scales.
///
/// A weight is exact if `code * scale`, rounded to the nearest bf16 number (ties to even), equals it; zeros of either sign are
/// equal. Errors are those of `code * scale` itself, which is what the graph computes with, so blocks whose weights are all
/// exact still have a small error.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// Blocks of 32 weights.
    pub blocks: u64,
    /// Blocks that lie on a lattice, so that their codes are the trained ones; see [`super::Fit::on_lattice`]. Never fewer than
    /// `blocks_exact`.
    pub blocks_on_lattice: u64,
    /// Blocks of which every weight is exact: those on a lattice with an f16 number for a scale.
    pub blocks_exact: u64,
    /// Weights.
    pub weights: u64,
    /// Exact weights.
    pub weights_exact: u64,
    /// Sum of `(code * scale - weight)^2`.
    pub squared_error: f64,
    /// Sum of `weight^2`.
    pub squared_weights: f64,
    /// The block with the largest relative error, the first one on a tie; none if every error is zero.
    pub worst: Option<WorstBlock>,
    /// How often the extremum (the first element of largest magnitude) of a block has a code: entry 0 counts code -8, entry 15
    /// code 7. Blocks of zeros are left out, and so are all blocks with 8-bit codes.
    pub extremum_codes: [u64; 16],
    /// How often a scale has an exponent: entry `e` counts magnitudes from 2^(e-15) up to twice that, entry 0 those below 2^-14.
    /// Blocks of zeros are left out.
    pub scale_exponents: [u64; 32],
    /// Blocks of zeros.
    pub zero_blocks: u64,
    /// Scales below 2^-14, the smallest normal f16 number, in blocks that are not all zero: they have lost bits.
    pub subnormal_scales: u64,
    /// Scales below zero.
    pub negative_scales: u64,
    /// What each rule keeps of a sample of the blocks, if one was taken.
    pub sample: RuleSample,
}

/// A block and its error.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct WorstBlock {
    /// Index of the block, from the start of what was quantized.
    pub block: u64,
    /// Root of the block's squared error over its squared weights.
    pub relative_error: f32,
}

impl Statistics {
    /// Root mean square of the error, relative to that of the weights; 0 for nothing but zeros.
    pub fn relative_error(&self) -> f64 {
        if self.squared_weights == 0.0 { 0.0 } else { (self.squared_error / self.squared_weights).sqrt() }
    }

    /// Adds the statistics of the blocks that follow. The sums of squares are those of f64 additions in the order of the calls, so
    /// the same parts merged in the same order produce the same bits.
    pub fn merge(&mut self, next: &Self) {
        if let Some(worst) = next.worst
            && self.worst.is_none_or(|known| worst.relative_error > known.relative_error)
        {
            self.worst = Some(WorstBlock { block: self.blocks + worst.block, ..worst });
        }
        self.blocks += next.blocks;
        self.blocks_on_lattice += next.blocks_on_lattice;
        self.blocks_exact += next.blocks_exact;
        self.weights += next.weights;
        self.weights_exact += next.weights_exact;
        self.squared_error += next.squared_error;
        self.squared_weights += next.squared_weights;
        for (sum, count) in self.extremum_codes.iter_mut().zip(next.extremum_codes) {
            *sum += count;
        }
        for (sum, count) in self.scale_exponents.iter_mut().zip(next.scale_exponents) {
            *sum += count;
        }
        self.zero_blocks += next.zero_blocks;
        self.subnormal_scales += next.subnormal_scales;
        self.negative_scales += next.negative_scales;
        self.sample.merge(&next.sample);
    }
}

#[cfg(test)]
mod tests {
    use super::{RuleSample, Statistics, WorstBlock};

    fn part(blocks: u64, worst: Option<(u64, f32)>) -> Statistics {
        let worst = worst.map(|(block, relative_error)| WorstBlock { block, relative_error });
        let mut extremum_codes = [0; 16];
        extremum_codes[15] = blocks;
        let mut scale_exponents = [0; 32];
        scale_exponents[7] = blocks;
        Statistics {
            blocks,
            blocks_on_lattice: blocks,
            blocks_exact: blocks - 1,
            weights: 32 * blocks,
            weights_exact: 32 * blocks - 3,
            squared_error: 0.25,
            squared_weights: 4.0,
            worst,
            extremum_codes,
            scale_exponents,
            zero_blocks: 1,
            subnormal_scales: 2,
            negative_scales: 3,
            sample: RuleSample { weights: 16, ..RuleSample::default() },
        }
    }

    #[test]
    fn parts_add_up_and_the_worst_block_keeps_its_place() {
        let mut sum = Statistics::default();
        for next in
            [part(10, None), part(20, Some((4, 0.5))), part(30, Some((7, 0.5))), part(5, Some((2, 0.75)))]
        {
            sum.merge(&next);
        }
        let mut expected = part(65, Some((62, 0.75)));
        expected.blocks_exact = 61;
        expected.weights_exact = 32 * 65 - 12;
        expected.sample.weights = 64;
        (expected.squared_error, expected.squared_weights) = (1.0, 16.0);
        (expected.zero_blocks, expected.subnormal_scales, expected.negative_scales) = (4, 8, 12);
        assert_eq!(sum, expected);
        assert_eq!(sum.relative_error(), 0.25);
        sum.merge(&part(1, Some((0, 0.75))));
        assert_eq!(sum.worst.map(|worst| worst.block), Some(62), "the first one on a tie");
        assert_eq!(Statistics::default().relative_error(), 0.0);
    }
}
