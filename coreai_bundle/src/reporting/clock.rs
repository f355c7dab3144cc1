//! Where the time of a conversion goes.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use progress::Progress;
use report::{Stretch, layer_of};

/// Passes everything on, and notes when layers begin.
pub(crate) struct Clock<'p> {
    progress: &'p dyn Progress,
    state: Mutex<ClockState>,
}

/// How a conversion went.
#[derive(Default)]
pub(crate) struct Timeline {
    /// Consecutive tensors of one layer are one.
    pub(crate) stretches: Vec<Stretch>,
    /// Whether an earlier run had done a part.
    pub(crate) resumed: bool,
}

struct ClockState {
    timeline: Timeline,
    /// When the last entry began.
    since: Instant,
}

impl ClockState {
    fn close(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.timeline.stretches.last_mut() {
            last.seconds += (now - self.since).as_secs_f64();
        }
        self.since = now;
    }
}

impl<'p> Clock<'p> {
    /// Starts the clock.
    pub(crate) fn new(progress: &'p dyn Progress) -> Self {
        Clock {
            progress,
            state: Mutex::new(ClockState { timeline: Timeline::default(), since: Instant::now() }),
        }
    }

    /// Stops the clock.
    pub(crate) fn finish(self) -> Timeline {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.close();
        state.timeline
    }

    fn state(&self) -> MutexGuard<'_, ClockState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Layers are named by their number, anything else by its name without the prefix that all names share.
fn name_of(tensor: &str) -> String {
    match layer_of(tensor) {
        Some(layer) => format!("layer {layer}"),
        None => {
            tensor.rsplit("language_model.").next().unwrap_or(tensor).trim_end_matches(".weight").to_owned()
        }
    }
}

impl Progress for Clock<'_> {
    fn begin(&self, name: &str) {
        self.progress.begin(name);
        let name = name_of(name);
        let mut state = self.state();
        if state.timeline.stretches.last().is_none_or(|last| last.name != name) {
            state.close();
            state.timeline.stretches.push(Stretch { name, seconds: 0.0, bytes: 0 });
        }
    }

    fn advance(&self, bytes: u64) {
        self.progress.advance(bytes);
        if let Some(last) = self.state().timeline.stretches.last_mut() {
            last.bytes += bytes;
        }
    }

    fn resume(&self, bytes: u64) {
        self.progress.resume(bytes);
        self.state().timeline.resumed |= bytes > 0;
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }
}
