//! Tasks of the project, run as `cargo xtask NAME`.
//!
//! - `test`, `ci`, `golden`: [`suite`] runs the project's own checks, the judges among them.
//! - `apple-check`: [`judges`] lets third-party programs judge what we wrote.
//! - `bench`: [`bench`] measures speed and memory against floors and peers.
//! - `dist`, `install-files`: [`dist`] builds the release archive, and what installs it.
//! - `fixture`: [`fixture`] makes a synthetic checkpoint.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the output is what a task is run for")]

mod bench;
mod dist;
mod fixture;
mod judges;
mod llama;
mod suite;
mod workspace;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Tasks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Format, lints, tests, doc tests, then the judges
    Test,
    /// As `test`, but judges that cannot run are a failure (CI=true in the environment does the same)
    Ci,
    /// Let Apple's loader and runtime judge packages, ours and the reference ones
    AppleCheck(judges::Options),
    /// Run the tests so that they rewrite their golden files
    Golden {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measure kernels, files and whole conversions against floors and peers
    Bench(bench::Options),
    /// Build the release archive: binary, completions, manual pages, documents
    Dist(dist::Options),
    /// Write a Homebrew formula and a container file for the release archives of all targets
    InstallFiles(dist::InstallOptions),
    /// Make a synthetic checkpoint
    Fixture(fixture::Options),
}

fn main() -> ExitCode {
    let strict = std::env::var_os("CI").is_some_and(|value| value == "true");
    let done = match Arguments::parse().chore {
        Chore::Test => suite::test(strict),
        Chore::Ci => suite::test(true),
        Chore::AppleCheck(options) => judges::run(&options, strict),
        Chore::Golden { arguments } => suite::golden(&arguments),
        Chore::Bench(options) => bench::run(&options),
        Chore::Dist(options) => dist::run_with(&options),
        Chore::InstallFiles(options) => dist::write_install_files(&options),
        Chore::Fixture(options) => fixture::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
