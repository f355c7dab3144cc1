//! Why a package cannot be run.

use std::io;
use std::path::PathBuf;

use aimodel::Opcode;
use aimodel::bytecode::reader::ReadError;

/// A package that cannot be opened, or a step that cannot be computed.
#[derive(Debug, thiserror::Error)]
pub enum InterpretError {
    /// The program's file is missing, damaged or of another version.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The `main.mlirb`.
        path: PathBuf,
        /// What is wrong with it.
        source: ReadError,
    },
    /// The system refused to read or map a file.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The graph does not have a structure that can be run.
    #[error("the graph cannot be run: {0}")]
    Graph(String),
    /// An op cannot be computed, or its result does not have the declared type.
    #[error("op {at} ({opcode}): {reason}")]
    Op {
        /// Position in program order, the first op of the graph being 0.
        at: usize,
        /// Kind of the op.
        opcode: Opcode,
        /// Why it fails.
        reason: String,
    },
    /// An input is missing, unknown, or does not have the type that the graph declares.
    #[error("input {name:?}: {reason}")]
    Input {
        /// Name of the input.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An earlier step failed while it overwrote a state, so the states are invalid.
    #[error("an earlier step failed and left the states invalid: reset the session before the next one")]
    Poisoned,
    /// The caller asked to stop in the middle of a step.
    #[error("interrupted")]
    Stopped,
}
