//! Tasks of judges: what is run, its results, and their count.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// What a judge wants to run, handed to the workers while it is still planning.
pub(crate) struct Plan {
    judge: &'static str,
    tasks: Sender<(&'static str, Task)>,
    verdicts: Sender<(&'static str, Check)>,
    afterwards: Vec<(&'static str, Task)>,
}

impl Plan {
    /// What is planned from now on is of this judge.
    pub(crate) fn begin(&mut self, judge: &'static str) {
        self.judge = judge;
    }

    /// Reports a verdict of planning itself.
    pub(crate) fn report(&mut self, check: Check) {
        // Verdicts are received until planning ends, and so are tasks.
        let _ = self.verdicts.send((self.judge, check));
    }

    /// Runs a task as soon as there is a worker for it.
    pub(crate) fn run(&mut self, task: Task) {
        let _ = self.tasks.send((self.judge, task));
    }

    /// Runs a task that needs the results of others, after all of them.
    pub(crate) fn run_afterwards(&mut self, task: Task) {
        self.afterwards.push((self.judge, task));
    }
}

/// One run of a judge's script.
pub(crate) struct Task {
    /// What is judged.
    pub(crate) subject: String,
    /// The script.
    pub(crate) script: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As expected.
    Passed,
    /// Not as expected, or it could not be determined.
    Failed,
}

/// A line of a judge's output.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckLine {
    check: String,
    status: Status,
    message: String,
    detail: Value,
}

/// One verdict.
#[derive(Debug)]
pub(crate) struct Check {
    /// What was judged.
    pub(crate) subject: String,
    /// Which of the judge's checks.
    pub(crate) check: String,
    /// The verdict.
    pub(crate) status: Status,
    /// Why, if it failed; else its numbers.
    pub(crate) message: String,
}

impl Check {
    /// A failed check.
    pub(crate) fn failed(subject: &str, check: &str, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), check: check.into(), status: Status::Failed, message: message.into() }
    }

    /// A passed check.
    pub(crate) fn passed(subject: &str, check: &str, message: impl Into<String>) -> Self {
        Self { subject: subject.into(), check: check.into(), status: Status::Passed, message: message.into() }
    }
}

/// The result of a task's process.
pub(crate) struct Outcome {
    /// Its standard output.
    pub(crate) output: String,
    /// Why it failed, with the end of its standard error.
    pub(crate) trouble: Option<String>,
}

/// Counts verdicts and prints them as they come.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
}

impl Tally {
    /// Counts and prints one verdict.
    pub(crate) fn report(&mut self, judge: &str, check: &Check) {
        let Check { subject, check: name, status, message } = check;
        let word = match status {
            Status::Passed => {
                self.passed += 1;
                "ok    "
            }
            Status::Failed => {
                self.failed += 1;
                "FAILED"
            }
        };
        let gap = if message.is_empty() { "" } else { ": " };
        println!("{word} {judge} {subject} {name}{gap}{message}");
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, 0 skipped", self.passed, self.failed)
    }
}

