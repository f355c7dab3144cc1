//! Waits that end soon after the user asks to stop.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::Error;

/// How often a wait checks whether it should continue.
pub(crate) const STEP: Duration = Duration::from_millis(50);

/// The threads that move bytes while others wait for them.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// Nothing only while it is dropped.
    runtime: Option<Runtime>,
    cancelled: fn() -> bool,
}

impl Waiter {
    /// Starts two threads.
    ///
    /// # Errors
    /// If the system refuses.
    pub(crate) fn new(cancelled: fn() -> bool) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).thread_name("hub").enable_all().build()?;
        Ok(Waiter { runtime: Some(runtime), cancelled })
    }

    /// Where work can be started.
    ///
    /// # Errors
    /// Never before it is dropped.
    pub(crate) fn handle(&self) -> io::Result<&Handle> {
        self.runtime.as_ref().map(Runtime::handle).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }

    /// Does the work, unless the user asks to stop; what is unfinished then is dropped.
    ///
    /// # Errors
    /// [`Error::Cancelled`].
    pub(crate) fn run<T>(&self, work: impl Future<Output = T>) -> Result<T, Error> {
        let Ok(handle) = self.handle() else { return Err(Error::Cancelled) };
        handle.block_on(async {
            tokio::pin!(work);
            loop {
                if (self.cancelled)() {
                    return Err(Error::Cancelled);
                }
                if let Ok(result) = tokio::time::timeout(STEP, &mut work).await {
                    return Ok(result);
                }
            }
        })
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // A name that is being looked up would be waited for otherwise.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Sleeps.
///
/// # Errors
/// [`Error::Cancelled`].
pub(crate) fn pause(length: Duration, cancelled: fn() -> bool) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        match length.checked_sub(begun.elapsed()) {
            Some(left) if !left.is_zero() => std::thread::sleep(left.min(STEP)),
            _ => return Ok(()),
        }
    }
}
