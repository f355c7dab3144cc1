//! Proof that a bundle computes what its checkpoint means.
//!
//! [`interpreter`] runs an `.aimodel` package on a CPU.

pub mod interpreter;
