//! Shared by the tests: stored data, tables made from a checkpoint, comparison of logits.
#![allow(unreachable_pub)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use checkpoint::config::DecoderConfig;
use checkpoint::source::{LocalSource, Source};
use fixtures::data::PrefillReference;
use half::bf16;
use interpreter::Session;
use oracle::file::Oracle;
use oracle::stepper::Stepper;
use oracle::tables::Tables;
use progress::Progress;

/// Counts progress, and stops the work after some.
pub struct Counting {
    done: AtomicU64,
    most: u64,
}

impl Default for Counting {
    fn default() -> Self {
        Self::stopping_after(u64::MAX)
    }
}

impl Counting {
    pub fn stopping_after(most: u64) -> Self {
        Counting { done: AtomicU64::new(0), most }
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }
}

impl Progress for Counting {
    fn advance(&self, amount: u64) {
        self.done.fetch_add(amount, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.done() >= self.most
    }
}

pub fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/data")
}

pub fn checkpoint() -> PathBuf {
    data().join("tiny-e4b-qat")
}

pub fn package(name: &str) -> PathBuf {
    data().join("reference").join(format!("{name}.aimodel"))
}

/// A sequence of an oracle file made with `transformers`.
#[derive(serde::Deserialize, Clone, Debug)]
pub struct Case {
    pub prompt: String,
    pub prompt_ids: Vec<u32>,
    pub generated_ids: Vec<u32>,
    pub text: String,
    pub margins: Vec<f32>,
    pub teacher_forced_argmax: Vec<u32>,
    pub teacher_forced_margins: Vec<f32>,
    pub last_logits_head: Vec<f32>,
    pub logit_norms: Vec<f32>,
}

impl Case {
    pub fn ids(&self) -> Vec<u32> {
        [self.prompt_ids.as_slice(), &self.generated_ids].concat()
    }
}

pub fn cases(file: &str) -> Vec<Case> {
    read_cases(&checkpoint().join(file))
}

pub fn read_cases(file: &Path) -> Vec<Case> {
    #[derive(serde::Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    let json = fs::read(file).unwrap();
    serde_json::from_slice::<File>(&json).unwrap().cases
}

/// The first `cases` sequences of the stored oracle, for the gate.
pub fn oracle_of(cases: usize) -> Oracle {
    let mut oracle = Oracle::read(&checkpoint().join("oracle.json")).unwrap();
    oracle.cases.truncate(cases);
    oracle
}

/// Writes the per-layer part of a gather_raw folder: `scale = max|row| / 127`, codes rounded half to even.
pub fn write_tables(checkpoint: &Path, dir: &Path) {
    let source = LocalSource::open(checkpoint).unwrap();
    let config = DecoderConfig::read(&source).unwrap();
    let name = format!("{}embed_tokens_per_layer.weight", config.tensor_prefix());
    let entry = source.tensor(&name).unwrap();
    let mut bytes = vec![0; entry.byte_len() as usize];
    source.read_at(entry, 0, &mut bytes).unwrap();
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in bytes.chunks_exact(2 * config.per_layer.unwrap().total) {
        let row: Vec<f32> =
            row.chunks_exact(2).map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32()).collect();
        let scale = row.iter().fold(1e-12_f32, |largest, value| largest.max(value.abs())) / 127.0;
        scales.extend(scale.to_le_bytes());
        codes.extend(
            row.iter().map(|value| (value / scale).round_ties_even().clamp(-127.0, 127.0) as i8 as u8),
        );
    }
    fs::write(dir.join("embed_per_layer.i8"), codes).unwrap();
    fs::write(dir.join("embed_per_layer.scale.f32"), scales).unwrap();
    let meta = serde_json::json!({
        "V": config.vocab, "D": config.hidden, "PLD": config.per_layer.unwrap().total, "L": config.layers.len(),
        "ld": config.per_layer.unwrap().width, "embed_scale_pl": (config.per_layer.unwrap().width as f64).sqrt(),
    });
    fs::write(dir.join("meta.json"), meta.to_string()).unwrap();
}

/// A stepper for a package, with the tiny checkpoint's tables.
pub fn stepper(package: &Path) -> Stepper {
    let tables = tempfile::tempdir().unwrap();
    write_tables(&checkpoint(), tables.path());
    let tables = Tables::open(tables.path()).unwrap();
    Stepper::new(Session::open(package).unwrap(), Some(tables)).unwrap()
}

/// A stepper for a package of two functions, which contains its tables.
pub fn prefill_stepper(package: PrefillReference) -> Stepper {
    Stepper::new(Session::open(&package.path()).unwrap(), None).unwrap()
}

pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

pub fn arg_max(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap()
}
