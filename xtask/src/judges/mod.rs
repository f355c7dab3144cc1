//! Judges: third-party programs that check what we wrote.
//!
//! A judge is a Python script that runs in a pinned environment and prints one JSON object per check. The judges plan their tasks one
//! after the other; meanwhile tasks run side by side, each in a separate process, since Apple's code ends the process on some bad
//! packages. To add a judge, add a line to [`JUDGES`].

mod apple;
mod damage;
mod environment;
mod evaluation;
mod hub;
mod q4_0;
mod tables;
mod task;

use anyhow::{Result, bail};
use clap::Args;
use std::num::NonZero;
use std::path::PathBuf;
use std::thread;
use std::time::Instant;
use task::{Plan, Tally, Task};

pub(crate) use self::environment::Environment;
pub(crate) use self::environment::scripts;
use crate::workspace::{cargo, run as run_command, target};

/// What to judge, and how.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Judge only what has this in its name
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Let this `coreai-bundle` convert, instead of building one
    #[arg(long, value_name = "PROGRAM")]
    binary: Option<PathBuf>,
    /// Processes at a time; default: as many as there are cores
    #[arg(long, value_name = "N")]
    jobs: Option<NonZero<usize>>,
}

impl Options {
    /// Whether `--only` selects this name.
    fn wants(&self, name: &str) -> bool {
        self.only.as_deref().is_none_or(|part| name.contains(part))
    }
}

/// A judge: a name for the report, and how it plans its tasks.
struct Judge {
    name: &'static str,
    plan: fn(&Options, &mut Plan) -> Result<()>,
}

const JUDGES: [Judge; 6] = [
    Judge { name: "apple", plan: apple::plan },
    Judge { name: "apple", plan: damage::plan },
    Judge { name: "numpy", plan: tables::plan },
    Judge { name: "numpy", plan: evaluation::plan },
    Judge { name: "gguf", plan: q4_0::plan },
    Judge { name: "huggingface_hub", plan: hub::plan },
];

/// Builds what is judged: all targets of all packages, which is what tests are built as. A single package would resolve
/// features again and build most of its dependencies a second time.
fn build() -> Result<()> {
    run_command(&mut cargo(["build", "--quiet", "--workspace", "--all-targets"]))
}

/// The command under judgement: the one given, else one built now.
fn program(options: &Options) -> Result<PathBuf> {
    if let Some(program) = &options.binary {
        return Ok(program.clone());
    }
    build()?;
    Ok(target().join("debug").join(format!("coreai-bundle{}", std::env::consts::EXE_SUFFIX)))
}

/// The Python of the judges' environment, which is made if necessary.
pub(crate) fn python() -> Result<PathBuf> {
    Ok(Environment::prepare()?.python().to_owned())
}

/// Runs all judges and prints one line per check; with `strict`, an environment that cannot be made is a failure.
pub(crate) fn run(options: &Options, strict: bool) -> Result<()> {
    run_in(Environment::prepare(), options, strict)
}

/// As [`run`], in an environment that was made before.
pub(crate) fn run_in(environment: Result<Environment>, options: &Options, strict: bool) -> Result<()> {
    println!("== apple-check");
    let environment = match environment {
        Ok(environment) => environment,
        Err(reason) if strict => bail!("the judges cannot run: {reason:#}"),
        Err(reason) => {
            println!("skipped: {reason:#}");
            println!("0 passed, 0 failed, {} skipped", JUDGES.len());
            return Ok(());
        }
    };
    let cores = || thread::available_parallelism().map_or(1, NonZero::get);
    let workers = options.jobs.map_or_else(cores, NonZero::get);
    let mut tally = Tally::default();
    let plan = |plan: &mut Plan| {
        JUDGES.iter().try_for_each(|judge| {
            plan.begin(judge.name);
            (judge.plan)(options, plan)
        })
    };
    let run = |judge: &'static str, task: &Task| {
        let begun = Instant::now();
        let outcome = environment.run(task);
        println!("       {judge} {}: {:.1} s", task.subject, begun.elapsed().as_secs_f64());
        outcome
    };
    task::run_all(plan, workers, run, |judge, check| tally.report(judge, check))?;
    println!("{tally}");
    if tally.failed > 0 {
        bail!("{} checks failed", tally.failed);
    }
    if tally.passed == 0 {
        bail!("nothing was judged");
    }
    Ok(())
}
