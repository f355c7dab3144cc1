//! The ahead-of-time stage: finds the Core AI toolchain, runs it, checks what came out.
//!
//! A [`Stage`] reads and verifies a bundle and makes one sibling bundle per architecture with a [`Compiler`]: the
//! [`Toolchain`] of this machine, or the one of another Mac ([`Remote`]). The compiler's exit code
//! says nothing, so [`artifact`] checks what it wrote. Where there is no compiler at all, [`script`] and [`workflow`]
//! write what can be run on somebody else's Mac, or on a hosted one. Nothing here knows about checkpoints.

pub mod architecture;
pub mod artifact;
pub mod compile;
pub mod doctor;
pub mod error;
mod interrupt;
mod local;
mod log;
mod prefill;
mod process;
pub mod program;
pub mod remote;
pub mod report;
pub mod script;
mod shell;
mod sibling;
pub mod source;
mod stage;
mod toolchain;
pub mod workflow;

pub use architecture::{Architecture, Device, Platform};
pub use compile::{CompileSettings, MinimumOs, PreferredCompute};
pub use error::Error;
pub use interrupt::Interrupt;
pub use log::{KnownFault, Log, LogExcerpt};
pub use remote::Remote;
pub use sibling::Existing;
pub use stage::{
    CompileOutcome, CompileRequest, CompileTask, Compiler, DEFAULT_TIMEOUT, PlannedSibling, Sibling, Stage,
};
pub use toolchain::{Toolchain, ToolchainOptions};
