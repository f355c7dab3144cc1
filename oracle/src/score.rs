//! Statistics of logits: winner, margin, distances.

use sha2::{Digest, Sha256};

/// A position whose two best fp32 logits are closer than this is a near-tie and does not qualify.
pub const QUALIFYING_MARGIN: f32 = 0.1;

/// The largest logit, and how far it leads the second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Winner {
    /// Id of the largest logit; the lowest id on a tie.
    pub id: u32,
    /// Difference of the two largest logits.
    pub margin: f32,
}

/// The winner of a position's logits; without logits, id 0 with margin 0.
pub fn winner(logits: &[f32]) -> Winner {
    let (mut id, mut best, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    for (at, logit) in (0_u32..).zip(logits) {
        if *logit > best {
            (id, second, best) = (at, best, *logit);
        } else if *logit > second {
            second = *logit;
        }
    }
    let margin = if second.is_finite() { best - second } else { 0.0 };
    Winner { id, margin }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Euclidean norm.
pub fn norm(values: &[f32]) -> f64 {
    dot(values, values).sqrt()
}

/// Cosine of the angle between two vectors; 0 if one of them is 0 or not finite.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let cosine = dot(a, b) / (norm(a) * norm(b));
    if cosine.is_finite() { cosine } else { 0.0 }
}

/// Norm of the difference, relative to the norm of `expected`.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    let difference: f64 =
        found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let error = difference.sqrt() / norm(expected);
    if error.is_finite() { error } else { f64::INFINITY }
}

/// Kullback-Leibler divergence of `found` from `expected` in nats, as the softmax of both; infinite if a logit is not finite.
pub fn kl_divergence(expected: &[f32], found: &[f32]) -> f64 {
    let (p, q) = (log_sum_exp(expected), log_sum_exp(found));
    let term = |(expected, found): (&f32, &f32)| {
        let (log_p, log_q) = (f64::from(*expected) - p, f64::from(*found) - q);
        libm::exp(log_p) * (log_p - log_q)
    };
    let divergence: f64 = expected.iter().zip(found).map(term).sum();
    // Rounding can make the sum slightly negative.
    if divergence.is_nan() { f64::INFINITY } else { divergence.max(0.0) }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| libm::exp(f64::from(*logit) - f64::from(largest))).sum();
    f64::from(largest) + libm::log(sum)
}

/// First 8 bytes of the SHA-256 of logits as little-endian f32, in hexadecimal.
pub fn digest(logits: &[f32]) -> String {
    let mut hasher = Sha256::new();
    for logit in logits {
        hasher.update(logit.to_le_bytes());
    }
    hex::encode(&hasher.finalize()[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_winner_is_the_largest_and_its_margin_the_difference_to_the_second() {
        assert_eq!(winner(&[1.0, 3.5, -2.0, 3.0]), Winner { id: 1, margin: 0.5 });
        assert_eq!(winner(&[2.0, 2.0]), Winner { id: 0, margin: 0.0 });
        assert_eq!(winner(&[]), Winner { id: 0, margin: 0.0 });
    }

    #[test]
    fn equal_logits_have_no_divergence_and_a_known_pair_has_the_expected_one() {
        assert_eq!(kl_divergence(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0]), 0.0);
        // p = (1/2, 1/2), q = (3/4, 1/4): ln(2/3) / 2 + ln(2) / 2.
        let divergence = kl_divergence(&[0.0, 0.0], &[3.0_f32.ln(), 0.0]);
        assert!((divergence - 0.143_841).abs() < 1e-6, "{divergence}");
    }

    #[test]
    fn distances_of_non_finite_values_are_the_worst() {
        assert_eq!(cosine(&[f32::NAN, 1.0], &[1.0, 1.0]), 0.0);
        assert_eq!(relative_error(&[f32::NAN], &[1.0]), f64::INFINITY);
        assert_eq!(kl_divergence(&[1.0, 2.0], &[f32::NAN, 2.0]), f64::INFINITY);
        assert_eq!(kl_divergence(&[1.0, 2.0], &[f32::INFINITY, 2.0]), f64::INFINITY);
    }
}
