//! A limit on what a process allocates. Systems have their own limits, but macOS does not enforce them.
//!
//! A program that uses this crate allocates through it. Until it sets a limit, an allocation costs one load and one branch more
//! than the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicIsize, Ordering};

#[global_allocator]
static ALLOCATOR: Limited = Limited;

/// Whether there is a limit.
static IS_LIMITED: AtomicBool = AtomicBool::new(false);

/// Bytes that may still be allocated. What was allocated before the limit was set and is freed later adds to them.
static LEFT: AtomicIsize = AtomicIsize::new(0);

/// Exit status of a process that reaches the limit.
static STATUS: AtomicI32 = AtomicI32::new(1);

/// Ends the process with exit status `status` once it has allocated this many bytes more than it freed. Call it before other threads
/// are started.
pub fn limit(bytes: usize, status: u8) {
    STATUS.store(status.into(), Ordering::Relaxed);
    LEFT.store(bytes.cast_signed(), Ordering::Relaxed);
    IS_LIMITED.store(true, Ordering::Relaxed);
}

/// The system's allocator with a limit.
struct Limited;

#[inline]
fn count(added: usize, removed: usize) {
    if IS_LIMITED.load(Ordering::Relaxed) {
        take(added.cast_signed().wrapping_sub(removed.cast_signed()));
    }
}

#[cold]
fn take(bytes: isize) {
    let left = LEFT.fetch_sub(bytes, Ordering::Relaxed);
    if left < bytes {
        // SAFETY: `_exit` may be called anywhere; it runs no handlers, which could allocate.
        unsafe { libc::_exit(STATUS.load(Ordering::Relaxed)) }
    }
}

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // Old and new can exist side by side.
        count(new_size, 0);
        count(0, layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.realloc(pointer, layout, new_size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}
