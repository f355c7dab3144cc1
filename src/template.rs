//! Chat templates are rendered in a separate process, with limited memory, stack and time.
//!
//! A few lines of a hostile template can ask the engine for more of each than a machine has, and neither a full stack nor an
//! exhausted memory can be caught in the process where it happens. So the command starts itself again. That process reads a
//! conversation as JSON from its standard input and writes what was rendered, or why it was not, to its standard output.

use std::ffi::OsStr;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use coreai_bundle::parts::packer::template::{Conversation, MAX_RENDERED, TemplateError};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

/// Tells the command to render a template. It is for internal use, so neither help nor completions show it.
const ARGUMENT: &str = "__render-chat-template";

/// Most bytes that the process may allocate: a template of the largest size needs a tenth.
const MEMORY: usize = 128 << 20;

/// Stack of the thread that renders. An expression can nest as deep as its template is long, and a level takes about half a
/// kilobyte in an optimized build. Unused stack costs nothing.
const STACK: usize = 256 << 20;

/// Most seconds of processor time: a real template takes milliseconds, and how busy the machine is does not count.
const SECONDS: u64 = 1;

/// Exit status of a process that has used up its memory.
const OUT_OF_MEMORY: u8 = 3;

/// Renders a conversation in a separate process.
pub(crate) fn render(conversation: &Conversation) -> Result<String, TemplateError> {
    conversation.check_size()?;
    let request = serde_json::to_vec(conversation).map_err(io::Error::from)?;
    let (status, answer) = ask(&request)?;
    match serde_json::from_slice::<Result<String, String>>(&answer) {
        Ok(Ok(rendered)) if status.success() => Ok(rendered),
        Ok(Err(message)) if status.success() => Err(TemplateError::Render(message)),
        _ => Err(failure(status)),
    }
}

/// Runs the process; returns how it ended and what it wrote.
fn ask(request: &[u8]) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut child = Command::new(this_program()?)
        .arg(ARGUMENT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // It reads everything before it writes anything. If it has ended already, its status says more.
        match stdin.write_all(request) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    let mut answer = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        // Escapes of JSON make a text at most six times as long.
        stdout.take(6 * MAX_RENDERED as u64 + 64).read_to_end(&mut answer)?;
    }
    Ok((child.wait()?, answer))
}

/// The running program, even if its file was replaced in the meantime, where the system supports that.
fn this_program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok(PathBuf::from("/proc/self/exe")) } else { std::env::current_exe() }
}

/// Why the process did not answer.
fn failure(status: ExitStatus) -> TemplateError {
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if status.code() == Some(i32::from(OUT_OF_MEMORY)) {
        TemplateError::Exceeds(format!("{} MiB of memory", MEMORY >> 20))
    } else if is(Signal::XCPU) || is(Signal::KILL) {
        TemplateError::Exceeds(format!("{SECONDS} s of processor time"))
    } else if is(Signal::ABORT) || is(Signal::SEGV) || is(Signal::BUS) {
        TemplateError::Exceeds(format!("{} MiB of stack: it nests too deeply", STACK >> 20))
    } else {
        TemplateError::Process(io::Error::other(format!("it ended with {status}")))
    }
}

/// Whether this process was started to render a template.
pub(crate) fn is_requested() -> bool {
    std::env::args_os().nth(1).as_deref() == Some(OsStr::new(ARGUMENT))
}

/// Renders the conversation that standard input holds.
pub(crate) fn answer() -> ExitCode {
    match limited_answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Lowers one of the process's limits, unless it is lower already.
fn lower(resource: Resource, most: u64) -> io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let current = current.map_or(most, |current| current.min(most));
    Ok(setrlimit(resource, Rlimit { current: Some(current), maximum })?)
}

#[expect(clippy::disallowed_methods, reason = "the answer goes to the process that asked, not to a terminal")]
fn limited_answer() -> io::Result<()> {
    lower(Resource::Cpu, SECONDS)?;
    // A template that ends this process is not worth a core file.
    lower(Resource::Core, 0)?;
    memory_limit::limit(MEMORY, OUT_OF_MEMORY);
    let mut request = Vec::new();
    io::stdin().lock().read_to_end(&mut request)?;
    let conversation: Conversation = serde_json::from_slice(&request)?;
    let renderer = thread::Builder::new().stack_size(STACK);
    let rendered = renderer.spawn(move || conversation.render())?.join();
    let rendered = rendered.map_err(|_| io::Error::other("the template engine panicked"))?;
    let answer = rendered.map_err(|error| match error {
        TemplateError::Render(message) => message,
        other => other.to_string(),
    });
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, &answer)?;
    out.flush()
}
