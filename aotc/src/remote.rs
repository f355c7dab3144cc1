//! Compiles on another Mac, reached by `ssh`.
//!
//! Only the graph package travels there and only the artifact back, by `rsync`, which continues where a broken
//! connection stopped it. What runs there is the same self-checking script that [`crate::script`] writes, detached
//! from the connection: a dropped connection does not stop a compile, and the next one finds it. Every step can be repeated.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use output::Digest;
use progress::Progress;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::log::{Log, METAL_TOOLCHAIN_HINT};
use crate::process::{self, Captured, End};
use crate::program;
use crate::source::SourceBundle;
use crate::stage::{CompileTask, Compiler};
use crate::{script, shell};

/// Exit code of `ssh` for a connection that failed, as opposed to a command that did.
const CONNECTION_FAILED: i32 = 255;
/// Exit codes of `rsync` for connections that failed or stalled.
const TRANSFER_BROKE: [i32; 6] = [10, 12, 20, 30, 35, CONNECTION_FAILED];
/// Number of attempts at a step.
const ATTEMPTS: u32 = 6;
/// Longest time of a step that does not depend on sizes.
const STEP_LIMIT: Duration = Duration::from_secs(120);
/// Longest time of the last step.
const REMOVE_LIMIT: Duration = Duration::from_secs(30);
/// How long a user who pressed Ctrl-C waits for the last step, which then continues on its own.
const REMOVE_MOMENT: Duration = Duration::from_millis(300);
/// Terminates the here-document with the script.
const END: &str = "END_OF_COMPILE_SCRIPT";
/// A transfer that moves nothing for this long counts as broken.
const STALLED_SECONDS: u32 = 60;
/// Exit code of the wait step while the compile is running.
const STILL_RUNNING: i32 = 75;
/// Exit code of the wait step when the compile has vanished.
const VANISHED: i32 = 76;

/// Exit code of the first step on a machine without `rsync`.
const NO_RSYNC: i32 = 3;

/// Finds the compiler; prints its version and the free kilobytes.
const EXAMINE: &str = r#"command -v rsync >/dev/null || exit 3
xcrun=("${XCRUN:-xcrun}")
if ! compiler=$("${xcrun[@]}" --find coreai-build 2>/dev/null); then
  compiler=$("${xcrun[@]}" --no-cache --find coreai-build 2>&1) || { echo "$compiler" >&2; exit 4; }
fi
"$compiler" --version | sed -n '/./{p;q;}'
mkdir -p "$directory" && df -Pk "$directory" | awk 'NR == 2 { print $4 }'
"#;

/// Whether a compile runs in the current folder. The process id alone may belong to another process by now.
const RUNNING: &str = r#"running() { [ -f pid ] && ps -o command= -p "$(cat pid)" 2>/dev/null | grep -q compile.sh; }
"#;

/// Makes the task's folder ready, unless a compile runs in it. The script to run there follows as a here-document.
const PREPARE: &str = r#"mkdir -p "$folder/out" && cd "$folder" || exit 1
! running || exit 0
rm -f status output
"#;

/// Starts the script in a separate process group, unless it runs or has ended.
const START: &str = r#"cd "$folder" || exit 1
[ ! -f status ] || exit 0
! running || exit 0
set -m
nohup /bin/bash -c '/bin/bash compile.sh . out >output 2>&1; echo $? >status.new; mv status.new status' \
  >/dev/null 2>&1 </dev/null &
echo $! >pid
"#;

/// Waits for the script; prints its exit code and what it printed.
const WAIT: &str = r#"cd "$folder" || exit 76
waited=0
while [ ! -f status ]; do
  if ! running; then
    sleep 1
    [ -f status ] || exit 76
  fi
  [ "$waited" -lt 120 ] || exit 75
  sleep 0.5
  waited=$((waited + 1))
done
cat status
tail -c 262144 output
"#;

/// Stops the script if it runs, and removes the task's folder.
const REMOVE: &str = r#"[ -d "$folder" ] || exit 0
cd "$folder" || exit 1
if running; then
  group=$(cat pid)
  kill -TERM -- "-$group" 2>/dev/null
  waited=0
  while kill -0 -- "-$group" 2>/dev/null && [ "$waited" -lt 50 ]; do
    sleep 0.1
    waited=$((waited + 1))
  done
fi
folder=$PWD
cd / && rm -rf -- "$folder"
"#;

const DEFAULT_DIRECTORY: &str = ".cache/coreai-bundle/aotc";

