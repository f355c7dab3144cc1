//! Runs that are cut off and go on: the right bytes, and no finished tensor a second time.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

mod common;

use std::fs::DirEntry;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Dir, both, text, tree};
use converter::source::{LocalSource, Source};
use fixtures::hub::{Fault, Faults, Hub};
use fixtures::{Recipe, Shape};
use serde_json::Value;

const ID: &str = "google/gemma-4-tiny";

/// Bytes a second: a run takes a good half second.
const BANDWIDTH: u64 = 200 << 20;

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
        Recipe::new(shape).write(&dir.path("model")).unwrap();
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
            let entry: Value = serde_json::from_str(line).unwrap();
            let (_, facts) = entry.as_object().unwrap().iter().next().unwrap();
            facts["name"].as_str().map(str::to_owned)
        };
        whole.filter_map(name).collect()
    }

    fn journal(&self) -> Option<PathBuf> {
        let name = self.dir.names("out").into_iter().find(|name| name.contains(".work.partial-"))?;
        Some(self.dir.path("out").join(name).join("journal.jsonl"))
    }

    /// Kills a run as soon as it has finished so many tensors.
    fn cut(&self, arguments: &[&str], tensors: usize) {
        let mut child = self.command(arguments).spawn().unwrap();
        let started = Instant::now();
        while self.finished().len() < tensors {
            assert!(child.try_wait().unwrap().is_none(), "the run ended before it was cut off");
            assert!(started.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
        kill(&mut child);
    }

    /// Bytes of all outputs, whole or not.
    fn written(&self) -> u64 {
        bytes_below(&self.dir.path("out"))
    }

    /// Kills a run when so many bytes are written; says whether it ended before.
    fn kill_at(&self, arguments: &[&str], bytes: u64) -> bool {
        let mut child = self.command(arguments).spawn().unwrap();
        while self.written() < bytes && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let has_ended = child.try_wait().unwrap().is_some();
        kill(&mut child);
        has_ended
    }

    /// Stretches of weight files that were sent since the log was cleared.
    fn ranges(&self) -> Vec<(String, Range<u64>)> {
        let log = self.hub.log();
        let ranges = log.iter().filter_map(|entry| Some((entry.file.clone()?, entry.range.clone()?)));
        ranges.filter(|(file, _)| file.ends_with(".safetensors")).collect()
    }
}

/// Bytes of all files in a folder, some of which may be going away.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let bytes = |entry: DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

fn kill(child: &mut Child) {
    // SIGKILL: nothing can be cleaned up.
    child.kill().unwrap();
    child.wait().unwrap();
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Twenty runs of each kind of output, killed at moments all over their time.
#[test]
fn a_killed_run_goes_on_and_transfers_no_finished_tensor_again() {
    let line = Line::new();
    let source = LocalSource::open(&line.dir.path("model")).unwrap();
    let (mut resumed, mut from_packages) = (0, 0);
    for (kind, moments) in [("both", 12_u32), ("stock", 5), ("tables", 3)] {
        let run = match kind {
            "tables" => vec!["tables", ID, "-o", "out", "--name", "m"],
            _ => vec!["convert", ID, "-o", "out", "--name", "m", "--variant", kind],
        };
        let resume = [&run[..], &["--resume"]].concat();
        line.ok(&run);
        let bytes = line.written();
        let expected = tree(&line.dir.path("out"));
        std::fs::remove_dir_all(line.dir.path("out")).unwrap();
        // What planning reads, every run reads.
        line.hub.clear_log();
        if kind != "tables" {
            line.ok(&[&run[..], &["--dry-run"]].concat());
        }
        let planning = line.ranges();
        for moment in 0..moments {
            // From the beginning to the end, unevenly.
            let share = (f64::from(moment) + f64::from(moment * 7 % 10) / 10.0) / f64::from(moments);
            let has_ended = line.kill_at(&run, (bytes as f64 * share) as u64);
            if moment % 3 == 2 && !has_ended {
                line.kill_at(&resume, (bytes as f64 * (0.5 + share / 2.0)) as u64);
            }
            let finished = line.finished();
            line.hub.clear_log();
            if line.dir.names("out").iter().all(|name| name.starts_with('.')) {
                line.ok(&resume);
            }
            let found = tree(&line.dir.path("out"));
            assert!(found == expected, "{kind} at {share}: {:?}", line.dir.names("out"));
            let again = line.ranges();
            for name in &finished {
                let tensor = source.tensor(name).unwrap();
                let transferred = again.iter().find(|(file, range)| {
                    **file == *tensor.file
                        && overlap(range, &tensor.range)
                        && !planning.contains(&(file.clone(), range.clone()))
                });
                assert_eq!(transferred, None, "{kind} at {share}: {name} was finished: {finished:?}");
            }
            resumed += usize::from(!finished.is_empty());
            from_packages += usize::from(finished.len() > 1);
            std::fs::remove_dir_all(line.dir.path("out")).unwrap();
        }
    }
    assert!(resumed >= 8 && from_packages >= 5, "{resumed} and {from_packages} of 20 moments were telling");
}

#[test]
fn a_run_goes_on_only_with_the_same_commit_and_options() {
    let line = Line::new();
    let run = ["convert", ID, "-o", "out", "--name", "m"];
    let with = |more: &[&'static str]| [&run[..], more].concat();
    line.cut(&run, 1);
    let held = line.dir.names("out");
    assert!(
        line.fails(&with(&["--resume", "--rule", "absmax"])).contains("--rule lattice, this one has absmax")
    );
    assert!(line.fails(&with(&["--resume", "--variant", "both"])).contains("--variant provider"));
    std::fs::write(line.dir.path("model/README.md"), "A new commit").unwrap();
    let commit = line.hub.change(ID, |repository| repository.commit_folder(&line.dir.path("model"))).unwrap();
    assert_ne!(commit, line.commit);
    let moved = line.fails(&with(&["--resume"]));
    assert!(moved.contains(&format!("give --revision {} to go on", line.commit)), "{moved}");
    assert_eq!(line.dir.names("out"), held, "what is there waits for the right command");
    line.ok(&[&run[..], &["--resume", "--revision", &line.commit]].concat());
    assert_eq!(line.dir.names("out"), ["m_decode_int4lin", "m_gather_raw"]);

    // Without --resume a run begins anew, and takes away what was left.
    line.cut(&with(&["--force"]), 1);
    line.ok(&with(&["--force"]));
    assert_eq!(line.dir.names("out"), ["m_decode_int4lin", "m_gather_raw"]);
    // Nothing to go on with is no reason not to begin.
    line.ok(&["tables", ID, "-o", "new", "--name", "m", "--resume"]);
    let folder = line.fails(&["convert", "model", "-o", "other", "--resume"]);
    assert!(folder.contains("only a conversion of a repository's commit can be resumed"), "{folder}");
    assert_eq!(line.dir.names("other"), [""; 0]);
}

#[test]
fn what_was_finished_is_kept_when_the_line_breaks_or_when_that_was_asked_for() {
    let line = Line::new();
    let run = ["convert", ID, "-o", "out", "--name", "m"];
    let resume = [&run[..], &["--resume"]].concat();
    let until_finished = |arguments: &[&str], then: &dyn Fn(&Child)| {
        let child = line.command(arguments).stderr(Stdio::piped()).spawn().unwrap();
        while line.finished().is_empty() {
            std::thread::sleep(Duration::from_millis(1));
        }
        then(&child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    let interrupt = |child: &Child| {
        Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    };
    assert!(until_finished(&run, &interrupt).contains("interrupted"));
    assert_eq!(line.dir.names("out"), [""; 0], "Ctrl-C leaves nothing");
    let kept = until_finished(&resume, &interrupt);
    assert!(kept.contains("run again with --resume to go on"), "{kept}");
    line.ok(&resume);

    std::fs::remove_dir_all(line.dir.path("out")).unwrap();
    // A Hub that wants to be left alone for longer than anybody waits.
    let broken =
        until_finished(&run, &|_| line.hub.set_faults(Some(Faults::new(7, 1, &[Fault::TooMany(3600)]))));
    assert!(broken.contains("limits the rate") && broken.contains("--resume to go on"), "{broken}");
    line.hub.set_faults(None);
    line.ok(&resume);
    assert_eq!(line.dir.names("out"), ["m_decode_int4lin", "m_gather_raw"]);
}

#[test]
fn what_was_damaged_meanwhile_is_not_gone_on_with() {
    let line = Line::new();
    let run = ["convert", ID, "-o", "out", "--name", "m"];
    line.cut(&run, 1);
    let bundle =
        line.dir.names("out").into_iter().find(|name| name.starts_with(".m_decode_int4lin.partial-"));
    let program = line.dir.path("out").join(bundle.unwrap()).join("m_decode_int4lin.aimodel/main.mlirb");
    let mut bytes = std::fs::read(&program).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&program, bytes).unwrap();
    let damaged = line.fails(&[&run[..], &["--resume"]].concat());
    assert!(damaged.contains("begin anew"), "{damaged}");
    line.ok(&run);
    assert_eq!(line.dir.names("out"), ["m_decode_int4lin", "m_gather_raw"]);
}
