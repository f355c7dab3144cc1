//! The rules on many blocks at once, in vectors. The bits are the same as those of the plain rules on every machine.
//!
//! Everything generic over [`fearless_simd::Simd`] is `inline(always)`: it becomes part of the one function for each set of
//! instructions that [`dispatch`](crate::dispatch) chooses from.

mod absmax;
mod half_bits;
mod halves;
mod kernel;
mod lanes;
mod lattice;
mod q4_0;

#[cfg(test)]
mod tests;

pub(super) use halves::to_f16;
pub(super) use kernel::{int4, int8};