/// How to reach the machine and what to use there.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// Host or alias, as `ssh` takes it.
    pub host: String,
    /// `ssh` configuration file; the user's otherwise.
    pub ssh_config: Option<PathBuf>,
    /// `xcrun` of that machine, if it is not on its `PATH`.
    pub xcrun: Option<String>,
    /// `DEVELOPER_DIR` of that machine.
    pub developer_dir: Option<String>,
    /// Folder on that machine for the transferred files, relative to the home folder or absolute.
    pub directory: String,
    /// Longest pause before a broken connection is tried again; the first is a sixteenth of it.
    pub longest_pause: Duration,
}

impl RemoteOptions {
    /// Options that leave everything else to the machine's defaults.
    pub fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            ssh_config: None,
            xcrun: None,
            developer_dir: None,
            directory: DEFAULT_DIRECTORY.into(),
            longest_pause: Duration::from_secs(16),
        }
    }

    fn check(&self) -> Result<(), Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./@:%[]".contains(c);
        // A host that begins with a dash would be an option of ssh.
        if self.host.is_empty() || self.host.starts_with('-') || !self.host.chars().all(plain) {
            return Err(
                self.error("this is not a host name", "pass a host, user@host, or an alias of ~/.ssh/config")
            );
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let directory = &self.directory;
        if directory.is_empty() || directory.starts_with('-') || !directory.chars().all(plain) {
            return Err(
                self.error("the remote folder has a name that is not plain", "use letters, digits, - _ . /")
            );
        }
        Ok(())
    }

    fn error(&self, message: impl Into<String>, hint: &'static str) -> Error {
        Error::Remote { host: self.host.clone(), message: message.into(), hint }
    }

    /// The `ssh` command without host.
    fn ssh(&self) -> Result<Vec<OsString>, Error> {
        let ssh = self.find("ssh", "install the OpenSSH client")?;
        let mut words: Vec<OsString> = vec![ssh.into()];
        if let Some(file) = &self.ssh_config {
            words.extend(["-F".into(), file.into()]);
        }
        // Questions cannot be answered: the process is not in the terminal's foreground group. A connection that is dead for
        // a minute is abandoned.
        for option in
            ["BatchMode=yes", "ServerAliveInterval=15", "ServerAliveCountMax=4", "ConnectTimeout=20"]
        {
            words.extend(["-o".into(), option.into()]);
        }
        Ok(words)
    }

    /// A program of this machine.
    fn find(&self, name: &str, remedy: &'static str) -> Result<PathBuf, Error> {
        program::find(Path::new(name)).map_err(|e| self.error(format!("{name} cannot be run: {e}"), remedy))
    }
}

/// A Mac that was reached and has a compiler.
#[derive(Debug)]
pub struct Remote {
    options: RemoteOptions,
    version: String,
}

impl Remote {
    /// Asks the machine for its compiler and its free space, before anything is transferred.
    ///
    /// # Errors
    /// [`Error::Remote`] when it has no `rsync`, no compiler or, unless `force`, not enough space for `source`;
    /// [`Error::ConnectionLost`] when it cannot be reached.
    pub fn connect(
        options: RemoteOptions,
        source: &SourceBundle,
        force: bool,
        interrupt: &Interrupt,
    ) -> Result<Self, Error> {
        options.check()?;
        let mut remote = Self { version: String::new(), options };
        let needed = source.needed_bytes().saturating_add(source.package_bytes());
        let available = remote.examine(interrupt)?;
        if available < needed && !force {
            let message = format!("it has {available} bytes free, but compiling needs about {needed}");
            return Err(remote.options.error(message, "free some space there"));
        }
        Ok(remote)
    }

    /// Asks for version and free bytes.
    fn examine(&mut self, interrupt: &Interrupt) -> Result<u64, Error> {
        let script = format!("{}directory={}\n{EXAMINE}", self.environment(), self.options.directory);
        let answer = self.step(&script, STEP_LIMIT, interrupt)?;
        match exit_code(&answer) {
            Some(0) => {}
            Some(NO_RSYNC) => return Err(self.options.error("it has no rsync", "install rsync there")),
            _ => return Err(self.options.error(answer.message(), METAL_TOOLCHAIN_HINT)),
        }
        let mut lines = answer.stdout.lines();
        let version = lines.next().unwrap_or_default().trim();
        let kilobytes = lines.next().and_then(|line| line.trim().parse::<u64>().ok());
        let (false, Some(kilobytes)) = (version.is_empty(), kilobytes) else {
            return Err(self.options.error("its compiler printed no version", METAL_TOOLCHAIN_HINT));
        };
        self.version = version.chars().filter(|c| !c.is_control()).collect();
        Ok(kilobytes.saturating_mul(1024))
    }

