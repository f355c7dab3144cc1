//! Lists and counts in sentences.

use crate::digits;

/// `a`, `a and b`, `a, b and c`.
pub(crate) fn list(items: &[impl AsRef<str>]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [front @ .., last] => format!("{} and {last}", front.join(", ")),
    }
}

/// `1 position`, `1 200 positions`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", digits::grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::{counted, list};

    #[test]
    fn lists_and_counts_are_english() {
        assert_eq!(list(&[""; 0]), "");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b"]), "a and b");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(counted(1, "weight"), "1 weight");
        assert_eq!(counted(1200, "weight"), "1 200 weights");
        assert_eq!(counted(0, "weight"), "0 weights");
    }
}
