//! Runs an `.aimodel` package on a CPU.
//!
//! Op by op, as the graph says and in its order: nothing is fused on the assumption that it is right, so an op that is wired wrongly
//! gives wrong numbers. f16 results are rounded as f16, sums are kept in f32 or wider. Composite ops are computed by what they
//! mean, not through their decomposition regions, as Apple's runtime does. Quantized weights stay packed in the mapped file: matrix
//! products read the codes themselves.

mod arithmetic;
mod error;
mod execute;
mod kernels;
mod matmul;
mod movement;
mod program;
mod session;
mod tensor;
mod value;

pub use error::InterpretError;
pub use program::Port;
pub use session::{Observer, Outputs, Session};
pub use tensor::Tensor;
