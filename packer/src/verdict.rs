//! What a gate found, in a few words.

use std::fmt::{self, Display, Formatter};

use serde_json::Value;

/// The result of the gate, as manifests record it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the bundle writes what its checkpoint writes.
    pub passed: bool,
    /// Positions at which both choose the same token.
    pub agreed: u64,
    /// Positions that count.
    pub qualified: u64,
}

impl Verdict {
    /// Reads it from a manifest's `gate`; None if the gate was not run.
    pub fn of(gate: &Value) -> Option<Self> {
        let count = |key: &str| gate[key].as_u64().unwrap_or_default();
        Some(Verdict {
            passed: gate["passed"].as_bool()?,
            agreed: count("agreed"),
            qualified: count("qualified"),
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let word = if self.passed { "passed" } else { "FAILED" };
        write!(out, "{word}: {} of {} positions", self.agreed, self.qualified)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Verdict;

    #[test]
    fn a_gate_that_was_not_run_has_no_verdict() {
        let gate = json!({"passed": false, "agreed": 3, "qualified": 4});
        assert_eq!(Verdict::of(&gate).unwrap().to_string(), "FAILED: 3 of 4 positions");
        assert_eq!(Verdict::of(&json!(null)), None);
    }
}
