//! Windows fed together, the file of logits, and the comparison with bundles.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crate::support::{Counting, checkpoint, package, prefill_stepper, stepper};
use checkpoint::source::LocalSource;
use fixtures::data::{self, PrefillReference};
use oracle::eval::bundle::{Found, MeasureError, measure};
use oracle::eval::logits::{LogitsFile, LogitsWriter, Subject};
use oracle::eval::reference::{ComputeError, compute};
use oracle::eval::report::{of_bundle, of_reference};
use oracle::eval::{DEFAULT_TEXT, WindowShape, Windows};
use oracle::feeding::Feeding;
use oracle::file::{self, Oracle, Prompt, make_cases};
use oracle::gate;
use oracle::reference::{POSITIONS_AT_ONCE, Reference, ReferenceError};
use oracle::score::kl_divergence;
use oracle::stepper::Stepper;
use oracle::text::Text;
use progress::{Progress, Silent};
use tempfile::TempDir;

/// The first tokens of the default text, in windows.
fn windows(folder: &Path, positions: usize, window: usize, stride: usize) -> Windows {
    let text = Text::of_checkpoint(&LocalSource::open(folder).unwrap()).unwrap();
    let mut tokens = text.encode(DEFAULT_TEXT).unwrap();
    tokens.truncate(positions + 1);
    Windows::new(tokens, text.begin(), WindowShape { window, stride }).unwrap()
}

fn subject(folder: &Path, windows: Windows) -> Subject {
    let source = LocalSource::open(folder).unwrap();
    let vocab = Reference::open(&source).unwrap().config().vocab;
    let tokenizer = Text::of_checkpoint(&source).unwrap().digest();
    Subject { checkpoint: file::identity(&source).unwrap(), tokenizer, vocab, windows }
}

fn open(path: &Path, subject: &Subject) -> LogitsWriter<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
    LogitsWriter::open(file, subject, File::set_len).unwrap()
}

/// Logits of the tiny checkpoint, in a file.
fn logits(folder: &TempDir, windows: Windows) -> (PathBuf, Subject) {
    let (path, subject) = (folder.path().join("logits"), subject(&checkpoint(), windows));
    let source = LocalSource::open(&checkpoint()).unwrap();
    let reference = Reference::open(&source).unwrap();
    compute(&reference, &subject.windows, POSITIONS_AT_ONCE, &Silent, &mut open(&path, &subject)).unwrap();
    (path, subject)
}

fn results(stepper: Stepper, logits: &LogitsFile) -> Vec<Found> {
    let mut results = Vec::new();
    measure(stepper, logits, 0, &Silent, &mut |first, found| {
        assert_eq!(first, results.len());
        results.extend_from_slice(found);
        Ok(())
    })
    .unwrap();
    results
}

/// Logits of each position of each window, one window after the other.
fn one_by_one(folder: &Path, windows: &Windows) -> Vec<Vec<f32>> {
    let source = LocalSource::open(folder).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let mut rows = Vec::new();
    for window in windows.iter() {
        reference.reset();
        let hidden = reference.feed(&window.tokens, &mut |_, _| {}).unwrap();
        reference.logits(&hidden, &Silent, &mut |_, row| rows.push(row.to_vec())).unwrap();
    }
    rows
}

/// E4B's structure, that of 12B, and one whose layers hold the keys of many windows: the bits of a position do not depend on what is
/// fed together with it.
#[test]
fn windows_fed_together_have_the_logits_that_each_has_alone() {
    for folder in [checkpoint(), data::tiny_dense_checkpoint(), data::probe_checkpoint()] {
        let source = LocalSource::open(&folder).unwrap();
        let reference = Reference::open(&source).unwrap();
        let tokens: Vec<u32> = (0..333).map(|at| 1 + (at * at * 37 + at * 11) % 90).collect();
        let windows = Windows::new(tokens, Some(2), WindowShape { window: 40, stride: 40 }).unwrap();
        let cut: Vec<Vec<u32>> = windows.iter().map(|window| window.tokens).collect();
        let fed: Vec<&[u32]> = cut.iter().map(Vec::as_slice).collect();
        let counted = Counting::default();
        let hidden = reference.feed_windows(&fed, &counted).unwrap();
        let layers = reference.config().layers.len() as u64;
        assert_eq!(counted.done(), layers * hidden.len() as u64);
        let alone = one_by_one(&folder, &windows);
        assert_eq!(alone.len(), hidden.len());
        let together = reference.logits_of(&hidden, 0..hidden.len(), &Silent).unwrap();
        for (position, (alone, together)) in alone.iter().zip(together.chunks(alone[0].len())).enumerate() {
            let bits = |row: &[f32]| row.iter().map(|logit| logit.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(alone), bits(together), "{}: position {position}", folder.display());
        }
    }
}

