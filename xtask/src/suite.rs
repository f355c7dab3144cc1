//! The project's own checks, in the order in which they fail fastest.

use crate::judges;
use crate::workspace::{cargo, run, show};
use anyhow::{Result, bail};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Environment variable that makes golden tests rewrite their files.
const UPDATE_GOLDEN: &str = "UPDATE_GOLDEN";

/// Runs everything; with `strict`, a program that is not installed and judges that cannot run are a failure.
pub(crate) fn test(strict: bool) -> Result<()> {
    std::thread::scope(|scope| {
        // The judges' packages are downloaded while the tests are built.
        let environment = scope.spawn(judges::Environment::prepare);
        tests(strict)?;
        let environment =
            environment.join().unwrap_or_else(|_| bail!("making the judges' environment panicked"));
        judges::run_in(environment, &judges::Options::default(), strict)
    })
}

/// Everything but the judges.
fn tests(strict: bool) -> Result<()> {
    step(&mut cargo(["fmt", "--all", "--check"]))?;
    if compiler_lints() {
        println!("== clippy runs with the build");
    } else {
        step(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    }
    if is_installed("deny", "licenses and versions of dependencies are not checked", strict)? {
        step(&mut cargo(["deny", "--workspace", "check", "bans", "licenses", "sources"]))?;
    }
    step(&mut unit_tests(strict)?)?;
    step(&mut cargo(["test", "--workspace", "--doc"]))
}

/// Whether clippy's driver is the compiler of the workspace, and its warnings are errors.
fn compiler_lints() -> bool {
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|set| set == value);
    is("RUSTC_WORKSPACE_WRAPPER", "clippy-driver") && is("RUSTFLAGS", "-D warnings")
}

/// Runs the tests so that they rewrite their golden files.
pub(crate) fn golden(arguments: &[String]) -> Result<()> {
    step(cargo(["test", "--workspace"]).args(arguments).env(UPDATE_GOLDEN, "1"))
}

/// `cargo nextest`, which runs all tests side by side, or `cargo test`, which runs one program after the other.
fn unit_tests(strict: bool) -> Result<Command> {
    Ok(match is_installed("nextest", "the tests take longer", strict)? {
        true => {
            // Some tests wait for a program or a server: one more than there are cores can run.
            let threads = std::thread::available_parallelism()?.get() + 1;
            let mut command = cargo(["nextest", "run", "--workspace", "--test-threads"]);
            command.arg(threads.to_string());
            command
        }
        false => cargo(["test", "--workspace", "--lib", "--bins", "--tests", "--examples"]),
    })
}

/// Whether cargo has this command; prints the consequence if it has not.
///
/// # Errors
/// If it has not and `strict` is set: CI installs it.
fn is_installed(command: &str, without: &str, strict: bool) -> Result<bool> {
    let found = cargo([command, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found && strict {
        bail!("cargo-{command} is not installed; .ci/requirements.txt names a package of it");
    }
    if !found {
        println!("cargo-{command} is not installed: {without}");
    }
    Ok(found)
}

fn step(command: &mut Command) -> Result<()> {
    println!("== {}", show(command));
    let start = Instant::now();
    run(command)?;
    println!("   {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
