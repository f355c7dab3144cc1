//! Runs that are cut off at a byte, in reading or in writing, and resumed, in this process: the outputs equal those of a run that was
//! never cut off, and no finished tensor is read again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use aimodel::package::PackageMetadata;
use checkpoint::config::CacheForm;
use checkpoint::source::{Fingerprint, Identity, LocalSource, Source, SourceError, TensorEntry};
use converter::decoder::{Functions, Variant};
use converter::embedding::TableForms;
use converter::journal::{Journal, JournalHeader};
use converter::recipe::Treatment;
use converter::{ConvertError, Model, Outputs, Plan, Request};
use fixtures::shape::LayerType;
use fixtures::{Shape, SyntheticCheckpoint};
use output::Disk;
use progress::Progress;
use quantizer::Int4Rule;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// More bytes than any run writes.
const ENOUGH: u64 = 1 << 40;

/// Names of a run's folders: the packages, the tables, and the one with the journal.
const FOLDERS: [&str; 4] = ["one", "two", "tables", "work"];

/// Where a run is cut off.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// After this many bytes of the run's writes.
    Write(u64),
    /// After this many bytes of its reads.
    Read(u64),
    Never,
}

/// A checkpoint whose reads fail after a byte, and which records what is read.
#[derive(Debug)]
struct FailingSource<'s> {
    inner: &'s LocalSource,
    left: AtomicU64,
    read: Mutex<BTreeSet<String>>,
}

impl Source for FailingSource<'_> {
    fn identity(&self) -> &Identity {
        self.inner.identity()
    }
    fn tensors(&self) -> &[TensorEntry] {
        self.inner.tensors()
    }
    fn read_at(&self, tensor: &TensorEntry, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let bytes = out.len() as u64;
        let take = |left: u64| left.checked_sub(bytes);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return Err(SourceError::NoWeights { dir: PathBuf::from("the source of this test has failed") });
        }
        self.read.lock().unwrap().insert(tensor.name.clone());
        self.inner.read_at(tensor, offset, out)
    }
    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.inner.read_file(name)
    }
    fn file_names(&self) -> &[String] {
        self.inner.file_names()
    }
    fn verify_unchanged(&self) -> Result<(), SourceError> {
        self.inner.verify_unchanged()
    }
    fn fingerprint(&self) -> Result<Fingerprint, SourceError> {
        self.inner.fingerprint()
    }
}

/// Records where in the run's writes the journal got longer.
struct Places<'p> {
    disk: &'p Disk,
    journal: PathBuf,
    /// Bytes of the journal so far; at each growth, the bytes that the disk still had room for.
    seen: Mutex<(u64, Vec<u64>)>,
}

impl Places<'_> {
    fn look(&self) {
        let length = fs::metadata(&self.journal).map_or(0, |metadata| metadata.len());
        let (before, places) = &mut *self.seen.lock().unwrap();
        if length > *before {
            places.extend(self.disk.room());
            *before = length;
        }
    }
}

impl Progress for Places<'_> {
    fn begin(&self, _item: &str) {
        self.look();
    }
    fn advance(&self, _bytes: u64) {
        self.look();
    }
    fn resume(&self, _bytes: u64) {
        self.look();
    }
    fn cancelled(&self) -> bool {
        false
    }
}

/// A conversion of a small checkpoint that can run in any folder.
struct Job {
    dir: TempDir,
    source: LocalSource,
    plan: Plan,
    header: JournalHeader,
    expected: BTreeMap<PathBuf, Vec<u8>>,
    /// Places in the writes of a run that is not cut off at which the journal has got longer, and the end.
    places: Vec<u64>,
}

/// What a run did.
struct Ran {
    result: Result<(), ConvertError>,
    places: Vec<u64>,
    read: BTreeSet<String>,
}

impl Job {
    fn new(variants: Vec<Variant>) -> Self {
        let dir = temporary();
        let model = folder(&dir);
        let layer_types = vec![LayerType::Sliding, LayerType::Full];
        let shape = Shape { vocabulary: 96, kv_shared: 0, layer_types, ..Shape::small() };
        SyntheticCheckpoint { towers: false, ..SyntheticCheckpoint::new(shape) }.write(&model).unwrap();
        let source = LocalSource::open(&model).unwrap();
        let request = Request {
            tables: !variants.contains(&Variant::Stock),
            graphs: variants.into_iter().map(|variant| (variant, Functions::MAIN)).collect(),
            caches: CacheForm::Padded,
            projections: Treatment::Int4(Int4Rule::Lattice),
            overrides: Vec::new(),
            head: None,
            table_forms: TableForms::PUBLISHED,
        };
        let plan = Model::open(&source).unwrap().plan(&request).unwrap();
        let header = JournalHeader::new("tool 1".to_owned(), &source, BTreeMap::new()).unwrap().unwrap();
        let (expected, places) = (BTreeMap::new(), Vec::new());
        let mut job = Job { dir, source, plan, header, expected, places };
        let out = temporary();
        let ran = job.run(out.path(), Cut::Write(ENOUGH));
        ran.result.unwrap();
        (job.expected, job.places) = (outputs(out.path()), ran.places);
        job
    }

