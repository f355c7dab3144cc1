//! A share of positions, and how sure it is.

use serde::Serialize;

/// Quantile of the normal distribution for an interval of 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// A share of positions with Wilson's interval of 95 %, which treats positions as independent. They are not, so the true
/// interval is somewhat wider.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Share {
    /// Positions that agree.
    pub agreed: usize,
    /// All of them.
    pub of: usize,
    /// Their ratio; 1 if there are none.
    pub share: f64,
    /// Lower bound of the interval.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Share {
    /// E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    pub fn new(agreed: usize, of: usize) -> Share {
        if of == 0 {
            return Share { agreed, of, share: 1.0, low: 0.0, high: 1.0 };
        }
        let (n, share) = (of as f64, agreed as f64 / of as f64);
        let squared = Z * Z / n;
        let center = share + squared / 2.0;
        let half = Z * (share * (1.0 - share) / n + squared / (4.0 * n)).sqrt();
        let bound = |value: f64| (value / (1.0 + squared)).clamp(0.0, 1.0);
        // Rounding must not put the share itself outside.
        Share {
            agreed,
            of,
            share,
            low: bound(center - half).min(share),
            high: bound(center + half).max(share),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_intervals() {
        // Computed in Python.
        for (agreed, of, low, high) in
            [(9, 10, 0.595_850, 0.982_124), (0, 20, 0.0, 0.161_125), (980, 1000, 0.969_310, 0.987_016)]
        {
            let share = Share::new(agreed, of);
            assert!((share.low - low).abs() < 2e-6 && (share.high - high).abs() < 2e-6, "{share:?}");
        }
        assert_eq!(Share::new(0, 0), Share { agreed: 0, of: 0, share: 1.0, low: 0.0, high: 1.0 });
    }

    proptest! {
        #[test]
        fn the_interval_holds_the_share_and_shrinks(of in 1_usize..100_000, part in 0.0..=1.0_f64) {
            let agreed = (of as f64 * part) as usize;
            let share = Share::new(agreed, of);
            prop_assert!(0.0 <= share.low && share.low <= share.share);
            prop_assert!(share.share <= share.high && share.high <= 1.0);
            let more = Share::new(4 * agreed, 4 * of);
            prop_assert!(more.high - more.low < share.high - share.low);
        }
    }
}
