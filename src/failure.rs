//! How a command ends that could not do what was asked.

use std::io;
use std::process::ExitCode;

use converter::ConvertError;
use converter::plan::PlanError;

use crate::terminal;

/// What the user can mend.
const USER: u8 = 1;
/// A bug, or a broken machine.
const BUG: u8 = 2;

/// Prints what was typed wrong, or the help that was asked for, and gives the exit status. Help is our own text; errors quote
/// arguments.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        terminal::tell(text::bounds::cut(error.to_string().trim_end(), text::bounds::LONGEST_MESSAGE));
    } else {
        // Nothing is left to do if standard output is closed.
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(BUG))
}

/// Prints an error with its causes, and gives the exit status. A closed pipe is no error.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    let mut text = format!("error: {error}");
    let mut said = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Many errors already quote their cause.
        if !said.contains(&cause) {
            text.push_str(&format!("\n  caused by: {cause}"));
        }
        said = cause;
    }
    if let Some(hint) = error.downcast_ref::<aotc::Error>().and_then(aotc::Error::hint) {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    terminal::tell_error(&text);
    ExitCode::from(status(error))
}

fn status(error: &anyhow::Error) -> u8 {
    if let Some(error) = error.downcast_ref::<aotc::Error>() {
        return error.exit_code();
    }
    match error.downcast_ref::<ConvertError>() {
        Some(ConvertError::Plan(PlanError::Graph(_) | PlanError::Invalid(_))) => BUG,
        _ => USER,
    }
}
