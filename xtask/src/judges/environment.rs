//! The judges' Python environment: made once for a set of requirements, under cargo's target folder.

use super::task::{Outcome, Task};
use crate::workspace::{root, target};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// Python versions for which the pinned wheels exist, on Linux x86-64 and on macOS arm64.
const SUPPORTED: std::ops::RangeInclusive<(u32, u32)> = (3, 11)..=(3, 14);

/// Names that a supported Python may have on PATH.
const CANDIDATES: [&str; 6] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11", "python"];

/// A ready environment.
pub(crate) struct Environment {
    python: PathBuf,
}

/// Folder of the scripts and their requirements.
pub(crate) fn scripts() -> PathBuf {
    root().join("xtask/judges")
}

/// Folder for everything that judges write.
pub(crate) fn scratch() -> PathBuf {
    target().join("judges")
}

impl Environment {
    /// Finds the environment, or makes it.
    ///
    /// # Errors
    /// If there is no supported Python, or pip cannot get the packages.
    pub(crate) fn prepare() -> Result<Self> {
        let file = scripts().join("requirements.txt");
        let requirements = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let (base, version) = find_python()?;
        let folder = scratch().join(format!("venv-{}", digest(&[&requirements, version.as_bytes()])));
        let python = folder.join("bin/python");
        let complete = folder.join("complete");
        if !complete.is_file() {
            println!("making {} with Python {version}", folder.display());
            clear(&folder)?;
            run_quietly(Command::new(base).args(["-m", "venv"]).arg(&folder))?;
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
            run_quietly(Command::new(&python).args(install).arg(&file))?;
            fs::write(&complete, &version).with_context(|| format!("cannot write {}", complete.display()))?;
        }
        println!("Python {version}, {}", folder.display());
        Ok(Self { python })
    }

    /// The environment's interpreter.
    pub(crate) fn python(&self) -> &Path {
        &self.python
    }

    /// Runs a task's script.
    pub(crate) fn run(&self, task: &Task) -> Outcome {
        let mut command = Command::new(&self.python);
        command.arg(&task.script).args(&task.arguments);
        // No caches beside the scripts, which are in the source tree.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        // Tasks run side by side, one for each core; threads of numpy would only wait for each other.
        command.env("OPENBLAS_NUM_THREADS", "1");
        if let Some(library) = half_in_hardware() {
            command.env("LD_PRELOAD", library);
        }
        let result = command.output();
        match result {
            Err(error) => Outcome { output: String::new(), trouble: Some(error.to_string()) },
            Ok(done) => Outcome {
                output: String::from_utf8_lossy(&done.stdout).into_owned(),
                trouble: trouble(done.status, &done.stderr),
            },
        }
    }
}

/// The library with which Apple's runtime takes half as long, if this processor can do what it needs and it was built.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(super) fn half_in_hardware() -> Option<PathBuf> {
    let library = target().join("debug/libhalf_in_hardware.so");
    // The loader splits at these.
    let is_whole = !library.to_string_lossy().contains([' ', ':']);
    (std::arch::is_x86_feature_detected!("f16c") && is_whole && library.is_file()).then_some(library)
}

/// None: only the runtime for Linux on x86-64 converts in software.
#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
pub(super) fn half_in_hardware() -> Option<PathBuf> {
    None
}

/// The first supported Python on PATH, and its version.
fn find_python() -> Result<(&'static str, String)> {
    let mut found = Vec::new();
    for name in CANDIDATES {
        let Some(version) = python_version(name) else { continue };
        let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
        if SUPPORTED.contains(&(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))) {
            return Ok((name, version));
        }
        found.push(format!("{name} is {version}"));
    }
    let found = if found.is_empty() { "there is no python3 on PATH".into() } else { found.join(", ") };
    bail!("the judges need CPython 3.11 to 3.14; {found}")
}

fn python_version(name: &str) -> Option<String> {
    let print = "import platform; print(platform.python_version())";
    let output =
        Command::new(name).args(["-c", print]).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run_quietly(command: &mut Command) -> Result<()> {
    let shown = crate::workspace::show(command);
    let output = command.output().with_context(|| format!("cannot run {shown}"))?;
    if let Some(trouble) = trouble(output.status, &output.stderr) {
        bail!("{shown}: {trouble}");
    }
    Ok(())
}

/// Runs a command that must succeed; returns its standard output.
pub(crate) fn run(command: &mut Command) -> Result<Vec<u8>> {
    let done = command.output().with_context(|| format!("cannot run {command:?}"))?;
    match trouble(done.status, &done.stderr) {
        Some(trouble) => bail!("{command:?}: {trouble}"),
        None => Ok(done.stdout),
    }
}

/// What to say about a process that did not succeed: its status and the end of its standard error.
pub(crate) fn trouble(status: ExitStatus, stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<_> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(5)..];
    (!status.success()).then(|| format!("{status}: {}", last.join(" | ")))
}

/// The first 12 hex digits of the parts' SHA-256.
fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hex::encode(&hash.finalize()[..6])
}

/// Removes a folder with all that is in it, if it is there.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    Ok(())
}