    /// Assignments that choose the compiler, for the head of a script.
    fn environment(&self) -> String {
        let mut text = String::new();
        for (name, value) in [("XCRUN", &self.options.xcrun), ("DEVELOPER_DIR", &self.options.developer_dir)]
        {
            if let Some(value) = value {
                text.push_str(&format!("export {name}={}\n", shell::quote(value)));
            }
        }
        text
    }

    /// Runs a bash script there, again after each failed connection.
    fn step(&self, script: &str, limit: Duration, interrupt: &Interrupt) -> Result<Captured, Error> {
        self.retry(interrupt, |remote| {
            let answer = remote.step_once(script, limit, interrupt)?;
            Ok(if exit_code(&answer) == Some(CONNECTION_FAILED) { Err(answer.message()) } else { Ok(answer) })
        })
    }

    fn step_once(&self, script: &str, limit: Duration, interrupt: &Interrupt) -> Result<Captured, Error> {
        let (mut command, script) = self.bash(script)?;
        let answer = process::capture_with_input(&mut command, &script, limit, interrupt);
        let answer = answer.map_err(|e| {
            self.options.error(format!("ssh cannot be run: {e}"), "install the OpenSSH client")
        })?;
        match answer.end {
            End::Interrupted => Err(Error::Interrupted),
            End::TimedOut => Err(self.options.error("it did not answer in time", "try again")),
            End::Exited(_) => Ok(answer),
        }
    }

    /// A command that runs a bash script there, and its standard input.
    fn bash(&self, script: &str) -> Result<(Command, String), Error> {
        let mut words = self.options.ssh()?.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).arg("--").arg(&self.options.host).arg("/bin/bash -s");
        // A function, so that bash reads the script whole before anything in it can read the same input.
        Ok((command, format!("main() {{\n{script}}}\nmain </dev/null\n")))
    }

    /// Repeats `attempt` while it returns the message of a broken connection.
    fn retry<T>(
        &self,
        interrupt: &Interrupt,
        mut attempt: impl FnMut(&Self) -> Result<Result<T, String>, Error>,
    ) -> Result<T, Error> {
        let mut tried = 0;
        loop {
            let message = match attempt(self)? {
                Ok(value) => return Ok(value),
                Err(message) => message,
            };
            tried += 1;
            // A host that refuses the key would refuse it again.
            if message.contains("Permission denied") || message.contains("Host key verification failed") {
                let hint =
                    "put your key into the agent or the host into known_hosts; passwords are not asked for";
                return Err(self.options.error(message, hint));
            }
            if tried == ATTEMPTS {
                return Err(Error::ConnectionLost {
                    host: self.options.host.clone(),
                    attempts: tried,
                    message,
                });
            }
            pause(self.options.longest_pause / 2_u32.pow(ATTEMPTS - 1 - tried), interrupt)?;
        }
    }

    /// Folder there for one task: the same for the same source and options, so that an upload can continue.
    fn folder(&self, task: &CompileTask<'_>) -> String {
        let options = task.settings.options(task.architecture).join(" ");
        let key =
            Digest::of_bytes(format!("{} {options}", task.source.program_sha256).as_bytes()).to_string();
        format!("{}/{}", self.options.directory, key.get(..16).unwrap_or(&key))
    }

    /// Transfers a folder, or with a slash at its end a folder's content, in either direction.
    fn transfer(&self, from: &Path, to: &Path, interrupt: &Interrupt) -> Result<(), Error> {
        self.retry(interrupt, |remote| {
            let mut command = Command::new(remote.options.find("rsync", "install rsync")?);
            command.args(["-rt", "--partial", &format!("--timeout={STALLED_SECONDS}"), "-e"]);
            command.arg(shell::join(remote.options.ssh()?));
            command.arg("--").arg(from).arg(to);
            let answer = process::capture(&mut command, Duration::MAX, interrupt)
                .map_err(|e| remote.options.error(format!("rsync cannot be run: {e}"), "install rsync"))?;
            match exit_code(&answer) {
                Some(0) => Ok(Ok(())),
                Some(code) if TRANSFER_BROKE.contains(&code) => Ok(Err(answer.message())),
                _ if answer.end == End::Interrupted => Err(Error::Interrupted),
                _ => Err(remote
                    .options
                    .error(format!("rsync failed: {}", answer.message()), "see rsync's message")),
            }
        })
    }

    /// `folder` on the machine, as `rsync` names it.
    fn address(&self, folder: &str) -> PathBuf {
        PathBuf::from(format!("{}:{folder}", self.options.host))
    }
}

