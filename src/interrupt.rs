//! Ctrl-C and termination: a run is asked to end, and cleans up after itself.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Turns the signals into a flag. A second one does nothing more: cleaning up takes well under a second.
pub(crate) fn listen() -> anyhow::Result<()> {
    match ctrlc::set_handler(|| ASKED.store(true, Ordering::Relaxed)) {
        // If somebody listens already, they do the same.
        Ok(()) | Err(ctrlc::Error::MultipleHandlers) => Ok(()),
        Err(error) => Err(error).context("cannot listen for Ctrl-C"),
    }
}

/// Whether a signal came.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
