//! Prefetch over a slow connection: what will be read is fetched before it is asked for, in order, over several connections, in bounded
//! memory.
//!
//! Readers do not notice it: a read that finds its bytes takes them, one whose bytes are being fetched waits, and any other
//! read is fetched at once. So a wrong forecast costs time, never correctness.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Bytes of one request.
const SEGMENT: u64 = 4 << 20;
/// Bytes fetched, or being fetched, and not yet read.
const BUDGET: u64 = 64 << 20;
/// Connections.
const CONNECTIONS: usize = 8;
/// How often a waiting reader checks whether it should still wait.
const PATIENCE: Duration = Duration::from_millis(100);

/// A range of one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    /// Number of the file.
    pub(super) file: usize,
    /// Bytes of it.
    pub(super) range: Range<u64>,
}

impl Stretch {
    fn length(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn holds(&self, file: usize, place: u64) -> bool {
        self.file == file && self.range.contains(&place)
    }
}

/// Fetches bytes, in any order, from any thread.
pub(super) trait Fetch: Send + Sync + 'static {
    type Error: Send + Sync + 'static;

    /// Fills `out` with a file's bytes from `start` on.
    fn fetch(&self, file: usize, start: u64, out: &mut [u8]) -> Result<(), Self::Error>;

    /// The error for a reader that must not wait any longer.
    fn cancelled(&self) -> Option<Self::Error>;
}

/// A range whose fetch has started.
struct Live<E> {
    number: u64,
    stretch: Stretch,
    state: FetchState<E>,
    unread: u64,
}

enum FetchState<E> {
    Fetching,
    Here(Arc<Vec<u8>>),
    Failed(Arc<E>),
}

struct Window<E> {
    /// What will be fetched, in order.
    queue: VecDeque<Stretch>,
    /// Fetches that have started, in order.
    live: VecDeque<Live<E>>,
    live_bytes: u64,
    begun: u64,
    started: bool,
    stopped: bool,
}

struct Shared<F: Fetch> {
    fetch: F,
    window: Mutex<Window<F::Error>>,
    changed: Condvar,
}

/// Bytes that have arrived, and where the first of them lies.
type Here = (Arc<Vec<u8>>, u64);

/// A source of bytes with prefetch.
pub(super) struct Prefetch<F: Fetch>(Arc<Shared<F>>);

impl<F: Fetch> std::fmt::Debug for Prefetch<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prefetch").finish_non_exhaustive()
    }
}

impl<F: Fetch> Prefetch<F> {
    pub(super) fn new(fetch: F) -> Self {
        let window = Window {
            queue: VecDeque::new(),
            live: VecDeque::new(),
            live_bytes: 0,
            begun: 0,
            started: false,
            stopped: false,
        };
        Prefetch(Arc::new(Shared { fetch, window: Mutex::new(window), changed: Condvar::new() }))
    }

    /// Announces what is read next, after everything that was announced before.
    pub(super) fn expect(&self, stretches: impl IntoIterator<Item = Stretch>) {
        let mut window = self.0.lock();
        for Stretch { file, range } in stretches {
            let mut start = range.start;
            while start < range.end {
                let end = range.end.min(start + SEGMENT);
                window.queue.push_back(Stretch { file, range: start..end });
                start = end;
            }
        }
        if !window.started {
            window.started = true;
            for _ in 0..CONNECTIONS {
                let shared = Arc::clone(&self.0);
                // Not joined: a thread that hangs on a dead connection ends with its timeout, which is too long to wait for.
                std::thread::spawn(move || shared.work());
            }
        }
        self.0.changed.notify_all();
    }

