//! Child processes in separate process groups, with a time limit and a way to stop them all.
//!
//! A child gets its own process group, so that a Ctrl-C in the terminal reaches only this program, which then ends
//! the whole group, grandchildren included. Output goes to files: a pipe that a forgotten grandchild keeps open would
//! block the reader forever.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt::Interrupt;

/// How long a group may take to end after a polite request.
const GRACE: Duration = Duration::from_millis(300);
/// Pauses between checks of the child, growing from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LAST_PAUSE: Duration = Duration::from_millis(50);
/// Captured output beyond this is cut off.
const CAPTURE_LIMIT: u64 = 1 << 20;

/// How a child ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// On its own.
    Exited(ExitStatus),
    /// Killed at the time limit.
    TimedOut,
    /// Killed because of [`Interrupt`].
    Interrupted,
}

/// What a short command printed.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) end: End,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Captured {
    /// Whether the command ended on its own with exit code 0.
    pub(crate) fn succeeded(&self) -> bool {
        matches!(self.end, End::Exited(status) if status.success())
    }

    /// What to show of a command that failed: its error output, else its output, else its status.
    pub(crate) fn message(&self) -> String {
        let said = [self.stderr.trim(), self.stdout.trim()].into_iter().find(|text| !text.is_empty());
        match (said, self.end) {
            (Some(text), _) => text.to_owned(),
            (None, End::Exited(status)) => status.to_string(),
            (None, End::TimedOut) => "no answer within the time limit".into(),
            (None, End::Interrupted) => "interrupted".into(),
        }
    }
}

/// Runs `command` to its end; `limit` counts from now.
pub(crate) fn run(command: &mut Command, limit: Duration, interrupt: &Interrupt) -> io::Result<End> {
    command.process_group(0);
    let mut group = Group { child: command.spawn()?, ended: false };
    let deadline = Instant::now().checked_add(limit);
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(status) = group.try_wait()? {
            return Ok(End::Exited(status));
        }
        if interrupt.is_raised() {
            group.stop()?;
            return Ok(End::Interrupted);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            group.stop()?;
            return Ok(End::TimedOut);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Runs `command` with both output streams appended to `log`.
pub(crate) fn run_logged(
    command: &mut Command,
    log: &File,
    limit: Duration,
    interrupt: &Interrupt,
) -> io::Result<End> {
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log.try_clone()?);
    run(command, limit, interrupt)
}

/// Runs a short command and returns what it printed.
pub(crate) fn capture(command: &mut Command, limit: Duration, interrupt: &Interrupt) -> io::Result<Captured> {
    capture_output(command.stdin(Stdio::null()), limit, interrupt)
}

/// As [`capture`], with `input` to read.
pub(crate) fn capture_with_input(
    command: &mut Command,
    input: &str,
    limit: Duration,
    interrupt: &Interrupt,
) -> io::Result<Captured> {
    capture_output(command.stdin(input_file(input)?), limit, interrupt)
}

/// Starts a command with `input` to read, and waits only briefly: a command that has not ended then continues on its own. Its output
/// is lost.
pub(crate) fn start(command: &mut Command, input: &str, moment: Duration) -> io::Result<Option<ExitStatus>> {
    command.process_group(0).stdin(input_file(input)?).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn()?;
    let deadline = Instant::now() + moment;
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => std::thread::sleep(LAST_PAUSE),
            ended => return Ok(ended),
        }
    }
}

fn input_file(input: &str) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(input.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn capture_output(command: &mut Command, limit: Duration, interrupt: &Interrupt) -> io::Result<Captured> {
    let mut stdout = tempfile::tempfile()?;
    let mut stderr = tempfile::tempfile()?;
    command.stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    let end = run(command, limit, interrupt)?;
    Ok(Captured { end, stdout: read_back(&mut stdout)?, stderr: read_back(&mut stderr)? })
}

fn read_back(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(CAPTURE_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A running process group; killed when dropped.
struct Group {
    child: Child,
    ended: bool,
}

impl Group {
    fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        let status = self.child.try_wait()?;
        self.ended |= status.is_some();
        Ok(status)
    }

    /// Asks the group to end, waits briefly, kills what is left.
    fn stop(&mut self) -> io::Result<()> {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline && self.try_wait()?.is_none() {
            std::thread::sleep(LAST_PAUSE);
        }
        self.signal(Signal::KILL);
        self.child.wait()?;
        self.ended = true;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Fails only if the whole group is gone already, which is fine.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if !self.ended {
            self.signal(Signal::KILL);
            // Reaps the child; nothing more can be done about a failure here.
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn output_and_status_are_captured() {
        let captured =
            capture(&mut shell("echo out; echo err >&2; exit 3"), LONG, &Interrupt::new()).unwrap();
        assert_eq!((captured.stdout.as_str(), captured.stderr.as_str()), ("out\n", "err\n"));
        assert!(!captured.succeeded());
        assert_eq!(captured.message(), "err");
        assert!(matches!(captured.end, End::Exited(status) if status.code() == Some(3)));
    }

    #[test]
    fn input_is_read() {
        let captured = capture_with_input(&mut shell("cat"), "text\n", LONG, &Interrupt::new()).unwrap();
        assert_eq!(captured.stdout, "text\n");
    }

    #[test]
    fn a_grandchild_that_keeps_the_output_open_does_not_block() {
        let started = Instant::now();
        let captured = capture(&mut shell("sleep 10 & echo done"), LONG, &Interrupt::new()).unwrap();
        assert_eq!(captured.stdout, "done\n");
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn time_limit_ends_the_child() {
        let started = Instant::now();
        let end = run(shell("sleep 30").stdin(Stdio::null()), Duration::from_millis(50), &Interrupt::new())
            .unwrap();
        assert_eq!(end, End::TimedOut);
        assert!(started.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_command_that_takes_long_is_left_to_itself() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = |name: &str| folder.path().join(name);
        let made = Command::new("mkfifo").args([pipe("in"), pipe("out")]).status().unwrap();
        assert!(made.success());
        let mut command = shell("read -r from_pipe <in; { echo \"$from_pipe\"; cat; } >out");
        let status = start(command.current_dir(folder.path()), "from input", Duration::ZERO).unwrap();
        // It cannot have ended: nothing was written into its pipe yet.
        assert_eq!(status, None);
        std::fs::write(pipe("in"), "from pipe\n").unwrap();
        assert_eq!(std::fs::read_to_string(pipe("out")).unwrap(), "from pipe\nfrom input");
    }

    #[test]
    fn interrupt_ends_the_child() {
        let interrupt = Interrupt::new();
        interrupt.raise();
        let end = run(shell("sleep 30").stdin(Stdio::null()), LONG, &interrupt).unwrap();
        assert_eq!(end, End::Interrupted);
    }
}
