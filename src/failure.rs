//! How a command that could not do what was asked ends.

use coreai_bundle::parts::{aotc, text};
use std::borrow::Cow;
use std::io;
use std::process::ExitCode;

use coreai_bundle::parts::converter::ConvertError;
use coreai_bundle::parts::converter::PlanError;

use serde_json::json;

use crate::terminal;

/// What was asked for cannot be done: the user can do something about it.
const USER: u8 = 1;
/// The machine failed, or this program did.
const MACHINE: u8 = 2;

/// Prints an error with its causes, and returns the exit status. A closed pipe is not an error.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let mut said = error.to_string();
    let mut causes = Vec::new();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Many errors already quote their cause.
        if !said.contains(&cause) {
            causes.push(cause.clone());
        }
        said = cause;
    }
    let hint = error.downcast_ref::<aotc::Error>().and_then(aotc::Error::hint);
    if terminal::is_json() {
        let message = bounded(&error.to_string()).into_owned();
        let event = json!({
            "event": "error", "message": message, "causes": causes, "hint": hint, "status": status(error),
        });
        terminal::tell_json_error(&event);
    } else {
        let mut text = format!("error: {error}");
        causes.iter().for_each(|cause| text.push_str(&format!("\n  caused by: {cause}")));
        if let Some(hint) = hint {
            text.push_str(&format!("\n  hint: {hint}"));
        }
        terminal::tell_error(&text);
    }
    ExitCode::from(status(error))
}

/// Prints what is wrong with the arguments, or the help that they ask for, and returns the exit status. Help is our own text;
/// errors quote arguments.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    // The standard library's words for numbers that must not be 0.
    let said = |text: String| text.replace("number would be zero for non-zero type", "give 1 or more");
    if error.use_stderr() {
        // Arguments that cannot be parsed do not say how they want their errors; the option itself does.
        if std::env::args_os().any(|argument| argument == "--json") {
            let rendered = said(error.render().to_string());
            let message = bounded(rendered.trim_start_matches("error: ").trim_end());
            terminal::tell_json_error(&json!({"event": "error", "message": message, "status": USER}));
        } else {
            terminal::tell_error(&bounded(said(error.to_string()).trim_end()));
        }
        return ExitCode::from(USER);
    }
    // If standard output is closed, there is nothing left to do.
    let _ = error.print();
    ExitCode::SUCCESS
}

fn bounded(message: &str) -> Cow<'_, str> {
    text::bounds::cut(message, text::bounds::LONGEST_MESSAGE)
}

/// The exit status of a panic, whose message was printed already.
pub(crate) fn panicked() -> ExitCode {
    ExitCode::from(MACHINE)
}

fn status(error: &anyhow::Error) -> u8 {
    let is_bug = matches!(
        error.downcast_ref::<ConvertError>(),
        Some(ConvertError::Plan(PlanError::Graph(_) | PlanError::Invalid(_) | PlanError::NoTable { .. }))
    );
    let compiler = error.downcast_ref::<aotc::Error>().is_some_and(aotc::Error::blames_the_machine);
    let mut refusals = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>());
    let machine = refusals.any(|refusal| !is_the_users(refusal.kind()));
    if is_bug || compiler || machine { MACHINE } else { USER }
}

/// Whether the system refused because of what the user gave: a name, a permission, a device, the network. Anything else is the
/// machine's: a full disk, a device that fails, no memory.
fn is_the_users(kind: io::ErrorKind) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        kind,
        Kind::NotFound
            | Kind::PermissionDenied
            | Kind::AlreadyExists
            | Kind::NotADirectory
            | Kind::IsADirectory
            | Kind::DirectoryNotEmpty
            | Kind::ReadOnlyFilesystem
            | Kind::CrossesDevices
            | Kind::NotSeekable
            | Kind::TooManyLinks
            | Kind::FileTooLarge
            | Kind::ExecutableFileBusy
            | Kind::ArgumentListTooLong
            | Kind::InvalidInput
            | Kind::InvalidFilename
            | Kind::InvalidData
            | Kind::UnexpectedEof
            | Kind::Unsupported
            | Kind::BrokenPipe
            | Kind::Interrupted
            | Kind::TimedOut
            | Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::NotConnected
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::AddrInUse
            | Kind::AddrNotAvailable
    )
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::{Context, anyhow};
    use coreai_bundle::parts::hub;
    use std::io::ErrorKind as Kind;

    use super::*;

    /// An error of the system as the crates pass it on, with another one around it.
    fn refused(error: io::Error) -> anyhow::Error {
        let path = PathBuf::from("out");
        anyhow::Error::from(hub::Error::Io { action: "write", path, source: error }).context("cannot convert")
    }

    #[test]
    fn every_kind_of_failure_has_its_status() {
        for kind in [Kind::NotFound, Kind::PermissionDenied, Kind::AlreadyExists, Kind::ReadOnlyFilesystem] {
            assert_eq!(status(&refused(kind.into())), USER, "{kind}");
        }
        for kind in [Kind::StorageFull, Kind::QuotaExceeded, Kind::OutOfMemory, Kind::Other] {
            assert_eq!(status(&refused(kind.into())), MACHINE, "{kind}");
        }
        // As the system itself says it: no space, an I/O error, no memory, too many open files; then no file, no permission.
        for (number, expected) in
            [(28, MACHINE), (5, MACHINE), (12, MACHINE), (24, MACHINE), (2, USER), (13, USER)]
        {
            assert_eq!(status(&refused(io::Error::from_raw_os_error(number))), expected, "{number}");
        }
        let full = Err::<(), _>(io::Error::from_raw_os_error(28)).context("cannot write card");
        assert_eq!(status(&full.unwrap_err()), MACHINE);
        assert_eq!(status(&anyhow!("give owner/name")), USER);
        assert_eq!(status(&hub::Error::Cancelled.into()), USER);
        let space = aotc::Error::DiskSpace { path: PathBuf::new(), needed: 2, available: 1 };
        assert_eq!(status(&space.into()), MACHINE);
        assert_eq!(status(&aotc::Error::NoArchitecture.into()), USER);
    }
}
