//! Weights as codes and scales: the three int4 rules, int8, and rounding to half precision.
//!
//! A matrix is split along its last axis into blocks of 32. Each rule exists twice: plainly, one block at a time ([`fit`], [`lattice::recover`]), which
//! is what explains a block and what tests hold the rest to, and in vectors (`vector`), which is what conversions run. Both give the same bits
//! on every machine: the instruction set is picked at run time, and no step depends on its width.

mod absmax;
mod block;
mod chunks;
mod error;
mod fit;
pub mod lattice;
mod q4_0;
mod rule;
mod statistics;
mod vector;

pub use block::{BLOCK, Fit};
pub use chunks::{
    quantize_int4, quantize_int4_serial, quantize_int8, quantize_int8_serial, to_f16, to_f16_serial,
};
pub use error::QuantizeError;
pub use fit::{fit, fit_int8};
pub use lattice::is_on_lattice;
pub use rule::Int4Rule;
pub use statistics::{Statistics, WorstBlock};
