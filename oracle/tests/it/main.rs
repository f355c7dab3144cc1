//! The fp32 reference, the interpreter, and the gate that compares them.

#![allow(clippy::unwrap_used, reason = "helpers of tests, which clippy.toml does not know as tests")]

mod dense;
mod eval;
mod exact;
mod gate;
mod interpreter_apple;
mod lockstep;
mod prefill;
mod reference;
mod run;
mod spoiled;
mod support;
mod verdict;