#[test]
fn the_reference_stops_where_it_is_told_to() {
    let source = LocalSource::open(&checkpoint()).unwrap();
    let reference = Reference::open(&source).unwrap();
    let stopped = reference.feed_windows(&[&[2, 5, 6], &[2, 7, 8]], &Counting::stopping_after(3 * 6));
    assert!(matches!(stopped, Err(ReferenceError::Stopped)));
    let outside = reference.feed_windows(&[&[2, 1 << 20]], &Silent);
    assert!(matches!(outside, Err(ReferenceError::Token { .. })));
}

/// What is stored gives the same KL divergence as f32 logits within 1e-6 nats; logits as f16 relative to the largest would not.
#[test]
fn stored_logits_lose_less_than_a_millionth_of_a_nat() {
    let folder = tempfile::tempdir().unwrap();
    let windows = windows(&checkpoint(), 256, 64, 64);
    let (path, subject) = logits(&folder, windows.clone());
    let file = LogitsFile::open(&path).unwrap();
    assert_eq!(file.subject(), &subject);
    let expected = one_by_one(&checkpoint(), &windows);
    let halves = |row: &[f32]| -> Vec<f32> {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter().map(|logit| half::f16::from_f32(logit - largest).to_f32()).collect()
    };
    for name in ["provider.int8-symmetric", "provider.int4-symmetric"] {
        let mut bundle = stepper(&package(name));
        let (mut stored, mut as_halves): (f64, f64) = (0.0, 0.0);
        for (number, window) in windows.iter().enumerate() {
            bundle.reset().unwrap();
            for (at, token) in window.tokens.iter().enumerate() {
                let found = bundle.feed(*token).unwrap();
                let position = 64 * number + at;
                let exact = kl_divergence(&expected[position], &found);
                let compared = file.record(position).unwrap().compare(&found, window.targets[at]).unwrap();
                stored = stored.max((compared.kl - exact).abs());
                as_halves =
                    as_halves.max((kl_divergence(&halves(&expected[position]), &found) - exact).abs());
            }
        }
        println!("{name}: stored {stored:.1e}, as f16 {as_halves:.1e}");
        assert!(stored < 5e-7, "{name}: {stored:e}");
        assert!(as_halves > 10.0 * stored, "{name}: f16 would do, {as_halves:e}");
    }
}

/// The same sequence through both: one window is one case.
#[test]
fn figures_are_those_of_the_gate() {
    let folder = tempfile::tempdir().unwrap();
    let (path, subject) = logits(&folder, windows(&checkpoint(), 100, 100, 100));
    let file = LogitsFile::open(&path).unwrap();
    let source = LocalSource::open(&checkpoint()).unwrap();
    let mut reference = Reference::open(&source).unwrap();
    let window = subject.windows.iter().next().unwrap();
    let prompt = Prompt { text: String::new(), ids: window.tokens };
    let cases = make_cases(&reference, &[prompt], 0, &|_| String::new(), &Silent).unwrap();
    let oracle = Oracle { reference: "fp32".to_owned(), checkpoint: None, cases };
    for name in ["provider.f16", "provider.int8-symmetric", "provider.int4-symmetric"] {
        let mut bundle = stepper(&package(name));
        let gate = gate::run(&mut bundle, &oracle, Some(&mut reference), false, &Silent).unwrap();
        let figures = of_bundle(&file, &results(bundle, &file)).unwrap();
        let distances = gate.distances.unwrap();
        assert!((figures.mean_kl - distances.mean_kl).abs() < 1e-6, "{name}");
        assert!((figures.max_kl - distances.max_kl).abs() < 1e-6, "{name}");
        assert_eq!((figures.sure.agreed, figures.sure.of), (gate.agreed, gate.qualified), "{name}");
        let flips: usize = gate.cases.iter().map(|case| case.flips.len() + case.ties_differing).sum();
        assert_eq!(figures.agreement.agreed + flips, 100, "{name}");
        assert_eq!(of_reference(&file).unwrap().sure, gate.qualified);
        assert_eq!(figures.curve.iter().map(|part| part.positions).sum::<usize>(), 100);
    }
}

