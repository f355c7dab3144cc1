//! Runs an `.aimodel` package on a CPU.
//!
//! Op by op, as the graph says and in its order: nothing is fused on the assumption that it is right, so an op that is wired wrongly
//! gives wrong numbers. f16 results are rounded as f16, sums are kept in f32 or wider. Composite ops are computed by what they
//! mean, not through their decomposition regions, as Apple's runtime does. Quantized weights stay packed in the mapped file: matrix
//! products read the codes themselves, once for all tokens of a chunk. A token gets the same bits in any chunk, and whatever the number
//! of threads.

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

/// How the result of an f16 op is rounded where the graph leaves it open: matrix products and gelu.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rounding {
    /// Once, at the end: sums are kept in f32. Fast, and the nearest to what the weights mean.
    #[default]
    Once,
    /// After every multiplication and addition, in order, and with the system's `sinf`, `cosf`, `powf` and `expf`: what Apple's Linux
    /// runtime does. Slow; for holding against it.
    EachStep,
}
