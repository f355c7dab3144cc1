//! How standard error shows long-running work: as a bar, events for machines, or lines.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use coreai_bundle::parts::progress::Progress;
use indicatif::ProgressBar;
use serde_json::json;

use crate::{interrupt, terminal};

/// Bytes between two events for machines.
const EVENT_STEP: u64 = 64 << 20;

/// A bar, hidden unless standard error is a terminal; ends the work when it was interrupted.
pub(crate) struct Bar {
    bar: ProgressBar,
    events: Option<Events>,
}

/// Lines of JSON on standard error.
struct Events {
    total: AtomicU64,
    done: AtomicU64,
    /// The kind of item that the name below belongs to.
    noun: &'static str,
    name: Mutex<String>,
}

impl Bar {
    /// A bar in bytes.
    pub(crate) fn of_bytes() -> Self {
        let template =
            "{bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} {wide_msg}";
        Bar { bar: terminal::bar(template), events: None }
    }

    /// A bar over the positions of a gate.
    pub(crate) fn of_positions() -> Self {
        Bar { bar: terminal::bar("gate {bar:30} {pos}/{len} positions, {per_sec}, {eta}"), events: None }
    }

    /// A bar over work that has no unit.
    pub(crate) fn of_work() -> Self {
        Bar { bar: terminal::bar("{bar:30} {percent:>3} %, {eta} left {wide_msg}"), events: None }
    }

    /// A bar over the bytes of items that events call `noun`; events are written instead where output is JSON.
    pub(crate) fn or_events(noun: &'static str) -> Self {
        if !terminal::is_json() {
            return Self::of_bytes();
        }
        let (total, done) = (AtomicU64::new(0), AtomicU64::new(0));
        let events = Events { total, done, noun, name: Mutex::new(String::new()) };
        Bar { bar: ProgressBar::hidden(), events: Some(events) }
    }
}

impl Progress for Bar {
    fn expect(&self, amount: u64) {
        self.bar.reset();
        self.bar.set_length(amount);
        if let Some(events) = &self.events {
            events.total.store(amount, Ordering::Relaxed);
            events.done.store(0, Ordering::Relaxed);
        }
    }

    fn begin(&self, item: &str) {
        terminal::name_bar(&self.bar, item);
        if let Some(Ok(mut current)) = self.events.as_ref().map(|events| events.name.lock()) {
            item.clone_into(&mut current);
        }
    }

    fn advance(&self, amount: u64) {
        self.bar.inc(amount);
        if let Some(events) = &self.events {
            events.advance(amount);
        }
    }

    fn resume(&self, amount: u64) {
        self.advance(amount);
        self.bar.reset_eta();
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn note(&self, text: &str) {
        terminal::tell(text);
    }

    fn cancelled(&self) -> bool {
        interrupt::asked()
    }
}

impl Events {
    fn advance(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        let (after, total) = (before + bytes, self.total.load(Ordering::Relaxed));
        if before / EVENT_STEP == after / EVENT_STEP && after < total {
            return;
        }
        let name = self.name.lock().map(|name| name.clone()).unwrap_or_default();
        let event = json!({"event": "progress", "bytes": after, "total": total, self.noun: name});
        terminal::tell_json(&event);
    }
}

/// Reports work in lines. No work may be lost because they cannot be written.
pub(crate) struct Lines;

impl Progress for Lines {
    fn begin(&self, item: &str) {
        terminal::tell(item);
    }

    fn note(&self, text: &str) {
        terminal::tell(text);
    }

    fn cancelled(&self) -> bool {
        interrupt::asked()
    }
}
