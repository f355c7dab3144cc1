//! What each 4-bit rule keeps of the same blocks, so that a report can say what the other rules would have cost.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

use super::block::BLOCK;
use super::{Int4Rule, Statistics, quantize_int4};

/// Blocks that follow each other in the sample.
const TOGETHER: usize = 16;
/// Blocks of which as many are in the sample. All rules together take less than a twentieth of the time of quantization.
const STRIDE: usize = 1024;

/// What a rule keeps of a sample.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Kept {
    /// Exact weights, as [`Statistics`] counts them.
    pub weights_exact: u64,
    /// Sum of `(code * scale - weight)^2`.
    pub squared_error: f64,
}

/// What each rule keeps of a sample of blocks, which depends on the lengths of tensors alone.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct RuleSample {
    /// Weights of the sample.
    pub weights: u64,
    /// Sum of `weight^2`.
    pub squared_weights: f64,
    /// What is kept, in the order of [`Int4Rule::ALL`].
    pub kept: [Kept; Int4Rule::ALL.len()],
}

impl RuleSample {
    /// Sixteen of every 1024 blocks. Blocks that a rule refuses are left out.
    pub fn of(weights: &[bf16]) -> Self {
        let mut sum = RuleSample::default();
        for (at, part) in weights.chunks(STRIDE * BLOCK).enumerate() {
            let blocks = part.len() / BLOCK;
            let sampled = blocks.min(TOGETHER);
            // Not the same columns of all rows.
            let start = at * TOGETHER % (blocks - sampled + 1);
            if let Some(sample) = Self::of_part(&part[start * BLOCK..(start + sampled) * BLOCK]) {
                sum.merge(&sample);
            }
        }
        sum
    }

    fn of_part(weights: &[bf16]) -> Option<Self> {
        let (mut codes, mut scales) = ([0; TOGETHER * BLOCK / 2], [f16::ZERO; TOGETHER]);
        let mut sample = RuleSample::default();
        for (kept, rule) in sample.kept.iter_mut().zip(Int4Rule::ALL) {
            let codes = &mut codes[..weights.len() / 2];
            let scales = &mut scales[..weights.len() / BLOCK];
            let Statistics { weights_exact, squared_error, squared_weights, .. } =
                quantize_int4(rule, weights, codes, scales).ok()?;
            *kept = Kept { weights_exact, squared_error };
            (sample.weights, sample.squared_weights) = (weights.len() as u64, squared_weights);
        }
        Some(sample)
    }

    /// Adds another sample.
    pub fn merge(&mut self, next: &Self) {
        self.weights += next.weights;
        self.squared_weights += next.squared_weights;
        for (sum, next) in self.kept.iter_mut().zip(next.kept) {
            sum.weights_exact += next.weights_exact;
            sum.squared_error += next.squared_error;
        }
    }

    /// Each rule with what it keeps and the root mean square of its error, relative to that of the weights.
    pub fn rules(&self) -> impl Iterator<Item = (Int4Rule, Kept, f64)> {
        let whole = self.squared_weights;
        let relative = move |error: f64| if whole > 0.0 { (error / whole).sqrt() } else { 0.0 };
        Int4Rule::ALL.into_iter().zip(self.kept).map(move |(rule, kept)| {
            let error = relative(kept.squared_error);
            (rule, kept, error)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks as Q4_0 leaves them, with scales that f16 holds; the extremum has code -8 in every other one, else +7.
    fn trained(blocks: usize) -> Vec<bf16> {
        let weight = |at: usize| {
            let (block, place) = (at / BLOCK, at % BLOCK);
            let extremum = if block.is_multiple_of(2) { -8.0 } else { 7.0 };
            let code = if place == 0 { extremum } else { (place * 5 % 13) as f32 - 6.0 };
            bf16::from_f32(code * 0.0625)
        };
        (0..blocks * BLOCK).map(weight).collect()
    }

    #[test]
    fn every_rule_sees_the_same_sample_and_counts_as_it_does_for_all_blocks() {
        let weights = trained(16);
        let sample = RuleSample::of(&weights);
        assert_eq!(sample.weights, 512);
        for (rule, kept, error) in sample.rules() {
            let (mut codes, mut scales) = ([0; 256], [f16::ZERO; 16]);
            let all = quantize_int4(rule, &weights, &mut codes, &mut scales).unwrap();
            assert_eq!((kept.weights_exact, error), (all.weights_exact, all.relative_error()), "{rule}");
        }
        assert_eq!(sample.kept[0].weights_exact, 512, "lattice keeps all");
        assert!(sample.kept[1].weights_exact >= 256, "q4_0 keeps blocks whose extremum is -8");
        assert!(sample.kept[2].weights_exact < 256, "absmax does not");
    }

    #[test]
    fn a_sample_is_a_small_part_and_skips_what_a_rule_refuses() {
        let mut weights = trained(10 * STRIDE + 3);
        assert_eq!(RuleSample::of(&weights).weights, ((10 * TOGETHER + 3) * BLOCK) as u64);
        assert_eq!(RuleSample::of(&[]), RuleSample::default());
        weights.fill(bf16::NAN);
        assert_eq!(RuleSample::of(&weights), RuleSample::default());
    }
}
