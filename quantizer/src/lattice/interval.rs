//! The scales that reproduce a block with given codes.

use half::{bf16, f16};

/// Least common multiple of the codes 1..8. A bound divided by a code is kept times this, so that it is exact: the midpoint of
/// two bf16 numbers has 10 significant bits, 840 over a code at most 10 more.
pub(crate) const COMMON_MULTIPLE: f64 = 840.0;

/// An interval of magnitudes of scales.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Interval {
    /// Bounds times [`COMMON_MULTIPLE`].
    lowest: f64,
    highest: f64,
    includes_lowest: bool,
    includes_highest: bool,
}

impl Interval {
    /// Every scale.
    pub(super) const UNBOUNDED: Interval =
        Interval { lowest: 0.0, highest: f64::INFINITY, includes_lowest: true, includes_highest: false };

    /// The scales whose product with a code, not 0, rounds to a weight, not 0: those between the midpoints to the weight's
    /// neighbors, over the code. A midpoint rounds to the neighbor with the even significand.
    pub(super) fn of(weight: bf16, code: i8) -> Self {
        let bits = weight.to_bits() & 0x7fff;
        let at = |bits| bf16::from_bits(bits).to_f64();
        let factor = COMMON_MULTIPLE / f64::from(code.unsigned_abs());
        let is_even = bits.is_multiple_of(2);
        Interval {
            lowest: (at(bits - 1) + at(bits)) / 2.0 * factor,
            highest: (at(bits) + at(bits + 1)) / 2.0 * factor,
            includes_lowest: is_even,
            includes_highest: is_even,
        }
    }

    /// The scales in both.
    pub(super) fn intersection(self, other: Self) -> Self {
        let (lowest, includes_lowest) = if self.lowest == other.lowest {
            (self.lowest, self.includes_lowest && other.includes_lowest)
        } else if self.lowest > other.lowest {
            (self.lowest, self.includes_lowest)
        } else {
            (other.lowest, other.includes_lowest)
        };
        let (highest, includes_highest) = if self.highest == other.highest {
            (self.highest, self.includes_highest && other.includes_highest)
        } else if self.highest < other.highest {
            (self.highest, self.includes_highest)
        } else {
            (other.highest, other.includes_highest)
        };
        Interval { lowest, highest, includes_lowest, includes_highest }
    }

    /// Lower bound and whether it belongs to the interval.
    pub fn lower_bound(&self) -> (f64, bool) {
        (self.lowest / COMMON_MULTIPLE, self.includes_lowest)
    }

    /// Upper bound and whether it belongs to the interval.
    pub fn upper_bound(&self) -> (f64, bool) {
        (self.highest / COMMON_MULTIPLE, self.includes_highest)
    }

    /// Whether no scale lies in the interval.
    pub(super) fn is_empty(&self) -> bool {
        self.lowest > self.highest
            || self.lowest == self.highest && !(self.includes_lowest && self.includes_highest)
    }

    /// Whether a magnitude lies in the interval.
    pub fn contains(&self, scale: f16) -> bool {
        let at = scale.to_f64() * COMMON_MULTIPLE;
        (at > self.lowest || self.includes_lowest && at == self.lowest)
            && (at < self.highest || self.includes_highest && at == self.highest)
    }

    /// The f16 number to take: a bf16 number if there is one, then the one nearest the middle, then the smallest.
    pub(super) fn scale(&self) -> Option<f16> {
        let start = f16::from_f64(self.lowest / COMMON_MULTIPLE).to_bits().saturating_sub(1).max(1);
        let inside = (start..=f16::MAX.to_bits())
            .map(f16::from_bits)
            .take_while(|scale| scale.to_f64() * COMMON_MULTIPLE <= self.highest)
            .filter(|scale| self.contains(*scale));
        inside.min_by(|a, b| {
            let (a, b) = (self.preference(*a), self.preference(*b));
            a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
        })
    }

    /// The f16 numbers below and above an interval that holds none: first the one nearer its middle, the smaller one on a tie.
    pub(super) fn neighbors(&self) -> [f16; 2] {
        let near = f16::from_f64(self.lowest / COMMON_MULTIPLE);
        let is_below = near.to_f64() * COMMON_MULTIPLE <= self.lowest;
        let below = if is_below { near.to_bits() } else { near.to_bits() - 1 };
        let (below, above) = (f16::from_bits(below), f16::from_bits(below + 1));
        if self.distance(above) < self.distance(below) { [above, below] } else { [below, above] }
    }