    fn folder(&self) -> PathBuf {
        folder(&self.dir)
    }

    /// Runs, or resumes if there is a journal.
    fn run(&self, out: &Path, cut: Cut) -> Ran {
        let [one, two, tables, work] = FOLDERS.map(|name| out.join(name));
        [&tables, &work].iter().for_each(|folder| fs::create_dir_all(folder).unwrap());
        let (disk, left) = match cut {
            Cut::Write(bytes) => (Disk::failing_after(bytes), u64::MAX),
            Cut::Read(bytes) => (Disk::failing_after(ENOUGH), bytes),
            Cut::Never => (Disk::default(), u64::MAX),
        };
        let source = FailingSource { inner: &self.source, left: left.into(), read: Mutex::default() };
        let room = disk.room().unwrap_or_default();
        let seen = Mutex::default();
        let places = Places { disk: &disk, journal: work.join("journal"), seen };
        let result = self.write(&source, &[one, two], &tables, &work, &disk, &places);
        let places = places.seen.into_inner().unwrap().1.into_iter().map(|left| room - left);
        let places = places.chain(disk.room().map(|left| room - left)).collect();
        Ran { result, places, read: source.read.into_inner().unwrap() }
    }

    fn write(
        &self,
        source: &FailingSource<'_>,
        packages: &[PathBuf],
        tables: &Path,
        work: &Path,
        disk: &Disk,
        places: &Places<'_>,
    ) -> Result<(), ConvertError> {
        let model = Model::open(source)?;
        let metadata = PackageMetadata::new("tool 1", "19700101T000000Z");
        let journal = match Journal::header(work)? {
            Some(_) => Journal::resume(work, &self.header)?,
            None => Journal::begin(work, &self.header)?,
        };
        let outputs = Outputs { packages, tables: Some(tables), scratch: work, metadata: &metadata };
        model.write(&self.plan, &outputs, 1, places, &mut journal.on(disk.clone())).map(drop)
    }

    /// Resumes what a run has left, in this folder, until it ends.
    fn end(&self, out: &Path, what: &dyn Fn() -> String) {
        let finished = finished(out);
        let ran = self.run(out, Cut::Never);
        ran.result.unwrap_or_else(|error| panic!("{}: {error}", what()));
        assert!(outputs(out) == self.expected, "{}", what());
        let again: Vec<&String> = ran.read.intersection(&finished).collect();
        assert!(again.is_empty(), "{}: read again: {again:?}", what());
    }

    /// Runs with every pair of cuts at these places. A state that several pairs leave is resumed to its end once.
    fn sweep(&self, first: &[Cut], then: &dyn Fn(&[u64]) -> Vec<Cut>) {
        let mut states = HashSet::new();
        let (mut pairs, mut grown) = (0, 0);
        for first in first {
            let once = temporary();
            if self.run(once.path(), *first).result.is_ok() {
                continue;
            }
            let end = copy(once.path());
            self.end(end.path(), &|| format!("cut at {first:?}"));
            let whole = copy(once.path());
            let ran = self.run(whole.path(), Cut::Write(ENOUGH));
            ran.result.unwrap();
            let before = finished(once.path());
            for then in then(&ran.places) {
                let twice = copy(once.path());
                let what = || format!("cut at {first:?}, then at {then:?}");
                pairs += 1;
                if self.run(twice.path(), then).result.is_ok() {
                    assert!(outputs(twice.path()) == self.expected, "{}", what());
                    continue;
                }
                let after = finished(twice.path());
                assert!(after.is_superset(&before), "{}: {before:?}, then {after:?}", what());
                grown += usize::from(after.len() > before.len());
                if states.insert(digest(twice.path())) {
                    self.end(twice.path(), &what);
                }
            }
        }
        assert!(grown * 4 > pairs, "{grown} of {pairs}: too few second runs finished anything");
    }
}

/// A folder in memory where there is one: thousands of small files are written.
fn temporary() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The checkpoint's folder, whose name says which commit it is.
fn folder(dir: &TempDir) -> PathBuf {
    dir.path().join("models--google--tiny/snapshots").join("a".repeat(40))
}