    /// Fills `out` with a file's bytes from `start` on.
    pub(super) fn read(&self, file: usize, start: u64, out: &mut [u8]) -> Result<(), Arc<F::Error>> {
        let mut filled = 0;
        while filled < out.len() {
            let place = start + filled as u64;
            let rest = &mut out[filled..];
            let Some((bytes, first)) = self.0.find(file, place, rest.len() as u64)? else {
                return self.0.fetch.fetch(file, place, rest).map_err(Arc::new);
            };
            let bytes = &bytes[(place - first) as usize..];
            let count = bytes.len().min(rest.len());
            rest[..count].copy_from_slice(&bytes[..count]);
            filled += count;
        }
        Ok(())
    }
}

impl<F: Fetch> Drop for Prefetch<F> {
    fn drop(&mut self) {
        self.0.lock().stopped = true;
        self.0.changed.notify_all();
    }
}

impl<F: Fetch> Shared<F> {
    fn lock(&self) -> MutexGuard<'_, Window<F::Error>> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches ranges until they are no longer needed.
    fn work(&self) {
        while let Some((number, stretch)) = self.begin() {
            let mut bytes = vec![0; stretch.length() as usize];
            let state = match self.fetch.fetch(stretch.file, stretch.range.start, &mut bytes) {
                Ok(()) => FetchState::Here(Arc::new(bytes)),
                Err(error) => FetchState::Failed(Arc::new(error)),
            };
            let mut window = self.lock();
            if let Some(live) = window.live.iter_mut().find(|live| live.number == number) {
                live.state = state;
            }
            self.changed.notify_all();
        }
    }