    /// Smaller is better.
    fn preference(&self, scale: f16) -> (bool, f64) {
        let is_bf16 = bf16::from_f32(scale.to_f32()).to_f64() == scale.to_f64();
        (!is_bf16, self.distance(scale))
    }

    /// Distance from the middle, times a constant and without rounding errors.
    fn distance(&self, scale: f16) -> f64 {
        (2.0 * COMMON_MULTIPLE * scale.to_f64() - (self.lowest + self.highest)).abs()
    }
}

#[cfg(test)]
mod tests {
    use super::Interval;
    use half::{bf16, f16};

    fn bounds(weight: f32, code: i8) -> ((f64, bool), (f64, bool)) {
        let interval = Interval::of(bf16::from_f32(weight), code);
        (interval.lower_bound(), interval.upper_bound())
    }

    #[test]
    fn bounds_are_midpoints_over_the_code() {
        // bf16 numbers in [1, 2) are 1/128 apart, below 1 half as far.
        assert_eq!(
            bounds(1.5, 1),
            ((1.5 - 1.0 / 256.0, true), (1.5 + 1.0 / 256.0, true)),
            "even significand"
        );
        assert_eq!(bounds(1.5, -4).1, ((1.5 + 1.0 / 256.0) / 4.0, true));
        let odd = 1.0 + 1.0 / 128.0;
        assert_eq!(bounds(odd, 2), (((1.0 + 1.0 / 256.0) / 2.0, false), ((1.0 + 3.0 / 256.0) / 2.0, false)));
        assert_eq!(bounds(1.0, 1), ((1.0 - 1.0 / 512.0, true), (1.0 + 1.0 / 256.0, true)), "power of two");
        assert_eq!(bounds(-3.0, 3), bounds(3.0, 3));
    }

    #[test]
    fn an_open_bound_wins_over_a_closed_one_at_the_same_place() {
        let odd = bf16::from_bits(bf16::from_f32(1.5).to_bits() + 1);
        let both = Interval::of(bf16::from_f32(1.5), 1).intersection(Interval::of(odd, 1));
        let midpoint = 1.5 + 1.0 / 256.0;
        assert_eq!((both.lower_bound(), both.upper_bound()), ((midpoint, false), (midpoint, true)));
        assert_eq!(both.scale(), None);
        assert!(both.is_empty());
        let next = Interval::of(bf16::from_bits(odd.to_bits() + 1), 1);
        assert!(Interval::of(bf16::from_f32(1.5), 1).intersection(next).is_empty(), "two steps apart");
        assert!(!next.is_empty());
    }

    #[test]
    fn a_bf16_number_is_preferred_then_the_middle_then_the_smaller() {
        let interval = |lowest: f64, highest: f64| Interval {
            lowest: lowest * 840.0,
            highest: highest * 840.0,
            includes_lowest: true,
            includes_highest: true,
        };
        let step = 1.0 / 1024.0;
        let scale = |low: f64, high: f64| interval(1.0 + low * step, 1.0 + high * step).scale();
        let at = |steps: f64| Some(f16::from_f64(1.0 + steps * step));
        assert_eq!(scale(1.0, 9.0), at(8.0), "bf16 numbers are eight steps apart");
        assert_eq!(scale(1.0, 5.0), at(3.0));
        assert_eq!(scale(1.0, 4.0), at(2.0), "two are equally near the middle");
        assert_eq!(scale(1.1, 1.9), None);
        assert_eq!(interval(0.0, 2.0_f64.powi(-25)).scale(), None, "zero is not a scale");
        assert!(!interval(1.5, 1.5).is_empty(), "one number is enough");
    }

    #[test]
    fn neighbors_enclose_the_interval_the_nearer_one_first() {
        let step = 1.0 / 1024.0;
        let neighbors = |low: f64, high: f64| {
            let bound = |steps: f64| (1.0 + steps * step) * 840.0;
            let (includes_lowest, includes_highest) = (false, false);
            let interval =
                Interval { lowest: bound(low), highest: bound(high), includes_lowest, includes_highest };
            interval.neighbors().map(|scale| (scale.to_f64() - 1.0) / step)
        };
        assert_eq!(neighbors(1.1, 1.2), [1.0, 2.0]);
        assert_eq!(neighbors(1.1, 1.95), [2.0, 1.0]);
        assert_eq!(neighbors(1.7, 1.8), [2.0, 1.0]);
        assert_eq!(neighbors(1.25, 1.75), [1.0, 2.0], "the smaller one on a tie");
        assert_eq!(neighbors(1.0, 2.0), [1.0, 2.0], "bounds that do not belong to it");
    }
}
