//! How long-running work reports what it does, and how it is stopped.

/// Receives the progress of long-running work: conversions, downloads, uploads, archives, compiles. By default, everything is ignored.
pub trait Progress: Sync {
    /// The total of what follows, in bytes or positions.
    fn expect(&self, _amount: u64) {}

    /// What follows belongs to this item: a tensor, a file, a compile.
    fn begin(&self, _item: &str) {}

    /// This much more is done.
    fn advance(&self, _amount: u64) {}

    /// This much was done by an earlier run.
    fn resume(&self, _amount: u64) {}

    /// Nothing more follows.
    fn finish(&self) {}

    /// Something that the user should know, though it is not an error.
    fn note(&self, _text: &str) {}

    /// Whether the work should stop now.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}

/// Passes on whether to stop, and nothing else: for a part of the work that counts in another unit than the whole.
#[derive(Clone, Copy)]
pub struct Quiet<'p>(pub &'p dyn Progress);

impl Progress for Quiet<'_> {
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
