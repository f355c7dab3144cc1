//! Hints to the kernel about what is read next. They never fail: a kernel that cannot use one ignores it.

use std::fs::File;
use std::ops::Range;

/// The file is read mostly front to back.
pub(super) fn sequential(file: &File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Sequential);
    // macOS detects sequential reads itself and has no such call.
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// These bytes are read next.
pub(super) fn will_need(file: &File, range: &Range<u64>) {
    #[cfg(target_os = "linux")]
    advise(file, range, rustix::fs::Advice::WillNeed);
    #[cfg(target_os = "macos")]
    let _ = rustix::fs::fcntl_rdadvise(file, range.start, range.end.saturating_sub(range.start));
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    let _ = (file, range);
}

/// These bytes are not read again, so their pages can make room for others. macOS has no such call.
pub(super) fn dont_need(file: &File, range: &Range<u64>) {
    #[cfg(target_os = "linux")]
    advise(file, range, rustix::fs::Advice::DontNeed);
    #[cfg(not(target_os = "linux"))]
    let _ = (file, range);
}

#[cfg(target_os = "linux")]
fn advise(file: &File, range: &Range<u64>, advice: rustix::fs::Advice) {
    // A length of zero would mean "to the end of the file".
    if let Some(len) = std::num::NonZeroU64::new(range.end.saturating_sub(range.start)) {
        let _ = rustix::fs::fadvise(file, range.start, Some(len), advice);
    }
}
