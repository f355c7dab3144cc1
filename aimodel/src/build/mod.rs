//! Building of assets and their functions: typed constructors that infer types and write decomposition regions.

mod asset;
mod constants;
mod decompose;
mod emitter;
mod function;
mod ops;

pub use asset::AssetBuilder;
pub use constants::Scalar;
pub use decompose::decomposition;
pub use function::{BuildError, FunctionBuilder};
