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

/// Whether a line is waited for: then Ctrl-C ends the process.
static WAITING: AtomicBool = AtomicBool::new(false);

/// Exit status of a program that Ctrl-C ended, as shells have it: 128 and the number of the signal.
const BY_CTRL_C: i32 = 130;

/// Turns Ctrl-C into a flag, except in [`while_waiting`]. Termination and a closed terminal end the process, as without this.
pub(crate) fn listen_in_conversation() -> anyhow::Result<()> {
    let handler = || {
        if WAITING.load(Ordering::Relaxed) {
            end();
        }
        ASKED.store(true, Ordering::Relaxed);
    };
    ctrlc::set_handler(handler).context("cannot listen for Ctrl-C")?;
    for signal in [libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the default disposition is valid for both signals, and no other thread changes them.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    Ok(())
}

/// Ends the process as Ctrl-C does.
pub(crate) fn end() -> ! {
    std::process::exit(BY_CTRL_C)
}

/// Waits for a line of a conversation.
pub(crate) fn while_waiting<T>(wait: impl FnOnce() -> T) -> T {
    WAITING.store(true, Ordering::Relaxed);
    let line = wait();
    WAITING.store(false, Ordering::Relaxed);
    line
}

/// Takes back what signals asked for so far.
pub(crate) fn forget() {
    ASKED.store(false, Ordering::Relaxed);
}

/// Whether a signal came.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}
