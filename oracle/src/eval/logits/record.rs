//! The checkpoint's distribution at one position, as it is stored.

use std::sync::LazyLock;

use crate::score::winner;

/// Bytes before the distances: checksum u32, winner u32, margin f32, reserved u32, negative log-likelihood f64.
pub(super) const FIXED: usize = 24;
/// Bytes of a distance.
pub(super) const DISTANCE: usize = 3;
/// Distances are in units of `2^-18`, so that 24 bits reach 64 below the largest logit.
const UNIT_BITS: i32 = 18;
/// The largest distance.
const FARTHEST: f64 = ((1_u32 << 24) - 1) as f64;

/// `exp(-d)` for distances `d` of `code << 12` and of `code`, in units: a product of two is any distance's. The error of each is
/// that of one rounding.
static EXPONENTIALS: LazyLock<[Vec<f64>; 2]> = LazyLock::new(|| {
    let unit = libm::ldexp(1.0, -UNIT_BITS);
    [f64::from(1 << 12), 1.0]
        .map(|step| (0..1 << 12).map(|at| libm::exp(-f64::from(at) * step * unit)).collect())
});

/// What a checkpoint says at a position: its winner, and for each token how far its logit is below the largest.
#[derive(Clone, PartialEq, Debug)]
pub struct Record {
    /// The token with the largest logit.
    pub winner: u32,
    /// By how much it leads, in logits.
    pub margin: f32,
    /// Negative log-likelihood of the token that follows in the text, in nats.
    pub nll: f64,
    /// 24 bits for each token.
    distances: Vec<u8>,
}

/// How a bundle's distribution at a position compares with the checkpoint's.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
pub struct Comparison {
    /// Negative log-likelihood of the token that follows, in nats.
    pub nll: f64,
    /// KL(checkpoint || bundle), in nats.
    pub kl: f64,
    /// Whether both have the same winner.
    pub agrees: bool,
}

/// `ln(sum(exp(logits)))`, and the largest logit.
fn log_sum_exp(logits: &[f32]) -> (f64, f64) {
    let largest = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|logit| libm::exp(f64::from(*logit) - largest)).sum();
    (largest + libm::log(sum), largest)
}

impl Record {
    /// From f32 logits `[V]`; none if they are not finite, or there is no such target.
    pub fn new(logits: &[f32], target: u32) -> Option<Record> {
        let likely = f64::from(*logits.get(target as usize)?);
        if !logits.iter().all(|logit| logit.is_finite()) {
            return None;
        }
        let ((total, largest), best) = (log_sum_exp(logits), winner(logits));
        let unit = libm::ldexp(1.0, UNIT_BITS);
        let mut distances = Vec::with_capacity(DISTANCE * logits.len());
        for logit in logits {
            let code = ((largest - f64::from(*logit)) * unit + 0.5).min(FARTHEST) as u32;
            distances.extend(&code.to_le_bytes()[..DISTANCE]);
        }
        Some(Record { winner: best.id, margin: best.margin, nll: total - likely, distances })
    }

    /// The codes of all distances.
    fn codes(&self) -> impl Iterator<Item = usize> {
        self.distances
            .chunks_exact(DISTANCE)
            .map(|code| usize::from(code[0]) | usize::from(code[1]) << 8 | usize::from(code[2]) << 16)
    }

    /// Compares f32 logits `[V]` with it; none if they are not finite, or of another vocabulary.
    pub fn compare(&self, found: &[f32], target: u32) -> Option<Comparison> {
        let likely = f64::from(*found.get(target as usize)?);
        if DISTANCE * found.len() != self.distances.len() || !found.iter().all(|logit| logit.is_finite()) {
            return None;
        }
        let (total, _) = log_sum_exp(found);
        let [coarse, fine] = &*EXPONENTIALS;
        let unit = libm::ldexp(1.0, -UNIT_BITS);
        // With e = exp(-d), p = e / sum(e): sum(p (ln p - ln q)) = sum(e (total - d - found)) / sum(e) - ln(sum(e)).
        let (mut sum, mut weighted) = (0.0, 0.0);
        for (code, found) in self.codes().zip(found) {
            let likelihood = coarse[code >> 12] * fine[code & 0xfff];
            sum += likelihood;
            weighted += likelihood * (total - code as f64 * unit - f64::from(*found));
        }
        // Rounding can make the divergence slightly negative.
        let kl = (weighted / sum - libm::log(sum)).max(0.0);
        Some(Comparison { nll: total - likely, kl, agrees: winner(found).id == self.winner })
    }

