//! How a long run is watched, and stopped.

/// Receives the progress of a run. Called from the thread that started it.
pub trait Observer: Sync {
    /// The bytes that follow belong to this tensor.
    fn tensor(&self, _name: &str) {}

    /// This many bytes of the checkpoint were read, converted and written.
    fn advance(&self, _bytes: u64) {}

    /// This many bytes were read, converted and written by an earlier run.
    fn resume(&self, _bytes: u64) {}

    /// Whether the run is to end now.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {}
