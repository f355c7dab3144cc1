//! Runs of the command that are cut off and resumed. Cuts at every place, and damage, are tested in process: see
//! `converter/tests/it/resume.rs` and `src/stage/tests.rs`.

use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use crate::common::{Dir, both, text, tree};
use checkpoint::source::{LocalSource, Source};
use fixtures::hub::{Fault, Faults, Hub};
use fixtures::{Shape, SyntheticCheckpoint};
use serde_json::Value;

const ID: &str = "google/gemma-4-tiny";

/// Bytes a second: a run takes a little more than a second.
const BANDWIDTH: u64 = 100 << 20;

/// A checkpoint on a Hub, and a folder to convert it into.
struct Line {
    dir: Dir,
    hub: Hub,
    commit: String,
}

impl Line {
    /// Large enough that packages go to the disk in several parts.
    fn new() -> Self {
        let (dir, hub) = (Dir::new(), Hub::start().unwrap());
        let shape = Shape { vocabulary: 4096, hidden: 1024, intermediate: 2048, ..Shape::small() };
        SyntheticCheckpoint::new(shape).write(&dir.path("model")).unwrap();
        let commit = hub.add_folder(ID, &dir.path("model")).unwrap();
        hub.set_bandwidth(Some(BANDWIDTH));
        Line { dir, hub, commit }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.dir.command(arguments);
        command.env("HF_ENDPOINT", self.hub.endpoint()).env("HF_HOME", self.dir.path("home"));
        command.env_remove("HF_HUB_CACHE").env_remove("HF_TOKEN").env_remove("HF_HUB_OFFLINE");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn ok(&self, arguments: &[&str]) {
        let output = self.command(arguments).stderr(Stdio::piped()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}\n{}", both(&output));
    }

    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}\n{}", both(&output));
        text(&output.stderr)
    }

    /// Tensors that the run which was cut off has finished, by its journal.
    fn finished(&self) -> Vec<String> {
        let Some(journal) = self.journal() else { return Vec::new() };
        let journal = std::fs::read_to_string(journal).unwrap_or_default();
        let whole = journal.split_inclusive('\n').skip(1).filter(|line| line.ends_with('\n'));
        let name = |line: &str| {
            let (_digest, entry) = line.split_once(' ').unwrap();
            let entry: Value = serde_json::from_str(entry).unwrap();
            let (_, facts) = entry.as_object().unwrap().iter().next().unwrap();
            facts["name"].as_str().map(str::to_owned)
        };
        whole.filter_map(name).collect()
    }

    fn journal(&self) -> Option<PathBuf> {
        let name = self.dir.names("out").into_iter().find(|name| name.contains(".work.partial-"))?;
        Some(self.dir.path("out").join(name).join("journal"))
    }

    /// Starts a run, does something to it as soon as it has finished this many tensors, and returns how it ended.
    fn disturb(&self, arguments: &[&str], tensors: usize, disturb: &dyn Fn(&mut Child)) -> Output {
        let mut child = self.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
        while self.finished().len() < tensors {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before it was disturbed");
            std::thread::sleep(Duration::from_millis(1));
        }
        disturb(&mut child);
        child.wait_with_output().unwrap()
    }

    /// Makes the Hub refuse a run for longer than it waits, as soon as it has finished a tensor.
    fn break_line(&self, arguments: &[&str]) -> String {
        let away = Faults::new(7, 1, &[Fault::TooMany(3600)]);
        let output = self.disturb(arguments, 1, &|_| self.hub.set_faults(Some(away.clone())));
        self.hub.set_faults(None);
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        text(&output.stderr)
    }

    /// Ranges of weight files that were sent since the log was cleared.
    fn ranges(&self) -> Vec<(String, Range<u64>)> {
        let log = self.hub.log();
        let ranges = log.iter().filter_map(|entry| Some((entry.file.clone()?, entry.range.clone()?)));
        ranges.filter(|(file, _)| file.ends_with(".safetensors")).collect()
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// SIGKILL: nothing can be cleaned up.
#[test]
fn a_killed_run_is_resumed_and_transfers_no_finished_tensor_again() {
    let line = Line::new();
    let source = LocalSource::open(&line.dir.path("model")).unwrap();
    for (kind, tensors) in [("both", 3), ("stock", 2), ("tables", 1)] {
        let run = match kind {
            "tables" => vec!["tables", ID, "-o", "out", "--name", "m"],
            _ => vec!["convert", ID, "-o", "out", "--name", "m", "--variant", kind],
        };
        line.ok(&run);
        let expected = tree(&line.dir.path("out"));
        std::fs::remove_dir_all(line.dir.path("out")).unwrap();
        // Every run reads what planning reads.
        line.hub.clear_log();
        if kind != "tables" {
            line.ok(&[&run[..], &["--dry-run"]].concat());
        }
        let planning = line.ranges();
        let killed = line.disturb(&run, tensors, &|child| child.kill().unwrap());
        assert_eq!(killed.status.code(), None, "{}", both(&killed));
        let finished = line.finished();
        line.hub.clear_log();
        line.ok(&[&run[..], &["--resume"]].concat());
        assert!(tree(&line.dir.path("out")) == expected, "{kind}: {:?}", line.dir.names("out"));
        let again = line.ranges();
        for name in &finished {
            let tensor = source.tensor(name).unwrap();
            let transferred = again.iter().find(|(file, range)| {
                **file == *tensor.file
                    && overlap(range, &tensor.range)
                    && !planning.contains(&(file.clone(), range.clone()))
            });
            assert_eq!(transferred, None, "{kind}: {name} was finished: {finished:?}");
        }
        std::fs::remove_dir_all(line.dir.path("out")).unwrap();
    }
}

#[test]
fn a_run_resumes_only_with_the_same_commit_and_options() {
    let line = Line::new();
    let run = ["convert", ID, "-o", "out", "--name", "m"];
    let with = |more: &[&'static str]| [&run[..], more].concat();
    line.break_line(&run);
    let held = line.dir.names("out");
    assert!(
        line.fails(&with(&["--resume", "--max-context", "512"]))
            .contains("--max-context 4096, this one has 512")
    );
    assert!(line.fails(&with(&["--resume", "--variant", "both"])).contains("--variant provider"));
    std::fs::write(line.dir.path("model/README.md"), "A new commit").unwrap();
    let commit = line.hub.change(ID, |repository| repository.commit_folder(&line.dir.path("model"))).unwrap();
    assert_ne!(commit, line.commit);
    let moved = line.fails(&with(&["--resume"]));
    assert!(moved.contains(&format!("give --revision {} to continue", line.commit)), "{moved}");
    assert_eq!(line.dir.names("out"), held, "what is there waits for the right command");
    line.ok(&[&run[..], &["--resume", "--revision", &line.commit]].concat());
    assert_eq!(line.dir.names("out"), ["m_decode_int4lin", "m_gather_raw"]);

    // Without --resume a run starts over, and removes what was left.
    line.break_line(&with(&["--force"]));
    line.ok(&with(&["--force"]));
    assert_eq!(line.dir.names("out"), ["m_decode_int4lin", "m_gather_raw"]);
    // With nothing to resume, the run starts from the beginning.
    line.ok(&["tables", ID, "-o", "new", "--name", "m", "--resume"]);
    let folder = line.fails(&["convert", "model", "-o", "other", "--resume"]);
    assert!(folder.contains("only a conversion of a repository's commit can be resumed"), "{folder}");
    assert_eq!(line.dir.names("other"), [""; 0]);
}

#[test]
fn what_was_finished_is_kept_when_the_connection_breaks_or_if_asked_for() {
    let line = Line::new();
    let run = ["convert", ID, "-o", "out", "--name", "m"];
    let resume = [&run[..], &["--resume"]].concat();
    let interrupt = |arguments: &[&str]| {
        let output = line.disturb(arguments, 1, &|child| {
            Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
        });
        assert_eq!(output.status.code(), Some(1), "{}", both(&output));
        text(&output.stderr)
    };
    let kept = interrupt(&run);
    assert!(kept.contains("interrupted") && kept.contains("run again with --resume to continue"), "{kept}");
    line.ok(&resume);
    std::fs::remove_dir_all(line.dir.path("out")).unwrap();
    let kept = interrupt(&resume);
    assert!(kept.contains("run again with --resume to continue"), "{kept}");
    line.ok(&resume);

    std::fs::remove_dir_all(line.dir.path("out")).unwrap();
    let broken = line.break_line(&run);
    assert!(broken.contains("limits the rate") && broken.contains("--resume to continue"), "{broken}");
    line.ok(&resume);
    assert_eq!(line.dir.names("out"), ["m_decode_int4lin", "m_gather_raw"]);
}