impl Remote {
    /// Everything except for the cleanup there.
    fn compile_in(
        &self,
        folder: &str,
        task: &CompileTask<'_>,
        log: &mut Log,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let variables = format!("{}folder={folder}\n{RUNNING}", self.environment());
        let architectures = std::slice::from_ref(task.architecture);
        let script = script::text(task.source, architectures, task.settings, task.timeout)?;
        let prepare = format!("{variables}{PREPARE}cat >compile.sh <<'{END}'\n{script}{END}\n");
        self.expect_success(&prepare, task.interrupt)?;
        let bytes = task.source.package_bytes();
        progress.note(&format!("sending {bytes} bytes to {}", self.options.host));
        self.transfer(&task.source.package_path(), &self.address(&format!("{folder}/")), task.interrupt)?;
        self.expect_success(&format!("{variables}{START}"), task.interrupt)?;
        self.wait(&format!("{variables}{WAIT}"), task, log)?;
        progress.note(&format!("fetching the artifact from {}", self.options.host));
        self.transfer(&self.address(&format!("{folder}/out/")), task.into, task.interrupt)
    }

    fn expect_success(&self, script: &str, interrupt: &Interrupt) -> Result<(), Error> {
        let answer = self.step(script, STEP_LIMIT, interrupt)?;
        match exit_code(&answer) {
            Some(0) => Ok(()),
            _ => Err(self.options.error(answer.message(), "check the folder and the space there")),
        }
    }

    fn wait(&self, script: &str, task: &CompileTask<'_>, log: &mut Log) -> Result<(), Error> {
        let log_error = Error::io("write the log of", &task.source.path);
        // The script there enforces the time limit; this one is for a script that does not answer.
        let started = Instant::now();
        let limit = task.timeout.saturating_add(STEP_LIMIT);
        let answer = loop {
            let answer = self.step(script, STEP_LIMIT, task.interrupt)?;
            if exit_code(&answer) != Some(STILL_RUNNING) {
                break answer;
            }
            if started.elapsed() > limit {
                let (architecture, log) = (task.architecture.clone(), Box::new(log.excerpt()));
                return Err(Error::TimedOut { architecture, limit, log });
            }
        };
        let (status, output) = answer.stdout.split_once('\n').unwrap_or((&answer.stdout, ""));
        log.begin(&format!("ssh {} /bin/bash compile.sh", self.options.host))
            .and_then(|()| log.append(output))
            .map_err(log_error)?;
        match (exit_code(&answer), status) {
            (Some(0), "0") => Ok(()),
            (Some(0), status) => Err(Error::CompileFailed {
                architecture: task.architecture.clone(),
                status: format!("on {}, exit code {status}", self.options.host),
                log: Box::new(log.excerpt()),
            }),
            (Some(VANISHED), _) => Err(self
                .options
                .error("the compile has vanished there", "was it restarted? run the command again")),
            _ => Err(self.options.error(answer.message(), "run the command again")),
        }
    }

    /// Stops what runs there and removes the folder, in one attempt. A user who pressed Ctrl-C does not wait for that.
    fn remove(&self, folder: &str, interrupt: &Interrupt) -> Result<(), Error> {
        let script = format!("folder={folder}\n{RUNNING}{REMOVE}");
        if interrupt.is_raised() {
            let (mut command, script) = self.bash(&script)?;
            let started = process::start(&mut command, &script, REMOVE_MOMENT);
            let failed = |message: String| self.options.error(message, "remove the folder by hand");
            return match started.map_err(|e| failed(e.to_string()))? {
                Some(status) if !status.success() => Err(failed(status.to_string())),
                _ => Ok(()),
            };
        }
        let answer = self.step_once(&script, REMOVE_LIMIT, interrupt)?;
        match exit_code(&answer) {
            Some(0) => Ok(()),
            _ => Err(self.options.error(answer.message(), "remove the folder by hand")),
        }
    }
}

impl Compiler for Remote {
    fn version(&self) -> &str {
        &self.version
    }

    fn shares_clock(&self) -> bool {
        false
    }

    fn compile(
        &mut self,
        task: &CompileTask<'_>,
        log: &mut Log,
        progress: &dyn Progress,
    ) -> Result<(), Error> {
        let folder = self.folder(task);
        let result = self.compile_in(&folder, task, log, progress);
        // After a lost connection the machine cannot be reached, and the next run continues with what is there.
        if !matches!(result, Err(Error::ConnectionLost { .. }))
            && let Err(e) = self.remove(&folder, task.interrupt)
        {
            progress.note(&format!("{folder} could not be removed: {e}"));
        }
        result
    }
}

fn exit_code(answer: &Captured) -> Option<i32> {
    match answer.end {
        End::Exited(status) => status.code(),
        _ => None,
    }
}

fn pause(duration: Duration, interrupt: &Interrupt) -> Result<(), Error> {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        if interrupt.is_raised() {
            return Err(Error::Interrupted);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
