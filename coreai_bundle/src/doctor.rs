//! What this machine can do, line by line, with the remedy for what it cannot.

mod hub;

use std::path::{Path, PathBuf};

use ::hub::Settings;
use aotc::doctor::{self, Check, answer_of};
use aotc::{Error, Interrupt, ToolchainOptions, program};
use output::available_bytes;

/// Bytes of the larger model's graph and of its tables: what a machine should have room for.
const GRAPH_BYTES: u64 = 3_700_000_000;
const TABLE_BYTES: u64 = 3_600_000_000;
/// The graph, its tables, an artifact, and the compiler's work files.
const DISK_BYTES: u64 = GRAPH_BYTES * 5 + TABLE_BYTES;
/// The compiler and the reference both map a whole graph.
const MEMORY_BYTES: u64 = GRAPH_BYTES * 2;
/// Prints the version of the judge's package, once it is known to load.
const JUDGE: &str = "import importlib.metadata as m, coreai.runtime; print(m.version('coreai-core'))";

/// Where to look.
#[derive(Clone, Debug)]
pub struct DoctorOptions {
    /// Which toolchain.
    pub toolchain: ToolchainOptions,
    /// Where outputs would go.
    pub output: PathBuf,
    /// The Python of the judge; `python3` otherwise.
    pub python: Option<PathBuf>,
}

/// Examines the machine.
///
/// # Errors
/// [`Error::Interrupted`] only: what is missing is a line, not an error.
pub fn examine(options: &DoctorOptions, interrupt: &Interrupt) -> Result<Vec<Check>, Error> {
    let mut checks = doctor::toolchain(&options.toolchain, interrupt)?;
    checks.push(disk(&options.output));
    checks.push(memory(interrupt)?);
    checks.push(judge(options.python.as_deref(), interrupt)?);
    checks.extend(doctor::remote_tools(interrupt)?);
    Ok(checks)
}

/// Examines the machine, and what the client of the Hub would use.
///
/// # Errors
/// [`Error::Interrupted`] only.
pub fn examine_all(options: &DoctorOptions, cancelled: fn() -> bool) -> Result<Vec<Check>, Error> {
    let interrupt = Interrupt::watching(cancelled);
    let mut checks = examine(options, &interrupt)?;
    checks.extend(hub::examine(Settings { cancelled, ..Settings::from_environment() }));
    if interrupt.is_raised() { Err(Error::Interrupted) } else { Ok(checks) }
}

fn disk(output: &Path) -> Check {
    let remedy =
        format!("{} are enough for the larger model: free some, or choose another disk", size(DISK_BYTES));
    match available_bytes(output) {
        Ok(bytes) => {
            let detail = format!("{} free in {}", size(bytes), output.display());
            if bytes >= DISK_BYTES {
                Check::ok("disk", detail)
            } else {
                Check::missing("disk", detail, remedy)
            }
        }
        Err(error) => Check::missing("disk", error.to_string(), remedy),
    }
}

fn memory(interrupt: &Interrupt) -> Result<Check, Error> {
    let remedy = format!("{} are enough for the larger model", size(MEMORY_BYTES));
    Ok(match total_memory(interrupt)? {
        Some(bytes) if bytes >= MEMORY_BYTES => Check::ok("memory", size(bytes)),
        Some(bytes) => Check::missing("memory", size(bytes), remedy),
        None => Check::missing("memory", "not known", remedy),
    })
}

fn total_memory(interrupt: &Interrupt) -> Result<Option<u64>, Error> {
    if let Ok(text) = std::fs::read_to_string("/proc/meminfo") {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        return Ok(kilobytes.map(|k| k.saturating_mul(1024)));
    }
    Ok(answer_of(&["sysctl", "-n", "hw.memsize"], interrupt)?.and_then(|text| text.parse().ok()))
}

fn judge(python: Option<&Path>, interrupt: &Interrupt) -> Result<Check, Error> {
    if let Ok(python) = program::find(python.unwrap_or(Path::new("python3"))) {
        // Isolated: Python would otherwise import modules of the current folder.
        let arguments = [python.as_os_str(), "-I".as_ref(), "-c".as_ref(), JUDGE.as_ref()];
        if let Some(version) = answer_of(&arguments, interrupt)? {
            let detail = format!("coreai-core {version} in {}", python.display());
            return Ok(Check::ok("Python judge", detail));
        }
    }
    let remedy = "only this project's tests need it: `cargo xtask apple-check` in a clone makes it";
    Ok(Check::missing("Python judge", "no Python here has coreai-core", remedy))
}

fn size(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_this_machine_is_known() {
        assert!(total_memory(&Interrupt::new()).unwrap().unwrap() > 1 << 28);
    }

    #[test]
    fn every_check_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let options = DoctorOptions {
            toolchain: ToolchainOptions { xcrun: Some(folder.path().join("no-xcrun")), developer_dir: None },
            output: folder.path().join("not/there/yet"),
            python: Some("no-such-python".into()),
        };
        let checks = examine(&options, &Interrupt::new()).unwrap();
        let subjects: Vec<_> = checks.iter().map(|check| check.subject).collect();
        let expected =
            ["toolchain", "version", "Metal toolchain", "disk", "memory", "Python judge", "ssh", "rsync"];
        assert_eq!(subjects, expected);
        for check in &checks {
            assert_eq!(check.ok, check.remedy.is_none(), "{check}");
        }
    }
}