    /// The next range, when there is room for it.
    fn begin(&self) -> Option<(u64, Stretch)> {
        let mut window = self.lock();
        loop {
            if window.stopped {
                return None;
            }
            if let Some(begun) = window.begin() {
                return Some(begun);
            }
            window = self.changed.wait(window).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Looks for up to `wanted` bytes from `place` on, waits if they are being fetched, and counts them as read. Nothing if they
    /// were not announced.
    fn find(&self, file: usize, place: u64, wanted: u64) -> Result<Option<Here>, Arc<F::Error>> {
        let mut window = self.lock();
        loop {
            if let Some(at) = window.live.iter().position(|live| live.stretch.holds(file, place)) {
                match &window.live[at].state {
                    FetchState::Here(_) => {
                        self.changed.notify_all();
                        return Ok(window.take(at, place, wanted));
                    }
                    FetchState::Failed(error) => return Err(Arc::clone(error)),
                    FetchState::Fetching => {}
                }
            } else if !window.will_come(file, place) {
                return Ok(None);
            }
            window = self.changed.wait_timeout(window, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
            if let Some(error) = self.fetch.cancelled() {
                return Err(Arc::new(error));
            }
        }
    }
}

impl<E> Window<E> {
    /// The bytes of a range that has arrived; the range is dropped when all of it was read.
    fn take(&mut self, at: usize, place: u64, wanted: u64) -> Option<Here> {
        let live = self.live.get_mut(at)?;
        let FetchState::Here(bytes) = &live.state else { return None };
        let here = (Arc::clone(bytes), live.stretch.range.start);
        live.unread = live.unread.saturating_sub(wanted.min(live.stretch.range.end - place));
        if live.unread == 0 {
            self.live_bytes -= live.stretch.length();
            self.live.remove(at);
        }
        Some(here)
    }

    /// The next range, if there is room for it, marked as started.
    fn begin(&mut self) -> Option<(u64, Stretch)> {
        let room = BUDGET.saturating_sub(self.live_bytes);
        self.queue.front().filter(|stretch| stretch.length() <= room)?;
        let stretch = self.queue.pop_front()?;
        self.begun += 1;
        self.live_bytes += stretch.length();
        let (number, unread) = (self.begun, stretch.length());
        self.live.push_back(Live { number, stretch: stretch.clone(), state: FetchState::Fetching, unread });
        Some((number, stretch))
    }

    /// Whether this place is fetched before anything that is being fetched now must be read.
    fn will_come(&self, file: usize, place: u64) -> bool {
        let mut bytes = self.live_bytes;
        for stretch in &self.queue {
            bytes += stretch.length();
            if bytes > BUDGET {
                return false;
            }
            if stretch.holds(file, place) {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{BUDGET, Fetch, Prefetch, SEGMENT, Stretch};

    /// Files whose bytes encode their position; counts what is fetched.
    #[derive(Clone, Default)]
    struct Counting(Arc<AtomicU64>);

    fn byte(file: usize, place: u64) -> u8 {
        (place.wrapping_mul(31) ^ (place >> 8) ^ file as u64) as u8
    }

    impl Fetch for Counting {
        type Error = &'static str;

        fn fetch(&self, file: usize, start: u64, out: &mut [u8]) -> Result<(), Self::Error> {
            self.0.fetch_add(out.len() as u64, Ordering::SeqCst);
            for (place, out) in (start..).zip(out) {
                *out = byte(file, place);
            }
            if file == 9 { Err("no such file") } else { Ok(()) }
        }

        fn cancelled(&self) -> Option<Self::Error> {
            None
        }
    }

    fn stretch(file: usize, range: std::ops::Range<u64>) -> Stretch {
        Stretch { file, range }
    }

    fn read(prefetch: &Prefetch<Counting>, file: usize, range: std::ops::Range<u64>) {
        let mut out = vec![0; (range.end - range.start) as usize];
        prefetch.read(file, range.start, &mut out).unwrap();
        assert!(range.clone().zip(&out).all(|(place, out)| *out == byte(file, place)), "{file} {range:?}");
    }

    #[test]
    fn what_is_expected_is_fetched_once_and_never_more_than_the_budget_ahead() {
        let fetch = Counting::default();
        let prefetch = Prefetch::new(fetch.clone());
        let length = BUDGET + 5 * SEGMENT + 123;
        prefetch.expect([stretch(0, 100..length), stretch(1, 0..1000), stretch(0, 100..200)]);
        std::thread::sleep(Duration::from_millis(200));
        assert!(fetch.0.load(Ordering::SeqCst) <= BUDGET);
        let step = 3_000_000;
        let mut start = 100;
        while start < length {
            read(&prefetch, 0, start..length.min(start + step));
            start += step;
        }
        read(&prefetch, 1, 0..1000);
        read(&prefetch, 0, 100..200);
        assert_eq!(fetch.0.load(Ordering::SeqCst), length - 100 + 1000 + 100);
    }

    #[test]
    fn a_wrong_forecast_does_not_block() {
        let prefetch = Prefetch::new(Counting::default());
        prefetch.expect([stretch(0, 0..3 * BUDGET), stretch(1, 0..10)]);
        read(&prefetch, 1, 0..10);
        read(&prefetch, 2, 5..5000);
        read(&prefetch, 0, 2 * BUDGET..2 * BUDGET + 10);
    }

    #[test]
    fn an_error_reaches_the_reader() {
        let prefetch = Prefetch::new(Counting::default());
        prefetch.expect([stretch(9, 0..10)]);
        assert_eq!(*prefetch.read(9, 0, &mut [0; 10]).unwrap_err(), "no such file");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_reads_by_any_number_of_threads_get_their_bytes(
            expected in proptest::collection::vec((0_usize..2, 0_u64..50_000, 1_u64..20_000), 0..6),
            reads in proptest::collection::vec((0_usize..2, 0_u64..60_000, 1_u64..30_000), 1..24),
        ) {
            let prefetch = Prefetch::new(Counting::default());
            prefetch.expect(expected.into_iter().map(|(file, start, length)| stretch(file, start..start + length)));
            std::thread::scope(|scope| {
                for part in reads.chunks(8) {
                    let prefetch = &prefetch;
                    scope.spawn(move || {
                        part.iter().for_each(|(file, start, length)| read(prefetch, *file, *start..start + length));
                    });
                }
            });
        }
    }
}
