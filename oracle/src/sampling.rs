//! Chooses the next token from logits: the largest one, or a draw that a seed makes reproducible.
//!
//! Logits are divided by the temperature, cut to the `top_k` largest, then to the fewest that hold `top_p` of what is left, in the order
//! of the Hugging Face `transformers` library (4.x, `GenerationMixin._get_logits_processor`). All sums are f64 in the order of
//! falling logits and exponentials come from `libm`, so equal logits and seeds give equal tokens on every machine.

use std::num::NonZeroUsize;

use serde::Serialize;

use crate::score::winner;

/// Largest temperature: above it, all tokens are about equally probable.
const HOTTEST: f64 = 100.0;

/// A number that says nothing about how to sample.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
pub enum SamplingError {
    /// The temperature is out of range.
    #[error("the temperature {0} is not between 0 and {HOTTEST}; 0 always takes the most probable token")]
    Temperature(f64),
    /// The probability is out of range.
    #[error("top-p {0} is not above 0 and at most 1; 1 leaves no token out")]
    TopP(f64),
}

/// How the next token is chosen.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Sampling {
    temperature: f64,
    top_k: Option<NonZeroUsize>,
    top_p: f64,
    seed: u64,
}

impl Sampling {
    /// Always the largest logit.
    pub const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: None, top_p: 1.0, seed: 0 };

    /// Draws at a temperature from the `top_k` most probable tokens that together hold `top_p` of the probability. Temperature 0 is
    /// [`Sampling::GREEDY`].
    ///
    /// # Errors
    /// If the temperature is not between 0 and 100, or `top_p` is not above 0 and at most 1.
    pub fn new(
        temperature: f64,
        top_k: Option<NonZeroUsize>,
        top_p: f64,
        seed: u64,
    ) -> Result<Sampling, SamplingError> {
        if !(0.0..=HOTTEST).contains(&temperature) {
            return Err(SamplingError::Temperature(temperature));
        }
        if !(top_p > 0.0 && top_p <= 1.0) {
            return Err(SamplingError::TopP(top_p));
        }
        Ok(Sampling { temperature, top_k, top_p, seed })
    }

    /// The seed, if one has an effect.
    pub fn seed(&self) -> Option<u64> {
        (self.temperature > 0.0).then_some(self.seed)
    }
}

/// Chooses tokens one after the other.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    generator: SplitMix64,
}

impl Sampler {
    /// Starts at the seed.
    pub fn new(sampling: Sampling) -> Sampler {
        Sampler { sampling, generator: SplitMix64(sampling.seed) }
    }

    /// The next token. Logits that are not finite have no chance, unless one is infinite or none is finite: then the winner is taken.
    pub fn pick(&mut self, logits: &[f32]) -> u32 {
        let best = winner(logits).id;
        let temperature = self.sampling.temperature;
        let largest = logits.get(best as usize).copied().unwrap_or(f32::NAN);
        if temperature <= 0.0 || !largest.is_finite() {
            return best;
        }
        let largest = f64::from(largest);
        let candidates = self.candidates(logits);
        let weight = |logit: f32| libm::exp((f64::from(logit) - largest) / temperature);
        let weights: Vec<f64> = candidates.iter().map(|(_, logit)| weight(*logit)).collect();
        let enough = self.sampling.top_p * weights.iter().sum::<f64>();
        let kept = up_to(&weights, enough);
        let drawn = self.generator.fraction() * weights[..kept].iter().sum::<f64>();
        let mut sum = 0.0;
        let at = weights[..kept].iter().position(|weight| {
            sum += weight;
            sum > drawn
        });
        candidates.get(at.unwrap_or(kept - 1)).map_or(best, |(id, _)| *id)
    }

    /// The `top_k` largest finite logits with their ids, largest first; the lower id first on a tie.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f32)> {
        let order = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        let pairs = (0_u32..).zip(logits.iter().copied());
        let mut pairs: Vec<(u32, f32)> = pairs.filter(|(_, logit)| logit.is_finite()).collect();
        if let Some(most) = self.sampling.top_k.map(NonZeroUsize::get).filter(|most| *most < pairs.len()) {
            pairs.select_nth_unstable_by(most - 1, order);
            pairs.truncate(most);
        }
        pairs.sort_unstable_by(order);
        pairs
    }
}

