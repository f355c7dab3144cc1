//! What this machine can do for a compile, line by line, with the remedy for what it cannot.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::process;
use crate::program;
use crate::toolchain::{MetalToolchain, Toolchain, ToolchainOptions};

/// Longest time for one command.
const LIMIT: Duration = Duration::from_secs(30);
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
    /// Something that was found.
    pub fn ok(subject: &'static str, detail: impl Into<String>) -> Self {
        Self { subject, ok: true, detail: detail.into(), remedy: None }
    }

    /// Something that is missing, with what to do about it.
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

/// Looks for the toolchain.
///
/// # Errors
/// [`Error::Interrupted`] only: what is missing is a line, not an error.
pub fn toolchain(options: &ToolchainOptions, interrupt: &Interrupt) -> Result<Vec<Check>, Error> {
    let mut checks = Vec::new();
    let found = match Toolchain::find(options, interrupt) {
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
    checks.push(match MetalToolchain::ask(options, interrupt) {
        Err(Error::Interrupted) => return Err(Error::Interrupted),
        Err(error) => {
            Check::missing("Metal toolchain", "cannot be asked for", error.hint().unwrap_or_default())
        }
        Ok(MetalToolchain::Installed(build)) => Check::ok("Metal toolchain", build),
        Ok(MetalToolchain::Missing(state)) => Check::missing("Metal toolchain", state, install),
    });
    Ok(checks)
}

/// Looks for what compiling on another Mac needs.
///
/// # Errors
/// [`Error::Interrupted`] only.
pub fn remote_tools(interrupt: &Interrupt) -> Result<[Check; 2], Error> {
    Ok([
        runs("ssh", &["ssh", "-V"], "install the OpenSSH client, for `aotc --ssh`", interrupt)?,
        runs("rsync", &["rsync", "--version"], "install rsync, for `aotc --ssh`", interrupt)?,
    ])
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
///
/// # Errors
/// [`Error::Interrupted`] only.
pub fn answer_of<W: AsRef<OsStr>>(words: &[W], interrupt: &Interrupt) -> Result<Option<String>, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_carry_the_remedy() {
        let check = Check::missing("rsync", "cannot be run", "install rsync");
        let expected = "missing  rsync            cannot be run\n                          -> install rsync";
        assert_eq!(check.to_string(), expected);
    }
}
