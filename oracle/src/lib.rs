//! Checks that a bundle computes the same logits as its checkpoint.
//!
//! [`interpreter`] runs an `.aimodel` package on a CPU; [`stepper`] feeds it tokens as the engine does, one by one or in the
//! chunks of [`feeding`], with the per-layer rows of [`tables`]; [`lockstep`] feeds several sequences together.
//! [`reference`](mod@reference) computes the checkpoint in fp32. [`file`](mod@file) stores the checkpoint's predictions for some
//! [`prompts`], and [`gate`] compares a bundle with them. [`eval`] measures on a text how far bundles are from their checkpoint.
//! [`text`], [`sampling`] and [`generate`] write text with a bundle found by [`bundle`].

pub mod bundle;
mod contexts;
pub mod eval;
pub mod feeding;
pub mod file;
pub mod gate;
pub mod generate;
pub mod lockstep;
pub mod prompts;
pub mod reference;
pub mod sampling;
pub mod score;
pub mod stepper;
pub mod tables;
pub mod text;
mod validate;
