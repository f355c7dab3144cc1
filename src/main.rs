//! The command `coreai-bundle`: parses arguments and prints results; the work is done in `coreai_bundle`.

mod aotc;
mod build;
mod check;
mod cli;
mod columns;
mod convert;
mod diff;
mod doctor;
mod eval;
mod explain;
mod failure;
mod gate;
mod init;
mod inspect;
mod interrupt;
mod manual;
mod oracle;
mod origin;
mod outputs;
mod pack;
mod plan_text;
mod progress;
mod prompts;
mod publish;
mod published;
mod release;
mod run;
mod runnable;
mod tables;
mod template;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use coreai_bundle::parts::report::digits;

fn main() -> ExitCode {
    if template::is_requested() {
        return template::answer();
    }
    std::panic::catch_unwind(command).unwrap_or_else(|_| failure::panicked())
}

fn command() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => {
            cli.output.apply();
            cli.command.run().unwrap_or_else(|error| failure::report(&error))
        }
        Err(error) => failure::usage(&error),
    }
}
