//! Runs a command as a child and measures how long it ran, its processor time and its peak memory.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// What a child took.
pub(crate) struct Usage {
    pub(crate) seconds: f64,
    /// Of all its threads.
    pub(crate) processor_seconds: f64,
    /// Resident memory at its peak, mapped files included.
    pub(crate) peak_megabytes: f64,
}

/// Runs a command, which must succeed.
pub(crate) fn run(command: &mut Command) -> Result<Usage> {
    let begin = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {command:?}"))?;
    let mut complaints = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut complaints)?;
    }
    let (status, usage) = wait(child.id())?;
    let seconds = begin.elapsed().as_secs_f64();
    if status != 0 {
        bail!("{command:?} failed: {complaints}");
    }
    let spent = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // Kilobytes on Linux, bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1.0 } else { 1024.0 };
    Ok(Usage {
        seconds,
        processor_seconds: spent(usage.ru_utime) + spent(usage.ru_stime),
        peak_megabytes: usage.ru_maxrss as f64 * unit / 1e6,
    })
}

/// Waits for a child; its raw status, and what it used.
fn wait(id: u32) -> Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: an all-zero `rusage` is a value of that type.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the right types; the child is ours, and nothing else waits for it.
    let waited = unsafe { libc::wait4(id.cast_signed(), &raw mut status, 0, &raw mut usage) };
    if waited < 0 {
        return Err(std::io::Error::last_os_error()).context("cannot wait for the child");
    }
    Ok((status, usage))
}
