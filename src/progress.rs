//! One bar in bytes, or nothing where nobody looks, or events for machines.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use converter::observer::Observer;
use indicatif::ProgressBar;
use serde_json::json;

use crate::{interrupt, terminal};

/// Bytes between two events for machines.
const EVENT_STEP: u64 = 64 << 20;

/// Shows the progress of a conversion, and ends it when it was interrupted.
pub(crate) struct Progress {
    bar: ProgressBar,
    events: Option<Events>,
}

/// Lines of JSON on standard error.
struct Events {
    total: u64,
    done: AtomicU64,
    /// What the name below is the name of.
    noun: &'static str,
    name: Mutex<String>,
}

impl Progress {
    /// A bar over `total` bytes of input; `json` writes events instead.
    pub(crate) fn new(total: u64, json: bool) -> Self {
        Self::of("tensor", total, json)
    }

    /// A bar over `total` bytes of things that events call `noun`.
    pub(crate) fn of(noun: &'static str, total: u64, json: bool) -> Self {
        let template =
            "{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {wide_msg}";
        let bar = if json { ProgressBar::hidden() } else { terminal::bar(Some(total), template) };
        let events =
            json.then(|| Events { total, done: AtomicU64::new(0), noun, name: Mutex::new(String::new()) });
        Progress { bar, events }
    }

    /// Clears the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Observer for Progress {
    fn tensor(&self, name: &str) {
        terminal::name_bar(&self.bar, name);
        if let Some(Ok(mut current)) = self.events.as_ref().map(|events| events.name.lock()) {
            name.clone_into(&mut current);
        }
    }

    fn advance(&self, bytes: u64) {
        self.bar.inc(bytes);
        if let Some(events) = &self.events {
            events.advance(bytes);
        }
    }

    fn resume(&self, bytes: u64) {
        self.bar.inc(bytes);
        self.bar.reset_eta();
        if let Some(events) = &self.events {
            events.advance(bytes);
        }
    }

    fn cancelled(&self) -> bool {
        interrupt::asked()
    }
}

impl Events {
    fn advance(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let after = before + bytes;
        if before / EVENT_STEP == after / EVENT_STEP && after < self.total {
            return;
        }
        let name = self.name.lock().map(|name| name.clone()).unwrap_or_default();
        let event = json!({"event": "progress", "bytes": after, "total": self.total, self.noun: name});
        terminal::tell_json(&event);
    }
}
