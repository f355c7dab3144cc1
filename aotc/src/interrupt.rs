//! A request to stop, raised by Ctrl-C.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A flag that long-running work checks. Clones share it.
#[derive(Clone, Default, Debug)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    asked: Option<fn() -> bool>,
}

impl Interrupt {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that is raised as soon as `asked` says so, for programs with their own signal handler.
    pub fn watching(asked: fn() -> bool) -> Self {
        Self { asked: Some(asked), ..Self::default() }
    }

    /// Asks the work to stop and clean up.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::SeqCst);
    }

    /// Whether the work was asked to stop.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::SeqCst) || self.asked.is_some_and(|asked| asked())
    }
}