/// Files of the outputs.
fn outputs(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = files(out);
    files.retain(|path, _| !path.starts_with("work"));
    files
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut left) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                files.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn copy(folder: &Path) -> TempDir {
    let to = temporary();
    for (path, bytes) in files(folder) {
        let path = to.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    to
}

fn digest(folder: &Path) -> [u8; 32] {
    let mut digest = Sha256::new();
    for (path, bytes) in files(folder) {
        digest.update(path.to_str().unwrap());
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    }
    digest.finalize().into()
}

/// The values in the whole lines of a journal.
fn lines(work: &Path) -> Vec<Value> {
    let text = fs::read_to_string(work.join("journal")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    whole.map(|line| serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()).collect()
}

/// Names of the tensors that a run has finished, by its journal.
fn finished(out: &Path) -> BTreeSet<String> {
    let name = |line: &Value| {
        let (_, entry) = line.as_object()?.iter().next()?;
        entry["name"].as_str().map(str::to_owned)
    };
    lines(&out.join("work")).iter().skip(1).filter_map(name).collect()
}

/// This many numbers below a limit, the same in every run.
fn sample(seed: u64, count: usize, limit: u64) -> impl Iterator<Item = u64> {
    (0..count as u64).map(move |at| {
        // SplitMix64.
        let mut z = seed.wrapping_add((at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    })
}

/// Every place, a byte before or after it, and some bytes anywhere.
fn around(job: &Job, places: &[u64], more: usize) -> Vec<Cut> {
    let beside =
        |at: usize, place: u64| if at.is_multiple_of(2) { place.saturating_sub(1) } else { place + 1 };
    let near = places.iter().enumerate().flat_map(|(at, place)| [*place, beside(at, *place)]);
    near.map(Cut::Write).chain(between(job, places, more)).collect()
}

/// Bytes anywhere, of writes and of reads.
fn between(job: &Job, places: &[u64], count: usize) -> impl Iterator<Item = Cut> {
    let end = places.last().copied().unwrap_or(1);
    let reads = sample(end + 1, count, job.plan.input_bytes());
    sample(end, count, end).map(Cut::Write).chain(reads.map(Cut::Read))
}

/// Cuts at every place where the journal gets longer, and some others.
fn at_places(job: &Job, places: &[u64]) -> Vec<Cut> {
    places.iter().copied().map(Cut::Write).chain(between(job, places, 1)).collect()
}

#[test]
fn two_packages_and_tables_after_any_two_cuts() {
    let job = Job::new(vec![Variant::Provider, Variant::Table]);
    job.sweep(&around(&job, &job.places, 4), &|places| at_places(&job, places));
}

#[test]
fn the_stock_graph_after_any_two_cuts() {
    let job = Job::new(vec![Variant::Stock]);
    job.sweep(&around(&job, &job.places, 4), &|places| at_places(&job, places));
}

#[test]
fn tables_after_any_two_cuts() {
    let job = Job::new(Vec::new());
    job.sweep(&around(&job, &job.places, 8), &|places| around(&job, places, 4));
}

/// Writes a journal of these values, with digests that are right.
fn forge(work: &Path, values: &[Value]) {
    let (mut digest, mut text) = (Sha256::new(), String::new());
    for value in values {
        let value = value.to_string();
        digest.update(format!("{value}\n"));
        text.push_str(&format!("{} {value}\n", output::Digest::from(digest.clone())));
    }
    fs::write(work.join("journal"), text).unwrap();
}

/// One that ended after a place of the journal.
fn cut_off(job: &Job, place: usize) -> TempDir {
    let out = temporary();
    job.run(out.path(), Cut::Write(job.places[place] + 1)).result.unwrap_err();
    out
}

/// Resumes a run that must be refused.
fn refuse(job: &Job, out: &Path, what: &str) {
    let error = job.run(out, Cut::Never).result.expect_err(what).to_string();
    let is_clear = ["is damaged or missing", "not as the interrupted run left it"];
    assert!(is_clear.iter().any(|words| error.contains(words)), "{what}: {error}");
}

#[test]
fn a_journal_with_impossible_entries_is_refused() {
    let (both, stock) = (Job::new(vec![Variant::Provider, Variant::Table]), Job::new(vec![Variant::Stock]));
    let file = json!({"digest": "00".repeat(32), "bytes": u64::MAX});
    let spool = json!({"blob": 1_000_000_000, "file": file, "statistics": null});
    let lies: [(&str, Value); 21] = [
        ("/tensor/packages", json!([])),
        ("/tensor/packages", json!([file])),
        ("/tensor/packages", json!([file, file])),
        ("/tensor/packages", json!([file, file, file])),
        ("/tensor/packages/0/bytes", json!(0)),
        ("/tensor/packages/0/bytes", json!(-1)),
        ("/tensor/next_blob", json!(u64::MAX)),
        ("/tensor/next_blob", json!(1_000)),
        ("/tensor/next_blob", json!(0)),
        ("/tensor/statistics", json!([])),
        ("/tensor/spools", json!([])),
        ("/tensor/spools", json!([spool])),
        ("/tensor/spools/0/file", file.clone()),
        ("/tensor/spools/0/blob", json!(0)),
        ("/tensor/tables", json!({"../x": file})),
        ("/tensor/tables", json!({"": file})),
        ("/tensor/tables/embed_tokens.i8", file.clone()),
        ("/packages/packages", json!([])),
        ("/packages/packages/0", file.clone()),
        ("/packages/statistics", json!([])),
        ("/stock/file/bytes", json!(1)),
    ];
    let mut last_kinds = BTreeSet::new();
    for job in [&both, &stock] {
        for place in [1, job.places.len() / 2, job.places.len() - 2] {
            let out = cut_off(job, place);
            let work = out.path().join("work");
            let honest = lines(&work);
            for (pointer, lie) in &lies {
                // The last line that has such an entry: earlier ones are overridden.
                let Some(at) = honest.iter().rposition(|line| line.pointer(pointer).is_some()) else {
                    continue;
                };
                if at + 1 < honest.len() && pointer.starts_with("/tensor") {
                    continue;
                }
                let mut values = honest.clone();
                let known = values[at].pointer_mut(pointer).unwrap();
                if known == lie {
                    continue;
                }
                *known = lie.clone();
                forge(&work, &values);
                refuse(job, out.path(), &format!("{pointer} is {lie} at {place}"));
                last_kinds.insert(*pointer);
            }
            forge(&work, &honest);
            job.end(out.path(), &|| format!("the true journal, at {place}"));
        }
    }
    assert!(last_kinds.len() >= 12, "{last_kinds:?}");
}

#[test]
fn files_that_changed_in_the_meantime_are_refused() {
    let (both, stock) = (Job::new(vec![Variant::Provider, Variant::Table]), Job::new(vec![Variant::Stock]));
    let mut changed = BTreeSet::new();
    for job in [&both, &stock] {
        for place in [job.places.len() / 2, job.places.len() - 2] {
            let out = cut_off(job, place);
            let told = lines(&out.path().join("work"));
            let has_packages = told.iter().any(|line| line.get("packages").is_some());
            let is_last = |at: usize| at + 1 == told.len() || told[at + 1].get("tensor").is_none();
            let told = told.iter().enumerate().filter(|(at, _)| is_last(*at));
            let journal: String = told.map(|(_, line)| line.to_string()).collect();
            for (path, bytes) in files(out.path()) {
                let held = output::Digest::of_bytes(&bytes).to_string();
                let is_spool = path.to_str().unwrap().contains("blob-");
                let is_whole = journal.contains(&held) && !(is_spool && has_packages);
                let is_program = path.ends_with("main.mlirb");
                if !is_whole && !is_program {
                    continue;
                }
                let mut longer = bytes.clone();
                longer.push(0);
                let mut other = bytes.clone();
                other[0] ^= 1;
                let mut changes = vec![other, Vec::new()];
                changes.extend(is_whole.then_some(longer));
                for change in changes {
                    fs::write(out.path().join(&path), change).unwrap();
                    refuse(job, out.path(), &format!("{} at {place}", path.display()));
                }
                fs::write(out.path().join(&path), &bytes).unwrap();
                changed.insert(path);
            }
            job.end(out.path(), &|| format!("as it was, at {place}"));
        }
    }
    assert!(changed.len() >= 5, "{changed:?}");
}

/// Replaces a checkpoint's weights with others of the same size as soon as the run has started.
struct Replacing<'r> {
    from: &'r Path,
    to: &'r Path,
}

impl Progress for Replacing<'_> {
    fn begin(&self, _item: &str) {
        // Only the first time.
        let _ = fs::rename(self.from, self.to);
    }
}

#[test]
fn a_checkpoint_that_is_replaced_in_mid_run_is_an_error() {
    let job = Job::new(vec![Variant::Provider]);
    let out = temporary();
    let weights = job.folder().join("model.safetensors");
    let other = out.path().join("other.safetensors");
    fs::copy(&weights, &other).unwrap();
    let [package, tables, work] = ["one", "tables", "work"].map(|name| out.path().join(name));
    [&tables, &work].iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let metadata = PackageMetadata::new("tool 1", "19700101T000000Z");
    let places = Outputs { packages: &[package], tables: Some(&tables), scratch: &work, metadata: &metadata };
    let replacing = Replacing { from: &other, to: &weights };
    let model = Model::open(&job.source).unwrap();
    let error = model.write(&job.plan, &places, 1, &replacing, &mut Journal::off()).unwrap_err();
    assert!(matches!(error, ConvertError::Source(SourceError::Changed { .. })), "{error}");
}
