//! The machine on which the measurements were made.

use std::fs;
use std::process::Command;
use std::thread;

/// Processor, number of threads, memory and system, as far as the system reports them.
pub(crate) fn describe() -> String {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let processor = processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = memory().map(|bytes| format!(", {:.0} GB", bytes as f64 / 1e9)).unwrap_or_default();
    format!("{processor}, {threads} threads{memory}, {}", std::env::consts::OS)
}

fn processor() -> Option<String> {
    let from_sysctl = || sysctl("machdep.cpu.brand_string");
    let text = fs::read_to_string("/proc/cpuinfo").ok();
    let named = text.and_then(|text| field(&text, "model name"));
    named.or_else(from_sysctl)
}

fn memory() -> Option<u64> {
    let from_sysctl = || sysctl("hw.memsize").and_then(|text| text.parse().ok());
    let text = fs::read_to_string("/proc/meminfo").ok();
    text.and_then(|text| bytes(&text, "MemTotal")).or_else(from_sysctl)
}

/// Bytes, of which Linux states the kilobytes in `name : value kB` lines.
pub(crate) fn bytes(text: &str, name: &str) -> Option<u64> {
    let kilobytes: u64 = field(text, name)?.split(' ').next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// A value in `name : value` lines.
fn field(text: &str, name: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn sysctl(name: &str) -> Option<String> {
    let output = Command::new("sysctl").args(["-n", name]).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
