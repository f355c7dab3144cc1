//! Publication: cut off between any two steps, twice, and resumed; failing without a journal; journals that are wrong.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use checkpoint::source::LocalSource;
use converter::name::ModelName;
use fixtures::{Shape, SyntheticCheckpoint};
use output::Disk;
use packer::manifest::{ManifestKind, Provenance};
use progress::Silent;
use tempfile::TempDir;

use super::*;
use crate::source::SourceSpec;

/// The outputs of each run: two bundles and the tables.
const NAMES: [&str; 3] = ["m", "m_raw", "m_tbl"];
/// More steps than any run takes.
const ENOUGH: u64 = 1 << 40;

/// A checkpoint.
struct Model {
    _dir: TempDir,
    source: LocalSource,
}

impl Model {
    fn in_folder(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        SyntheticCheckpoint::new(Shape::small()).write(&dir.path().join(name)).unwrap();
        let source = LocalSource::open(&dir.path().join(name)).unwrap();
        Model { _dir: dir, source }
    }

    fn of_a_commit() -> Self {
        Self::in_folder(&format!("models--google--tiny/snapshots/{}", "a".repeat(40)))
    }

    /// A new folder for outputs.
    fn place(&self) -> Place<'_> {
        // In memory where that is possible: every trial syncs many small files.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        Place { dir, source: &self.source }
    }
}

/// A folder to put outputs into.
struct Place<'m> {
    dir: TempDir,
    source: &'m LocalSource,
}

impl Place<'_> {
    fn out(&self) -> &Path {
        self.dir.path()
    }

    fn open(&self, more: &[&str]) -> anyhow::Result<Stage<'static>> {
        let run = RunOptions {
            source: SourceSpec::Local("source".into()),
            output: self.out().to_owned(),
            name: ModelName::given("name").unwrap(),
            resume: more.contains(&"--resume"),
            force: more.contains(&"--force"),
            threads: 1,
            typed: BTreeMap::new(),
        };
        let bundle = run.outputs([]).folder(ManifestKind::Bundle);
        let names = NAMES.map(|name| (name.to_owned(), bundle.clone()));
        Stage::open(&run, NAMES[0], &names, self.source, &Silent)
    }

    /// Makes the outputs if they are not finished yet, and publishes them on a disk that fails after this many steps, each byte of the
    /// journal being one. Returns the steps that were taken.
    fn run(&self, more: &[&str], steps: u64) -> anyhow::Result<u64> {
        let mut stage = self.open(more)?;
        if !stage.is_finished() {
            fill(&stage);
        }
        let disk = Disk::failing_after(steps);
        stage.journal = std::mem::replace(&mut stage.journal, Journal::off()).on(disk.clone());
        stage.commit()?;
        Ok(steps - disk.room().unwrap())
    }

    /// A run that finished the outputs and was killed after it had renamed this many of them.
    fn killed_after(&self, more: &[&str], published: usize) {
        let mut stage = self.open(more).unwrap();
        if !stage.is_finished() {
            fill(&stage);
            stage.finish().unwrap();
        }
        for _ in 0..published {
            if let Some(mut folder) = stage.folders.pop() {
                folder.publish().unwrap();
            }
        }
        stage.keep();
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.out()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// All outputs are there and complete, and nothing else.
    fn check(&self, what: &str) {
        assert_eq!(self.names(), NAMES, "{what}");
        for name in NAMES {
            let content = fs::read_to_string(self.out().join(name).join("inner/content")).unwrap();
            assert_eq!(content, name, "{what}");
        }
    }

    /// The hidden folder of an output, or of the journal.
    fn hidden(&self, name: &str) -> Option<PathBuf> {
        let prefix = format!(".{name}.partial-");
        let name = self.names().into_iter().find(|name| name.starts_with(&prefix))?;
        Some(self.out().join(name))
    }

    fn journal(&self) -> PathBuf {
        self.hidden("m.work").unwrap().join("journal")
    }

    fn refusal(&self, more: &[&str]) -> String {
        let before = tree(self.out());
        let refusal = self.run(more, ENOUGH).unwrap_err().to_string();
        assert!(tree(self.out()) == before, "{refusal}: nothing is lost or published");
        refusal
    }
}

fn fill(stage: &Stage<'_>) {
    for (folder, name) in stage.folders.iter().zip(NAMES) {
        fs::create_dir_all(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("inner/content"), name).unwrap();
        manifest::seal(folder.path(), ManifestKind::Bundle, name, Provenance::default(), &[]).unwrap();
    }
}