/// Runs tasks while they are planned, `workers` at a time in their order; hands over each judge's verdicts as they come.
///
/// # Errors
/// The error of planning, once the tasks that were planned before it have ended.
pub(crate) fn run_all(
    plan: impl FnOnce(&mut Plan) -> Result<()> + Send,
    workers: usize,
    run: impl Fn(&'static str, &Task) -> Outcome + Sync,
    mut report: impl FnMut(&'static str, &Check),
) -> Result<()> {
    let (sender, verdicts) = mpsc::channel();
    let run = &run;
    thread::scope(|scope| {
        let running = scope.spawn(move || {
            let afterwards = run_planned(plan, workers, run, &sender)?;
            let plan =
                |plan: &mut Plan| afterwards.into_iter().try_for_each(|task| Ok(plan.tasks.send(task)?));
            run_planned(plan, workers, run, &sender)
        });
        verdicts.iter().for_each(|(judge, check)| report(judge, &check));
        running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).map(|_| ())
    })
}

/// Runs what is planned to be run at once; returns what is to be run afterwards.
fn run_planned(
    plan: impl FnOnce(&mut Plan) -> Result<()>,
    workers: usize,
    run: &(impl Fn(&'static str, &Task) -> Outcome + Sync),
    verdicts_to: &Sender<(&'static str, Check)>,
) -> Result<Vec<(&'static str, Task)>> {
    let (sender, tasks) = mpsc::channel::<(&'static str, Task)>();
    let tasks = Mutex::new(tasks);
    thread::scope(|scope| {
        for _ in 0..workers {
            let (verdicts_to, tasks) = (verdicts_to.clone(), &tasks);
            scope.spawn(move || {
                let next = || tasks.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok((judge, task)) = next() {
                    for check in verdicts(&task.subject, &run(judge, &task)) {
                        let _ = verdicts_to.send((judge, check));
                    }
                }
            });
        }
        let mut planned =
            Plan { judge: "", tasks: sender, verdicts: verdicts_to.clone(), afterwards: Vec::new() };
        plan(&mut planned)?;
        Ok(planned.afterwards)
    })
}

/// Reads a task's output. A process that failed, or printed nothing, is a separate failed check.
fn verdicts(subject: &str, outcome: &Outcome) -> Vec<Check> {
    let mut checks: Vec<_> = outcome.output.lines().map(|line| verdict(subject, line)).collect();
    if let Some(trouble) = &outcome.trouble {
        checks.push(Check::failed(subject, "process", trouble));
    } else if checks.is_empty() {
        checks.push(Check::failed(subject, "process", "the judge printed nothing"));
    }
    checks
}

fn verdict(subject: &str, line: &str) -> Check {
    match serde_json::from_str::<CheckLine>(line) {
        Ok(CheckLine { check, status: Status::Failed, message, .. }) => {
            Check::failed(subject, &check, message)
        }
        Ok(CheckLine { check, detail, .. }) => Check::passed(subject, &check, figures(&detail)),
        Err(error) => Check::failed(subject, "output", format!("{error} in {line:?}")),
    }
}

/// The numbers of a check's detail, one after the other; the rest is for machines.
fn figures(detail: &Value) -> String {
    let numbers = detail.as_object().into_iter().flatten().filter(|(_, value)| value.is_number());
    numbers.map(|(name, value)| format!("{} {value}", name.replace('_', " "))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(subject: &str) -> Task {
        Task { subject: subject.into(), script: PathBuf::new(), arguments: Vec::new() }
    }

    fn outcome(output: &str, trouble: Option<&str>) -> Outcome {
        Outcome { output: output.into(), trouble: trouble.map(Into::into) }
    }

    fn run(
        plan: impl FnOnce(&mut Plan) -> Result<()> + Send,
        outcome: impl Fn(&Task) -> Outcome + Sync,
    ) -> (Tally, Vec<String>, Result<()>) {
        let (mut tally, mut seen) = (Tally::default(), Vec::new());
        let run = |_: &'static str, task: &Task| outcome(task);
        let ended = run_all(plan, 1, run, |judge, check| {
            tally.report(judge, check);
            seen.push(format!("{judge} {} {} {}", check.subject, check.check, check.message));
        });
        (tally, seen, ended)
    }

    fn run_one(outcome: impl Fn(&Task) -> Outcome + Sync) -> (Tally, Vec<String>) {
        let plan = |plan: &mut Plan| {
            plan.begin("test");
            plan.run(task("x"));
            Ok(())
        };
        let (tally, seen, ended) = run(plan, outcome);
        ended.unwrap();
        (tally, seen)
    }

    /// A judge whose planning fails does not take away what others found.
    #[test]
    fn every_line_of_every_judge_counts() {
        let line =
            r#"{"check":"run","status":"passed","message":"","detail":{"flips":0,"min_cosine":0.5,"in":[]}}"#;
        let plan = |plan: &mut Plan| {
            plan.begin("first");
            plan.run_afterwards(task("last"));
            plan.run(task("a"));
            plan.begin("second");
            plan.run(task("b"));
            Ok(())
        };
        let (tally, seen, ended) = run(plan, |_| outcome(line, None));
        ended.unwrap();
        assert_eq!(tally.to_string(), "3 passed, 0 failed, 0 skipped");
        let expected = ["first a", "second b", "first last"];
        assert_eq!(seen, expected.map(|task| format!("{task} run flips 0, min cosine 0.5")));
        let plan = |plan: &mut Plan| {
            plan.run(task("a"));
            anyhow::bail!("no checkpoint")
        };
        let (tally, _, ended) = run(plan, |_| outcome(line, None));
        assert_eq!((tally.passed, ended.unwrap_err().to_string()), (1, "no checkpoint".to_owned()));
    }

    #[test]
    fn silence_nonsense_and_crashes_are_failures() {
        for (output, trouble) in [("", None), ("Traceback", None), ("", Some("signal: 11"))] {
            let (tally, _) = run_one(|_| outcome(output, trouble));
            assert_eq!((tally.passed, tally.failed), (0, 1), "{output:?} {trouble:?}");
        }
    }

    #[test]
    fn a_crash_after_passed_checks_is_a_failure_too() {
        let line = r#"{"check":"load","status":"passed","message":"","detail":{}}"#;
        let (tally, seen) = run_one(|_| outcome(line, Some("signal: 6")));
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert_eq!(seen[1], "test x process signal: 6");
    }

    #[test]
    fn a_failed_line_keeps_its_reason() {
        let line = r#"{"check":"run","status":"failed","message":"flips 11 is outside 0..0","detail":{}}"#;
        let (tally, seen) = run_one(|_| outcome(line, None));
        assert_eq!(tally.failed, 1);
        assert_eq!(seen, ["test x run flips 11 is outside 0..0"]);
    }
}
