//! Tasks of judges: what is run, its results, and their count.

use serde::Deserialize;
use serde_json::Value;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

/// What a judge wants to run.
#[derive(Default)]
pub(crate) struct Plan {
    /// Verdicts of planning itself.
    pub(crate) checks: Vec<Check>,
    /// Tasks in any order.
    pub(crate) tasks: Vec<Task>,
    /// Tasks that need the results of the first ones.
    pub(crate) afterwards: Vec<Task>,
}

/// One run of a judge's script.
pub(crate) struct Task {
    /// What is judged.
    pub(crate) subject: String,
    /// The script.
    pub(crate) script: PathBuf,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// Approximate amount of work; the largest start first.
    pub(crate) weight: usize,
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

/// Runs the tasks, `workers` at a time and the heaviest first; hands over each task's verdicts when it ends.
pub(crate) fn run_all(
    mut tasks: Vec<Task>,
    workers: usize,
    run: impl Fn(&Task) -> Outcome + Sync,
    mut report: impl FnMut(&Check),
) {
    tasks.sort_by_key(|task| std::cmp::Reverse(task.weight));
    let queue = Mutex::new(VecDeque::from(tasks));
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..workers {
            let (sender, queue, run) = (sender.clone(), &queue, &run);
            scope.spawn(move || {
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                while let Some(task) = next() {
                    if sender.send(verdicts(&task.subject, &run(&task))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        receiver.iter().flatten().for_each(|check| report(&check));
    });
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

    fn task(subject: &str, weight: usize) -> Task {
        Task { subject: subject.into(), script: PathBuf::new(), arguments: Vec::new(), weight }
    }

    fn outcome(output: &str, trouble: Option<&str>) -> Outcome {
        Outcome { output: output.into(), trouble: trouble.map(Into::into) }
    }

    fn run(tasks: Vec<Task>, outcome: impl Fn(&Task) -> Outcome + Sync) -> (Tally, Vec<String>) {
        let (mut tally, mut seen) = (Tally::default(), Vec::new());
        run_all(tasks, 1, outcome, |check| {
            tally.report("test", check);
            seen.push(format!("{} {} {}", check.subject, check.check, check.message));
        });
        (tally, seen)
    }

    #[test]
    fn heaviest_first_and_every_line_counts() {
        let line =
            r#"{"check":"run","status":"passed","message":"","detail":{"flips":0,"min_cosine":0.5,"in":[]}}"#;
        let (tally, seen) = run(vec![task("light", 1), task("heavy", 2)], |_| outcome(line, None));
        assert_eq!(tally.to_string(), "2 passed, 0 failed, 0 skipped");
        assert_eq!(seen, ["heavy run flips 0, min cosine 0.5", "light run flips 0, min cosine 0.5"]);
    }

    #[test]
    fn silence_nonsense_and_crashes_are_failures() {
        for (output, trouble) in [("", None), ("Traceback", None), ("", Some("signal: 11"))] {
            let (tally, _) = run(vec![task("x", 1)], |_| outcome(output, trouble));
            assert_eq!((tally.passed, tally.failed), (0, 1), "{output:?} {trouble:?}");
        }
    }

    #[test]
    fn a_crash_after_passed_checks_is_a_failure_too() {
        let line = r#"{"check":"load","status":"passed","message":"","detail":{}}"#;
        let (tally, seen) = run(vec![task("x", 1)], |_| outcome(line, Some("signal: 6")));
        assert_eq!((tally.passed, tally.failed), (1, 1));
        assert_eq!(seen[1], "x process signal: 6");
    }

    #[test]
    fn a_failed_line_keeps_its_reason() {
        let line = r#"{"check":"run","status":"failed","message":"flips 11 is outside 0..0","detail":{}}"#;
        let (tally, seen) = run(vec![task("x", 1)], |_| outcome(line, None));
        assert_eq!(tally.failed, 1);
        assert_eq!(seen, ["x run flips 11 is outside 0..0"]);
    }
}