/// Everything in a folder; nothing for folders.
fn tree(folder: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let (mut found, mut left) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            found.insert(path.clone(), path.is_file().then(|| fs::read(&path).unwrap()));
            left.extend(path.is_dir().then_some(path));
        }
    }
    found
}

/// Every step but those in the middle of the journal's line, of which there are two.
fn steps(all: u64) -> Vec<u64> {
    (0..5).chain([all / 3, all / 2]).chain(all - 6..all).collect()
}

#[test]
fn publication_is_resumed_after_any_two_cuts() {
    let model = Model::of_a_commit();
    let all = model.place().run(&[], ENOUGH).unwrap();
    for is_replacing in [false, true] {
        let (run, resume): (&[&str], &[&str]) =
            if is_replacing { (&["--force"], &["--force", "--resume"]) } else { (&[], &["--resume"]) };
        for first in steps(all) {
            for second in (0..5).chain([all / 2, all - 3, all - 1]) {
                let place = model.place();
                if is_replacing {
                    place.run(&[], ENOUGH).unwrap();
                    fs::write(place.out().join("m/inner/content"), "old").unwrap();
                }
                place.run(run, first).unwrap_err();
                let is_done = place.run(resume, second).is_ok();
                if !is_done {
                    place.run(resume, ENOUGH).unwrap();
                }
                place.check(&format!("cut at {first}, then at {second}"));
            }
        }
    }
}

#[test]
fn publication_is_resumed_after_kills_between_two_renames() {
    let model = Model::of_a_commit();
    for is_replacing in [false, true] {
        for first in 0..=NAMES.len() {
            for second in 0..=NAMES.len() - first {
                let place = model.place();
                if is_replacing {
                    place.run(&[], ENOUGH).unwrap();
                    fs::remove_dir_all(place.out().join("m_raw")).unwrap();
                }
                place.killed_after(&["--force"], first);
                place.killed_after(&["--force", "--resume"], second);
                place.run(&["--force", "--resume"], ENOUGH).unwrap();
                place.check(&format!("killed after {first} names, then after {second}"));
            }
        }
    }
}

/// A run that has finished its outputs, one of which has its final name.
fn partly_published(model: &Model) -> Place<'_> {
    let place = model.place();
    place.killed_after(&[], 1);
    assert!(place.out().join("m_tbl").exists() && place.hidden("m").is_some());
    place
}

#[test]
fn what_was_replaced_is_removed_if_the_run_was_cut_off_before_that() {
    let model = Model::of_a_commit();
    let place = partly_published(&model);
    // Only the names were exchanged: the old output, half removed, has the hidden name.
    let hidden = place.hidden("m_raw").unwrap();
    fs::rename(&hidden, place.out().join("m_raw")).unwrap();
    fs::create_dir(&hidden).unwrap();
    fs::write(hidden.join("content"), "old").unwrap();
    place.run(&["--resume"], ENOUGH).unwrap();
    place.check("the old one is gone");
}

#[test]
fn outputs_that_were_finished_and_changed_are_not_published() {
    let model = Model::of_a_commit();
    for name in ["m", "m_tbl"] {
        for change in ["append", "change", "add", "remove"] {
            let place = partly_published(&model);
            let folder = place.hidden(name).unwrap_or(place.out().join(name));
            let content = folder.join("inner/content");
            match change {
                "append" => fs::write(&content, format!("{name}+")).unwrap(),
                "change" => fs::write(&content, name.replace('m', "n")).unwrap(),
                "add" => fs::write(folder.join("more"), "more").unwrap(),
                _ => fs::remove_file(&content).unwrap(),
            }
            let refusal = place.refusal(&["--resume", "--force"]);
            // A published output that holds something else belongs to somebody else.
            let is_theirs = refusal.contains("which is not in its manifest.json");
            assert!(refusal.contains("damaged or missing") || is_theirs, "{name}, {change}: {refusal}");
        }
    }
}

#[test]
fn a_target_of_somebody_else_is_not_taken_for_an_output() {
    let model = Model::of_a_commit();
    let place = partly_published(&model);
    fs::create_dir(place.out().join("m")).unwrap();
    let refusal = place.refusal(&["--resume"]);
    assert!(refusal.contains("--force"), "{refusal}");
    fs::remove_dir(place.out().join("m")).unwrap();
    place.run(&["--resume"], ENOUGH).unwrap();
    place.check("it is out of the way");
}

