//! The rules that choose a block's scale and codes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a block of 32 weights becomes 4-bit codes and a scale.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Int4Rule {
    /// The lattice on which the weights were trained, recovered; the best fit for a block that is not on a lattice.
    #[default]
    Lattice,
    /// GGML's Q4_0: the signed extremum divided by -8.
    Q4_0,
    /// The largest magnitude divided by 7.5.
    Absmax,
}

impl Int4Rule {
    /// All rules, the default first.
    pub const ALL: [Int4Rule; 3] = [Int4Rule::Lattice, Int4Rule::Q4_0, Int4Rule::Absmax];

    /// The name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Int4Rule::Lattice => "lattice",
            Int4Rule::Q4_0 => "q4_0",
            Int4Rule::Absmax => "absmax",
        }
    }
}

impl fmt::Display for Int4Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
