//! The project's own checks, in the order in which they fail fastest.

use crate::judges;
use crate::workspace::{cargo, run, show};
use anyhow::Result;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Environment variable that makes golden tests rewrite their files; `insta` has its own.
const UPDATE_GOLDEN: &str = "UPDATE_GOLDEN";

/// Runs everything; with `strict`, judges that cannot run are a failure.
pub(crate) fn test(strict: bool) -> Result<()> {
    step(&mut cargo(["fmt", "--all", "--check"]))?;
    step(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))?;
    step(&mut unit_tests())?;
    step(&mut cargo(["test", "--workspace", "--doc"]))?;
    judges::run(&judges::Options::default(), strict)
}

/// Runs the tests so that they rewrite their golden files.
pub(crate) fn golden(arguments: &[String]) -> Result<()> {
    step(cargo(["test", "--workspace"]).args(arguments).env(UPDATE_GOLDEN, "1").env("INSTA_UPDATE", "always"))
}

/// `cargo nextest` where it is installed, for it runs the test programs side by side; else `cargo test`.
fn unit_tests() -> Command {
    let found = cargo(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        cargo(["nextest", "run", "--workspace"])
    } else {
        cargo(["test", "--workspace", "--lib", "--bins", "--tests", "--examples"])
    }
}

fn step(command: &mut Command) -> Result<()> {
    println!("== {}", show(command));
    let start = Instant::now();
    run(command)?;
    println!("   {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}