#[test]
fn a_run_that_cannot_begin_removes_nothing() {
    let model = Model::of_a_commit();
    let place = partly_published(&model);
    // Neither --resume nor --force, and one target is there.
    let refusal = place.refusal(&[]);
    assert!(refusal.contains("pass --force"), "{refusal}");
    place.run(&["--resume"], ENOUGH).unwrap();
    place.check("resumed after all");
}

#[test]
fn without_a_journal_a_failure_publishes_and_leaves_nothing() {
    let model = Model::in_folder("model");
    // Three syncs, then the renames.
    for steps in 0..=3 {
        let place = model.place();
        place.run(&[], steps).unwrap_err();
        assert!(place.names().is_empty(), "{steps}: {:?}", place.names());
    }
}

/// A run that ended in the middle of its work.
fn unfinished(model: &Model) -> Place<'_> {
    let place = model.place();
    let stage = place.open(&["--resume"]).unwrap();
    fill(&stage);
    drop(stage.end(anyhow::anyhow!("cut off")));
    place
}

#[test]
fn a_journal_whose_folders_are_missing_publishes_nothing() {
    let model = Model::of_a_commit();
    let place = unfinished(&model);
    let header = Journal::header(&place.hidden("m.work").unwrap()).unwrap().unwrap();
    let honest = header.folders.clone();
    let [m, raw, tbl] = &honest[..] else { panic!("{honest:?}") };
    let outside = ["../x", "/tmp", ".", "..", "", "m", ".m.partial-1-0", "a/../b", "\u{0}"];
    let mut lies: Vec<Vec<String>> = vec![
        vec![],
        vec![m.clone()],
        vec![m.clone(), raw.clone()],
        vec![m.clone(), raw.clone(), tbl.clone(), tbl.clone()],
        vec![m.clone(), m.clone(), tbl.clone()],
        vec![tbl.clone(), raw.clone(), m.clone()],
        vec![m.clone(); 100_000],
    ];
    lies.extend(outside.map(|name| vec![m.clone(), name.to_owned(), tbl.clone()]));
    for folders in lies {
        let what = format!("{:?}", &folders[..folders.len().min(4)]);
        fs::remove_file(place.journal()).unwrap();
        drop(Journal::begin(place.journal().parent().unwrap(), &JournalHeader { folders, ..header.clone() }));
        let refusal = place.refusal(&["--resume"]);
        assert!(refusal.contains("damaged or missing"), "{what}: {refusal}");
    }
    fs::remove_file(place.journal()).unwrap();
    drop(Journal::begin(place.journal().parent().unwrap(), &header));
    place.run(&["--resume"], ENOUGH).unwrap();
    place.check("the true one");
}

/// Changes some bytes, cuts, repeats or removes a part.
fn mutate(bytes: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut below = |limit: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % limit.max(1)
    };
    let mut out = bytes.to_vec();
    let (start, kind) = (below(out.len()), below(5));
    let end = start + below(40.min(out.len() - start));
    match kind {
        0 => out[start] ^= 1 << below(8),
        1 => out.truncate(start),
        2 => drop(out.drain(start..end)),
        3 => out.splice(start..start, bytes[start..end].to_vec()).for_each(drop),
        _ => out[start..end].iter_mut().for_each(|byte| *byte = below(256) as u8),
    }
    out
}

/// Everything but the journal, of which a last line without its end is removed.
fn outputs(place: &Place<'_>) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut outputs = tree(place.out());
    outputs.remove(&place.journal());
    outputs
}

#[test]
fn a_damaged_journal_is_refused_or_leads_to_the_same_outputs() {
    let model = Model::of_a_commit();
    let (mut refused, mut resumed) = (0, 0);
    let mut place = partly_published(&model);
    let mut journal = fs::read(place.journal()).unwrap();
    for seed in 0..300 {
        fs::write(place.journal(), mutate(&journal, seed)).unwrap();
        let before = outputs(&place);
        match place.run(&["--resume"], ENOUGH) {
            Ok(_) => {
                resumed += 1;
                place.check(&format!("seed {seed}"));
                place = partly_published(&model);
                journal = fs::read(place.journal()).unwrap();
            }
            Err(error) => {
                refused += 1;
                let error = error.to_string();
                assert!(outputs(&place) == before, "seed {seed}: {error}");
                let is_clear = error.contains("damaged or missing") || error.contains("exists: pass --force");
                assert!(is_clear, "seed {seed}: {error}");
            }
        }
    }
    assert!(refused > 200 && resumed > 3, "{refused} refused, {resumed} resumed");
}
