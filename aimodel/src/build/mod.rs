//! Building of graphs: typed constructors that infer types and write decomposition regions.

mod constants;
mod decompose;
mod emitter;
mod graph;
mod ops;

pub use constants::Scalar;
pub use decompose::decomposition;
pub use graph::{BuildError, GraphBuilder, unknown_location};
