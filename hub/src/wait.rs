//! Waits that end soon after the user asks to stop.

use std::future::Future;
use std::io;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};

/// How often a wait checks whether it should continue.
pub(crate) const STEP: Duration = Duration::from_millis(50);

/// Why a wait ended without a result.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The user asked to stop.
    Cancelled,
    /// The time was up.
    TimedOut,
}

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

    /// Does the work, unless the user asks to stop or it takes longer than `limit`; what is unfinished then is dropped.
    ///
    /// # Errors
    /// Why it ended early.
    pub(crate) fn run<T>(&self, limit: Option<Duration>, work: impl Future<Output = T>) -> Result<T, Ended> {
        let Ok(handle) = self.handle() else { return Err(Ended::Cancelled) };
        let begun = Instant::now();
        handle.block_on(async {
            tokio::pin!(work);
            loop {
                if (self.cancelled)() {
                    return Err(Ended::Cancelled);
                }
                if limit.is_some_and(|limit| begun.elapsed() >= limit) {
                    return Err(Ended::TimedOut);
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
/// [`Ended::Cancelled`].
pub(crate) fn pause(length: Duration, cancelled: fn() -> bool) -> Result<(), Ended> {
    let begun = Instant::now();
    loop {
        if cancelled() {
            return Err(Ended::Cancelled);
        }
        match length.checked_sub(begun.elapsed()) {
            Some(left) if !left.is_zero() => std::thread::sleep(left.min(STEP)),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::{Ended, Waiter, pause};

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn work_that_never_ends_is_left_behind() {
        static ASKED: AtomicBool = AtomicBool::new(false);
        let waiter = Waiter::new(|| ASKED.load(Ordering::SeqCst)).unwrap();
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| waiter.run(Some(LONG), pending::<()>()));
            ASKED.store(true, Ordering::SeqCst);
            assert_eq!(waits.join().unwrap(), Err(Ended::Cancelled));
        });
    }

    #[test]
    fn a_limit_ends_the_wait_and_a_result_is_returned() {
        let waiter = Waiter::new(|| false).unwrap();
        assert_eq!(waiter.run(Some(Duration::from_millis(1)), pending::<()>()), Err(Ended::TimedOut));
        assert_eq!(waiter.run(Some(LONG), ready(7)), Ok(7));
    }

    #[test]
    fn a_pause_ends_when_asked() {
        assert_eq!(pause(LONG, || true), Err(Ended::Cancelled));
        pause(Duration::from_micros(1), || false).unwrap();
    }
}
