//! Waits that end soon after the user asks to stop.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often a wait checks whether it should continue.
pub(crate) const STEP: Duration = Duration::from_millis(50);

/// Why a wait ended without a result.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The user asked to stop.
    Cancelled,
    /// The time was up.
    TimedOut,
    /// The system could not start a thread to wait in.
    NoThread(io::Error),
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

/// Does what the system offers no way to stop, such as looking up a name, in a separate thread. A thread that is no
/// longer waited for ends on its own, or with the process.
///
/// # Errors
/// If the wait ended before the work did.
pub(crate) fn in_thread<T: Send + 'static>(
    limit: Duration,
    cancelled: fn() -> bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Ended> {
    let (give, take) = mpsc::sync_channel(1);
    let worker = std::thread::Builder::new().name("connect".to_owned());
    // The receiver is gone if the wait has ended.
    worker.spawn(move || drop(give.send(work()))).map_err(Ended::NoThread)?;
    let begun = Instant::now();
    loop {
        if cancelled() {
            return Err(Ended::Cancelled);
        }
        let left = limit.saturating_sub(begun.elapsed());
        match take.recv_timeout(left.min(STEP)) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
            Err(RecvTimeoutError::Timeout) => return Err(Ended::TimedOut),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Ended::NoThread(io::Error::other("the thread that connects has died")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::{Ended, in_thread, pause};

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn work_that_never_ends_is_left_behind() {
        static ASKED: AtomicBool = AtomicBool::new(false);
        let (began, begun) = mpsc::channel();
        let (hold, held) = mpsc::channel::<()>();
        let waiter = std::thread::spawn(move || {
            in_thread(
                LONG,
                || ASKED.load(Ordering::SeqCst),
                move || {
                    began.send(()).unwrap();
                    held.recv().unwrap_err();
                },
            )
        });
        begun.recv().unwrap();
        ASKED.store(true, Ordering::SeqCst);
        // The work is held until `hold` is dropped, which is after the waiter was joined.
        assert!(matches!(waiter.join().unwrap(), Err(Ended::Cancelled)));
        drop(hold);
    }

    #[test]
    fn a_limit_ends_the_wait_and_a_result_is_returned() {
        let (hold, held) = mpsc::channel::<()>();
        let ended = in_thread(Duration::from_millis(1), || false, move || held.recv());
        assert!(matches!(ended, Err(Ended::TimedOut)));
        drop(hold);
        assert_eq!(in_thread(LONG, || false, || 7).unwrap(), 7);
    }

    #[test]
    fn a_pause_ends_when_asked() {
        assert!(matches!(pause(LONG, || true), Err(Ended::Cancelled)));
        pause(Duration::from_micros(1), || false).unwrap();
    }
}
