//! Runs an `.aimodel` package on a CPU.
//!
//! Ops run one by one in the order of the graph, and none are fused, so an op that is wired wrongly produces wrong numbers. f16
//! results are rounded as f16, sums are computed in f32 or wider. As in Apple's runtime, composite ops are computed directly,
//! not through their decomposition regions. Quantized weights stay packed in the mapped file: matrix products read the codes
//! themselves, once for all tokens of a chunk. A token's results have the same bits in any chunk, with any number of threads.

mod arithmetic;
mod error;
mod execute;
mod kernels;
mod matmul;
mod movement;
mod parallel;
mod program;
mod session;
mod tensor;
mod value;

pub use error::InterpretError;
pub use program::Port;
pub use session::{Observer, Outputs, Session};
pub use tensor::Tensor;

/// How f16 results are rounded where the graph does not define it, as in matrix products and gelu.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rounding {
    /// Once, at the end: sums are computed in f32. Fast, and the most accurate.
    #[default]
    Once,
    /// After every multiplication and addition, in order, and with the system's `sinf`, `cosf`, `powf` and `expf`, as in Apple's
    /// Linux runtime. Slow; for comparison with that runtime.
    EachStep,
}