    /// The stored form.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        bytes.extend(self.winner.to_le_bytes());
        bytes.extend(self.margin.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes.extend(self.nll.to_le_bytes());
        bytes.extend(&self.distances);
        let sum = crc32fast::hash(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// From the stored form; none if it was changed.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Record> {
        let sum = bytes.first_chunk()?;
        if crc32fast::hash(&bytes[4..]) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (fixed, distances) = bytes.split_at_checked(FIXED)?;
        let (winner, margin, nll) = numbers(fixed)?;
        Some(Record { winner, margin, nll, distances: distances.to_vec() })
    }
}

/// Winner, margin and likelihood of a stored record; none if they are not numbers that a checkpoint gives.
pub(super) fn numbers(fixed: &[u8]) -> Option<(u32, f32, f64)> {
    let winner = u32::from_le_bytes(*fixed.get(4..)?.first_chunk()?);
    let margin = f32::from_le_bytes(*fixed.get(8..)?.first_chunk()?);
    let nll = f64::from_le_bytes(*fixed.get(16..)?.first_chunk()?);
    (margin.is_finite() && margin >= 0.0 && nll.is_finite() && nll >= 0.0).then_some((winner, margin, nll))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::score::kl_divergence;

    fn logits() -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-30.0..30.0_f32, 300)
    }

    proptest! {
        /// A stored logarithm of a probability is off by at most e = 2e-6, so the divergence is off by e (E|ln p - ln q| + KL), and
        /// E|ln p - ln q| is at most KL + sqrt(2 KL), by Pinsker's inequality.
        #[test]
        fn divergences_are_those_of_the_logits(expected in logits(), found in logits(), near in 0.0..1.0_f32) {
            // From almost equal to unrelated.
            let found: Vec<f32> = expected.iter().zip(found).map(|(a, b)| a + near * near * (b - a)).collect();
            let record = Record::new(&expected, 7).unwrap();
            let compared = record.compare(&found, 7).unwrap();
            let exact = kl_divergence(&expected, &found);
            prop_assert!(compared.kl >= 0.0);
            let bound = 2e-6 * (2.0 * exact + (2.0 * exact).sqrt()) + 1e-9;
            prop_assert!((compared.kl - exact).abs() < bound, "{} {exact}", compared.kl);
            let itself = record.compare(&expected, 7).unwrap();
            prop_assert!(itself.kl < 1e-10 && itself.agrees, "{itself:?}");
            prop_assert_eq!(itself.nll, record.nll);
        }
    }

    #[test]
    fn what_is_stored_is_read_and_any_other_byte_is_noticed() {
        let record = Record::new(&[0.5, 3.0, -90.0, 2.0], 0).unwrap();
        assert_eq!((record.winner, record.margin), (1, 1.0));
        let bytes = record.to_bytes();
        assert_eq!(bytes.len(), FIXED + 4 * DISTANCE);
        assert_eq!(Record::from_bytes(&bytes), Some(record.clone()));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(Record::from_bytes(&damaged), None, "byte {at}");
        }
        assert_eq!(Record::from_bytes(&bytes[..3]), None);
        assert_eq!(record.compare(&[0.0; 3], 0), None, "another vocabulary");
        assert_eq!(record.compare(&[0.0, f32::NAN, 0.0, 0.0], 0), None);
        assert_eq!(record.compare(&[0.0; 4], 4), None, "no such token");
        assert_eq!(Record::new(&[0.0, f32::INFINITY], 0), None);
    }
}
