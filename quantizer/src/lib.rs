//! Quantizers: blocks of 32 bf16 weights to 4- or 8-bit codes and an f16 scale each, and plain rounding to f16. The rows of gather
//! tables have a rule of their own, [`quantize_rows`].
//!
//! The runtime computes `code * scale`. [`Int4Rule`] names the rules that choose both; int8 always follows the rule of
//! [`Int4Rule::Absmax`] with wider codes. The default, [`lattice`], reproduces exactly the weights that quantization-aware training
//! left, block by block, and takes the best fit if a block is not on a lattice. That is decided for every block separately,
//! at the cost of a few vector operations: no result depends on other blocks, on how a tensor is cut, or on the number of
//! threads. (The sums of squares in [`Statistics`] are f64 additions in the order of merging; only their last bits depend on
//! the cut.)
//!
//! A weight that is NaN, infinite or too large for f16 is an error. Only `q4_0` takes weights up to eight times that, as long as
//! its scale fits.
//!
//! Every rule of blocks exists twice: plainly, one block at a time ([`fit`], [`lattice::recover`]), and in vectors for whole tensors. Tests
//! check that both produce the same bits.

mod absmax;
mod block;
mod chunks;
mod dispatch;
mod error;
mod fit;
pub mod lattice;
mod q4_0;
mod rows;
mod rule;
mod sample;
mod statistics;
mod vector;

pub use block::{BLOCK, Fit};
pub use chunks::{quantize_int4, quantize_int8, to_f16};
pub use error::QuantizeError;
pub use fit::{fit, fit_int8};
pub use rows::quantize_rows;
pub use rule::Int4Rule;
pub use sample::{Kept, RuleSample};
pub use statistics::{Statistics, WorstBlock};
