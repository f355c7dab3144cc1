//! The gather tables, from which the host reads a token's rows.
//!
//! Raw little-endian files without a header. A row has int8 codes and one f32 scale; see [`quantizer::quantize_rows`] for the rule.

mod compare;
mod plan;
pub mod safetensors;
mod write;

pub use compare::{TableDifference, difference};
pub(crate) use plan::Job;
pub use plan::{PlannedFile, TablesPlan};
pub(crate) use write::{TableOutput, TableRows, TableWriter};
pub use write::{WrittenTables, write};
