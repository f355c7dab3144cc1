//! What this machine can do, line by line, with the remedy for what it cannot.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use output::available_bytes;
use serde::Serialize;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::process;
use crate::program;
use crate::toolchain::{MetalToolchain, Toolchain, ToolchainOptions};

/// Bytes of the larger model's graph and of its tables: what a machine should have room for.
const GRAPH_BYTES: u64 = 3_700_000_000;
const TABLE_BYTES: u64 = 3_600_000_000;
/// The graph, its tables, an artifact, and the compiler's work files.
const DISK_BYTES: u64 = GRAPH_BYTES * 5 + TABLE_BYTES;
/// The compiler and the reference both map a whole graph.
const MEMORY_BYTES: u64 = GRAPH_BYTES * 2;
/// Longest time for one question.
const LIMIT: Duration = Duration::from_secs(30);
/// Prints the version of the judge's package, once it is known to load.
const JUDGE: &str = "import importlib.metadata as m, coreai.runtime; print(m.version('coreai-core'))";

/// One line of the report.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What was looked for.
    pub subject: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found. Never a secret.
    pub detail: String,
    /// What to do where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Check {
    /// Something that is there.
    pub fn ok(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { subject, ok: true, detail: detail.into(), remedy: None }
    }

    /// Something that is not there, with what to do about it.
    pub fn missing(subject: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { subject, ok: false, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.ok { "ok" } else { "missing" };
        write!(f, "{state:<8} {:<16} {}", self.subject, self.detail)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n{:26}-> {remedy}", ""),
            None => Ok(()),
        }
    }
}

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
    let mut checks = toolchain(options, interrupt)?;
    checks.push(disk(&options.output));
    checks.push(memory(interrupt)?);
    checks.push(judge(options.python.as_deref(), interrupt)?);
    checks.push(runs("ssh", &["ssh", "-V"], "install the OpenSSH client, for `aotc --ssh`", interrupt)?);
    checks.push(runs("rsync", &["rsync", "--version"], "install rsync, for `aotc --ssh`", interrupt)?);
    Ok(checks)
}

fn toolchain(options: &DoctorOptions, interrupt: &Interrupt) -> Result<Vec<Check>, Error> {
    let mut checks = Vec::new();
    let found = match Toolchain::find(&options.toolchain, interrupt) {
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        found => found,
    };
    match found {
        Ok(toolchain) => {
            checks.push(Check::ok("toolchain", toolchain.compiler.display().to_string()));
            checks.push(Check::ok("version", toolchain.version));
        }
        Err(error) => {
            let remedy = error.hint().unwrap_or_default();
            checks.push(Check::missing("toolchain", error.to_string(), remedy.clone()));
            checks.push(Check::missing("version", "not known", remedy));
        }
    }
    let install = "xcodebuild -downloadComponent MetalToolchain";
    checks.push(match MetalToolchain::ask(&options.toolchain, interrupt) {
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => {
            Check::missing("Metal toolchain", "cannot be asked for", error.hint().unwrap_or_default())
        }
        Ok(MetalToolchain::Installed(build)) => Check::ok("Metal toolchain", build),
        Ok(MetalToolchain::Missing(state)) => Check::missing("Metal toolchain", state, install),
    });
    Ok(checks)
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

fn runs(
    subject: &'static str,
    command: &[&str],
    remedy: &str,
    interrupt: &Interrupt,
) -> Result<Check, Error> {
    Ok(match answer_of(command, interrupt)? {
        Some(answer) => Check::ok(subject, answer.lines().next().unwrap_or_default()),
        None => Check::missing(subject, "cannot be run", remedy),
    })
}

/// What a command prints, if it can be run and succeeds.
pub(crate) fn answer_of<W: AsRef<OsStr>>(
    words: &[W],
    interrupt: &Interrupt,
) -> Result<Option<String>, Error> {
    let Some((name, arguments)) = words.split_first() else { return Ok(None) };
    let Ok(program) = program::find(Path::new(name)) else { return Ok(None) };
    let answer = process::capture(Command::new(program).args(arguments), LIMIT, interrupt);
    stop_if_raised(interrupt)?;
    Ok(answer.ok().filter(process::Captured::succeeded).map(|answer| {
        let stdout = answer.stdout.trim();
        if stdout.is_empty() { answer.stderr.trim().to_owned() } else { stdout.to_owned() }
    }))
}

fn stop_if_raised(interrupt: &Interrupt) -> Result<(), Error> {
    if interrupt.is_raised() { Err(Error::Interrupted) } else { Ok(()) }
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
    fn lines_are_aligned_and_carry_the_remedy() {
        let check = Check::missing("rsync", "cannot be run", "install rsync");
        let expected = "missing  rsync            cannot be run\n                          -> install rsync";
        assert_eq!(check.to_string(), expected);
    }
}
