//! Numbers as people read them.

/// Bytes with a decimal unit, such as `3.92 GB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if count < 1000 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2} {}", UNITS[unit])
}

/// A count with a space every three digits, such as `144 900 096`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// A share in percent, never rounded up to 100 unless it is all.
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 || part == whole {
        return "100.00 %".to_owned();
    }
    let share = (part as f64 / whole as f64 * 10_000.0).floor() / 100.0;
    format!("{share:.2} %")
}

/// What weights are called that are all the checkpoint's.
pub(crate) const EXACT: &str = "exact";

/// A share of exact weights: a word if it is all of them.
pub fn exact(part: u64, whole: u64) -> String {
    if part == whole { EXACT.to_owned() } else { percent(part, whole) }
}

/// A divergence in nats: as a power of ten where it is small.
pub fn nats(divergence: f64) -> String {
    if divergence < 0.1 { format!("{divergence:.2e}") } else { format!("{divergence:.3}") }
}

/// A perplexity with five digits or more.
pub fn perplexity(value: f64) -> String {
    let decimals = if value < 1000.0 { 3 } else { 0 };
    format!("{value:.decimals$}")
}

/// A shape as `[128, 4]`.
pub fn shape(extents: &[u64]) -> String {
    format!("[{}]", text::bounds::extents(extents, ", "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_are_readable() {
        assert_eq!(super::bytes(999), "999 B");
        assert_eq!(super::bytes(3_924_000_000), "3.92 GB");
        assert_eq!(super::bytes(999_999), "1.00 MB");
        assert_eq!(super::grouped(144_900_096), "144 900 096");
        assert_eq!(super::grouped(12), "12");
        assert_eq!(super::percent(99_999, 100_000), "99.99 %");
        assert_eq!(super::percent(3, 3), "100.00 %");
        assert_eq!([super::exact(3, 3), super::exact(2, 3)], ["exact", "66.66 %"]);
        assert_eq!(super::shape(&[2, 3]), "[2, 3]");
        assert_eq!([0.000_021_04, 2.88].map(super::nats), ["2.10e-5", "2.880"]);
        assert_eq!([12.345_67, 108_935.9].map(super::perplexity), ["12.346", "108936"]);
    }
}