/// Chunks and lockstep are ways to feed the same tokens.
#[test]
fn chunks_and_lockstep_find_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = logits(&folder, windows(&checkpoint(), 100, 24, 16));
    let file = LogitsFile::open(&path).unwrap();
    let dynamic = || prefill_stepper(PrefillReference::F16);
    let one_by_one = results(dynamic(), &file);
    assert_eq!(one_by_one.len(), 100);
    let mut chunked = dynamic();
    chunked.set_feeding(Feeding::Main(NonZeroUsize::new(7).unwrap())).unwrap();
    assert_eq!(results(chunked, &file), one_by_one);
}

/// Runs that end before their time, each continued by another one.
struct Cuts {
    tokens: usize,
    window: usize,
    /// Positions that are fed together.
    at_once: usize,
    /// Progress after which a run is stopped.
    stopped_after: u64,
    /// Bytes that a killed run leaves, from those of the whole file.
    left: fn(usize) -> usize,
    /// Whether one of the records that it leaves is damaged.
    damaged: bool,
}

impl Cuts {
    fn check(&self) {
        let folder = tempfile::tempdir().unwrap();
        let (path, subject) = logits(&folder, windows(&checkpoint(), self.tokens, self.window, self.window));
        let whole = fs::read(&path).unwrap();
        let source = LocalSource::open(&checkpoint()).unwrap();
        let reference = Reference::open(&source).unwrap();
        let (cut, windows) = (folder.path().join("cut"), &subject.windows);
        let progress = Counting::stopping_after(self.stopped_after);
        let stopped = compute(&reference, windows, self.at_once, &progress, &mut open(&cut, &subject));
        assert!(matches!(stopped, Err(ComputeError::Reference(ReferenceError::Stopped))), "{stopped:?}");
        compute(&reference, windows, self.at_once, &Silent, &mut open(&cut, &subject)).unwrap();
        assert!(fs::read(&cut).unwrap() == whole, "stopped after {}", self.stopped_after);
        let length = (self.left)(whole.len());
        let mut left = whole[..length].to_vec();
        if self.damaged {
            left[length - 9000] ^= 1;
        }
        fs::write(&cut, left).unwrap();
        let mut writer = open(&cut, &subject);
        assert!(writer.written() < windows.positions());
        compute(&reference, windows, self.at_once, &Silent, &mut writer).unwrap();
        assert!(fs::read(&cut).unwrap() == whole, "cut off at {length}");
    }
}

#[test]
fn a_run_that_was_cut_off_continues_with_the_same_bytes() {
    // Within a layer, and within the header.
    Cuts { tokens: 600, window: 512, at_once: 512, stopped_after: 600 * 3, left: |_| 100, damaged: false }
        .check();
}

#[test]
fn a_run_that_was_cut_off_between_groups_continues_with_the_same_bytes() {
    // In the second group of windows that are fed together, and within a record, with another one lost.
    let left = |whole| whole * 3 / 4;
    Cuts { tokens: 500, window: 64, at_once: 6 * 64, stopped_after: 384 * 12 + 100, left, damaged: true }
        .check();
}

#[test]
fn a_bundle_that_was_cut_off_keeps_whole_windows() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _) = logits(&folder, windows(&checkpoint(), 3 * 16 * 8, 8, 8));
    let file = LogitsFile::open(&path).unwrap();
    let whole = results(stepper(&package("provider.f16")), &file);
    let mut kept: Vec<Found> = Vec::new();
    let keep = |kept: &mut Vec<Found>, done: usize, progress: &dyn Progress| {
        measure(stepper(&package("provider.f16")), &file, done, progress, &mut |first, found| {
            kept.truncate(first);
            kept.extend_from_slice(found);
            Ok(())
        })
    };
    let stopped = keep(&mut kept, 0, &Counting::stopping_after(300));
    assert!(matches!(stopped, Err(MeasureError::Stopped)));
    assert_eq!(kept.len(), 2 * 16 * 8);
    keep(&mut kept, 2 * 16 * 8, &Silent).unwrap();
    assert_eq!(kept, whole);
}

