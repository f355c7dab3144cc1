//! Work in parallel, results in order, look-ahead bounded: the engine of every conversion.
//!
//! Workers take pieces in order and may run ahead of the consumer by a fixed number of pieces; the consumer gets results one
//! by one, in order, on the calling thread. So the output does not depend on the number of threads, and memory is limited to
//! the pieces in flight.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// What workers and consumer share.
struct Shared<T, E> {
    /// Next piece that a worker takes.
    next: usize,
    /// First piece whose result the consumer has not taken.
    consumed: usize,
    /// Results from `consumed` on; `None` while they are being made.
    results: VecDeque<Option<Result<T, E>>>,
    /// No more pieces may be taken.
    stopped: bool,
    /// A worker panicked: its result will never come.
    failed: bool,
}

struct Queue<T, E> {
    count: usize,
    ahead: usize,
    shared: Mutex<Shared<T, E>>,
    produced: Condvar,
    taken: Condvar,
}

impl<T, E> Queue<T, E> {
    /// A worker that panicked cannot have left a broken state: it is changed in single steps.
    fn lock(&self) -> MutexGuard<'_, Shared<T, E>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next piece to work on; waits while too many results are not yet taken.
    fn take_piece(&self) -> Option<usize> {
        let mut shared = self.lock();
        while !shared.stopped && shared.next < self.count && shared.next - shared.consumed >= self.ahead {
            shared = self.taken.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
        if shared.stopped || shared.next == self.count {
            return None;
        }
        shared.results.push_back(None);
        shared.next += 1;
        Some(shared.next - 1)
    }

    fn put_result(&self, piece: usize, result: Result<T, E>) {
        let mut shared = self.lock();
        let at = piece - shared.consumed;
        if let Some(slot) = shared.results.get_mut(at) {
            *slot = Some(result);
        }
        self.produced.notify_one();
    }

    fn take_result(&self) -> Result<T, E> {
        let mut shared = self.lock();
        loop {
            if let Some(Some(_)) = shared.results.front() {
                shared.consumed += 1;
                self.taken.notify_one();
                if let Some(Some(result)) = shared.results.pop_front() {
                    return result;
                }
            }
            assert!(!shared.failed, "a worker panicked");
            shared = self.produced.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        self.lock().stopped = true;
        self.taken.notify_all();
    }
}

/// Releases the workers when the consumer leaves, by a return or by a panic.
struct StopOnDrop<'q, T, E>(&'q Queue<T, E>);

impl<T, E> Drop for StopOnDrop<'_, T, E> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Tells the consumer, which would wait forever, that a worker panicked; the panic itself continues when threads are joined.
struct FailOnPanic<'q, T, E>(&'q Queue<T, E>);

impl<T, E> Drop for FailOnPanic<'_, T, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.lock().failed = true;
            self.0.produced.notify_all();
        }
    }
}

/// Runs `produce` for pieces `0..count` on `threads` threads, and `consume` on their results in order on this one. At most
/// `ahead` results wait. The first error in the order of pieces ends everything and is returned.
///
/// # Errors
/// Whatever `produce` or `consume` return.
pub fn for_each_in_order<T: Send, E: Send>(
    count: usize,
    threads: usize,
    ahead: usize,
    produce: impl Fn(usize) -> Result<T, E> + Sync,
    mut consume: impl FnMut(usize, T) -> Result<(), E>,
) -> Result<(), E> {
    let shared = Shared { next: 0, consumed: 0, results: VecDeque::new(), stopped: false, failed: false };
    let queue = Queue {
        count,
        ahead: ahead.max(1),
        shared: Mutex::new(shared),
        produced: Condvar::new(),
        taken: Condvar::new(),
    };
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&queue);
        for _ in 0..threads.clamp(1, count.max(1)) {
            scope.spawn(|| {
                let _failure = FailOnPanic(&queue);
                while let Some(piece) = queue.take_piece() {
                    queue.put_result(piece, produce(piece));
                }
            });
        }
        (0..count).try_for_each(|piece| consume(piece, queue.take_result()?))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::for_each_in_order;

    #[test]
    fn results_come_in_order_and_look_ahead_is_bounded() {
        let (made, taken, furthest) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        let mut seen = Vec::new();
        let run = for_each_in_order(
            200,
            4,
            6,
            |piece| {
                // Later pieces are quicker, so that they overtake.
                std::thread::sleep(Duration::from_micros(200 - piece as u64));
                let ahead = made.fetch_add(1, Ordering::SeqCst) + 1 - taken.load(Ordering::SeqCst);
                furthest.fetch_max(ahead, Ordering::SeqCst);
                Ok::<_, ()>(piece)
            },
            |piece, result| {
                taken.fetch_add(1, Ordering::SeqCst);
                seen.push((piece, result));
                Ok(())
            },
        );
        assert_eq!(run, Ok(()));
        assert_eq!(seen, (0..200).map(|piece| (piece, piece)).collect::<Vec<_>>());
        assert!(furthest.into_inner() <= 7, "one more than allowed is being taken at most");
    }

    #[test]
    fn the_first_error_in_order_ends_the_run() {
        let consumed = AtomicUsize::new(0);
        let run = for_each_in_order(
            100,
            2,
            4,
            |piece| if piece >= 10 { Err(piece) } else { Ok(()) },
            |_, ()| {
                consumed.fetch_add(1, Ordering::SeqCst);
                Ok(())
            },
        );
        assert_eq!((run, consumed.into_inner()), (Err(10), 10));
    }

    #[test]
    fn an_error_of_the_consumer_stops_the_workers() {
        let run =
            for_each_in_order(usize::MAX, 2, 4, Ok, |piece, _| if piece == 5 { Err("full") } else { Ok(()) });
        assert_eq!(run, Err("full"));
    }

    #[test]
    #[should_panic(expected = "panicked")]
    fn a_panic_of_a_worker_ends_the_run() {
        let _ = for_each_in_order(
            10,
            2,
            4,
            |piece| {
                assert!(piece != 3, "piece 3 panicked");
                Ok::<_, ()>(())
            },
            |_, ()| Ok(()),
        );
    }
}
