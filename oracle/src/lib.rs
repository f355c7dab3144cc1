//! Proof that a bundle computes what its checkpoint means.
//!
//! [`interpreter`] runs an `.aimodel` package on a CPU; [`stepper`] feeds it tokens as the engine does, with the per-layer rows of
//! [`tables`].

pub mod interpreter;
pub mod stepper;
pub mod tables;