/// Every byte of the header and of a record, in turn.
#[test]
fn damaged_files_are_refused_and_never_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (path, subject) = logits(&folder, windows(&checkpoint(), 6, 4, 4));
    let whole = fs::read(&path).unwrap();
    let (record, positions) = (24 + 3 * subject.vocab, subject.windows.positions());
    let begin = whole.len() - record * positions;
    let damaged = folder.path().join("damaged");
    let read = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        let file = LogitsFile::open(&damaged)?;
        (0..positions).try_for_each(|position| file.record(position).map(drop))?;
        file.require(&subject)
    };
    read(&whole).unwrap();
    for at in (0..begin).chain([begin, begin + 5, begin + record - 1, whole.len() - 1]) {
        for change in [0x01, 0x80] {
            let mut bytes = whole.clone();
            bytes[at] ^= change;
            // The names of repository and revision are for people; nothing else may change.
            assert!(read(&bytes).is_err(), "byte {at} of {begin} in the header");
        }
    }
    for length in [0, 1, 15, 16, begin - 1, begin, whole.len() - 1] {
        assert!(read(&whole[..length]).is_err(), "{length} bytes");
    }
    assert!(read(&[whole.as_slice(), &[0]].concat()).is_err(), "one byte more");
    // Claims that would take all memory.
    let json = String::from_utf8(whole[16..begin - 4 * (positions + 1)].to_vec()).unwrap();
    for (field, value) in
        [("\"tokens\":7", "\"tokens\":9999999999999"), ("\"vocab\":512", "\"vocab\":4294967295")]
    {
        assert!(json.contains(field), "{json}");
        let hostile = json.replace(field, value);
        let mut bytes = whole[..12].to_vec();
        bytes.extend((hostile.len() as u32).to_le_bytes());
        bytes.extend(hostile.as_bytes());
        bytes.extend(&whole[begin - 4 * (positions + 1)..]);
        assert!(read(&bytes).unwrap_err().to_string().contains("more than the file has room for"), "{field}");
    }
    let mut long = whole.clone();
    long[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(read(&long).unwrap_err().to_string().contains("more than any"));
}

#[test]
fn a_file_of_something_else_names_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let (path, subject) = logits(&folder, windows(&checkpoint(), 6, 4, 4));
    let file = LogitsFile::open(&path).unwrap();
    let refused = |change: &dyn Fn(&mut Subject)| {
        let mut other = subject.clone();
        change(&mut other);
        file.require(&other).unwrap_err().to_string()
    };
    assert!(refused(&|other| other.checkpoint.fingerprint.clear()).contains("of another checkpoint"));
    assert!(refused(&|other| other.tokenizer = [0; 32].into()).contains("another tokenizer.json"));
    assert!(
        refused(&|other| other.windows = windows(&checkpoint(), 6, 4, 2)).contains("--window 4 --stride 4")
    );
    assert!(refused(&|other| other.windows = windows(&checkpoint(), 5, 4, 4)).contains("another --limit"));
    let mut pipe = File::create(folder.path().join("text")).unwrap();
    pipe.write_all(b"not logits, but long enough").unwrap();
    let refused = LogitsFile::open(&folder.path().join("text")).unwrap_err().to_string();
    assert!(refused.contains("does not begin as a logits file"), "{refused}");
    let dense = stepper_of_another_vocabulary(&file);
    assert!(dense.contains("is the bundle of this checkpoint?"), "{dense}");
}

/// A bundle whose graph has another number of logits.
fn stepper_of_another_vocabulary(file: &LogitsFile) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small");
    let windows = Windows::new(vec![2, 3, 4], None, WindowShape { window: 2, stride: 2 }).unwrap();
    let small = Subject { vocab: 16, windows, ..file.subject().clone() };
    let mut writer = open(&path, &small);
    for _ in 0..small.windows.positions() {
        writer.add(&oracle::eval::logits::Record::new(&[0.0; 16], 3).unwrap()).unwrap();
    }
    let small = LogitsFile::open(&path).unwrap();
    let bundle = stepper(&package("provider.f16"));
    measure(bundle, &small, 0, &Silent, &mut |_, _| Ok(())).unwrap_err().to_string()
}

/// `fixtures` depends on no crate of the workspace, so it has a copy.
#[test]
fn fixtures_qualify_positions_as_the_gate_does() {
    assert_eq!(fixtures::oracle::QUALIFYING_MARGIN, oracle::score::QUALIFYING_MARGIN);
}