/// How many leading weights are needed for a sum of `enough`: at least one.
fn up_to(weights: &[f64], enough: f64) -> usize {
    let mut sum = 0.0;
    let last = weights.iter().position(|weight| {
        sum += weight;
        sum >= enough
    });
    last.map_or(weights.len(), |last| last + 1)
}

/// The generator of Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators" (OOPSLA 2014), as in Java's
/// `SplittableRandom`: 64 bits of state, which is the seed.
#[derive(Clone, Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// At least 0 and below 1, in steps of 2^-53.
    fn fraction(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sampler(temperature: f64, top_k: usize, top_p: f64, seed: u64) -> Sampler {
        Sampler::new(Sampling::new(temperature, NonZeroUsize::new(top_k), top_p, seed).unwrap())
    }

    #[test]
    fn the_generator_is_the_published_one() {
        let mut generator = SplitMix64(1_234_567);
        let found: Vec<u64> = (0..5).map(|_| generator.next()).collect();
        let published = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert_eq!(found, published);
    }

    #[test]
    fn a_seed_always_gives_the_same_tokens() {
        let logits = [1.0, 0.5, 2.0, -1.0, 0.0, 1.5];
        let drawn = |seed: u64| -> Vec<u32> {
            let mut sampler = sampler(1.0, 0, 1.0, seed);
            (0..16).map(|_| sampler.pick(&logits)).collect()
        };
        assert_eq!(drawn(7), drawn(7));
        assert_ne!(drawn(7), drawn(8));
        assert_eq!(drawn(0), GOLDEN);
    }

    /// Computed by a few lines of Python from the definition above.
    const GOLDEN: [u32; 16] = [1, 5, 2, 4, 2, 2, 2, 0, 2, 4, 2, 0, 5, 5, 0, 5];

    #[test]
    fn frequencies_are_the_softmax_at_the_temperature() {
        let logits = [0.0_f32, 1.0, 2.0, f32::NAN, f32::NEG_INFINITY];
        for temperature in [0.5, 1.0, 3.0] {
            let weights: Vec<f64> =
                logits[..3].iter().map(|logit| (f64::from(*logit) / temperature).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut counts = [0_u32; 5];
            let mut sampler = sampler(temperature, 0, 1.0, 3);
            (0..20_000).for_each(|_| counts[sampler.pick(&logits) as usize] += 1);
            for (count, weight) in counts.iter().zip(&weights) {
                let (found, expected) = (f64::from(*count) / 20_000.0, weight / total);
                assert!((found - expected).abs() < 0.015, "{found} is not {expected} at {temperature}");
            }
            assert_eq!(counts[3..], [0, 0]);
        }
    }

    #[test]
    fn numbers_out_of_range_and_logits_without_order() {
        assert!(Sampling::new(f64::NAN, None, 1.0, 0).is_err() && Sampling::new(-0.1, None, 1.0, 0).is_err());
        assert!(Sampling::new(1.0, None, 0.0, 0).is_err() && Sampling::new(1.0, None, f64::NAN, 0).is_err());
        let mut sampler = sampler(1.0, 0, 0.5, 0);
        assert_eq!(sampler.pick(&[0.0, f32::INFINITY]), 1);
        assert_eq!((sampler.pick(&[]), sampler.pick(&[f32::NAN, f32::NEG_INFINITY])), (0, 0));
    }

    proptest! {
        #[test]
        fn only_the_most_probable_tokens_are_drawn(
            logits in prop::collection::vec(-8.0_f32..8.0, 1..40),
            top_k in 0_usize..10,
            top_p in 0.01_f64..1.0,
            seed: u64,
        ) {
            let drawn = sampler(1.0, top_k, top_p, seed).pick(&logits) as usize;
            let larger: Vec<f32> = logits.iter().copied().filter(|logit| *logit > logits[drawn]).collect();
            prop_assert!(top_k == 0 || larger.len() < top_k);
            let share = |logits: &[f32]| logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>();
            // What is more probable than the token does not hold top_p by itself.
            prop_assert!(top_k != 0 || share(&larger) < top_p * share(&logits) + 1e-9);
            prop_assert_eq!(sampler(1.0, 1, 1.0, seed).pick(&logits), winner(&logits).id);
            prop_assert_eq!(sampler(0.0, top_k, top_p, seed).pick(&logits), winner(&logits).id);
        }
    }
}
