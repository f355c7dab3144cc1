//! The interpreter as an engine: decoding, prompts and sequences in lockstep, beside llama.cpp on the same shapes and beside reading
//! the weights once.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use aimodel::package::Package;
use aimodel::view::{Function, Work};
use anyhow::{Context, Result};
use checkpoint::source::LocalSource;
use converter::decoder::{Functions, Prefill, Sequence, Variant};
use fixtures::SyntheticCheckpoint;
use interpreter::Session;
use oracle::feeding::Feeding;
use oracle::lockstep::Lockstep;
use oracle::reference::Reference;
use oracle::stepper::Stepper;
use oracle::tables::Tables;
use progress::Silent;

use crate::Options;
use crate::figure::{Figures, median, seconds};
use crate::llama::{self, Peer};
use crate::synthetic::{shape, write_package, write_tables};

const SECTION: &str = "interpreter, 6 layers of E4B's widths, int4";
/// Tokens of a prompt, and those of a chunk.
const PROMPT: usize = 256;
const CHUNK: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
/// Tokens that are decoded, and sequences in lockstep.
const DECODED: usize = 16;
const SEQUENCES: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");
/// Tokens that every sequence in lockstep gets.
const STEPS: usize = 4;
/// Windows that the reference is fed together.
const WINDOWS: usize = 4;
/// Bytes that each thread copies to measure the memory.
const COPIED: usize = 1 << 28;

/// Measures all of them in rounds of one run each, so that what else the machine does slows all of them alike.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    let folder = options.scratch.join("engine");
    fs::create_dir_all(&folder)?;
    let mut peers = llama::prepare(options, &folder)?;
    let mut engine = Engine::prepare(&folder)?;
    let mut runs = Runs::default();
    for _ in 0..options.runs {
        for peer in &mut peers {
            peer.run(PROMPT, DECODED)?;
        }
        engine.run(&mut runs)?;
    }
    add(figures, &engine.work, runs, peers);
    Ok(fs::remove_dir_all(&folder)?)
}

/// The measurements of every round.
#[derive(Default)]
struct Runs {
    bandwidth: Vec<f64>,
    decode: Vec<f64>,
    lockstep: Vec<f64>,
    prompt: Vec<f64>,
    reference: Vec<f64>,
}

fn add(figures: &mut Figures, work: &Work, runs: Runs, peers: Vec<Peer>) {
    let note = "read and written";
    let bandwidth = figures.add(SECTION, "memory: copying, all threads", "GB/s", runs.bandwidth, note);
    let floor = bandwidth * 1e9 / work.call_bytes as f64;
    let weights = format!(
        "{:.2} G weights, {:.2} GB a token",
        work.multiply_adds as f64 / 1e9,
        work.call_bytes as f64 / 1e9
    );
    figures.add(SECTION, "floor: reading the weights once a token", "tok/s", vec![floor], weights);
    let decoded = median(&runs.decode);
    let note = compared(&peers, decoded, |peer| &peer.decode);
    figures.add(SECTION, "decode", "tok/s", runs.decode, note);
    let note = format!("{:.1} times one sequence", median(&runs.lockstep) / decoded);
    figures.add(SECTION, "decode, 16 sequences in lockstep", "tok/s", runs.lockstep, note);
    let note = compared(&peers, median(&runs.prompt), |peer| &peer.prompt);
    figures.add(SECTION, "prompt of 256 in chunks of 64 through prefill", "tok/s", runs.prompt, note);
    let note = "windows of 256, with all logits; bf16 weights";
    figures.add(SECTION, "fp32 reference", "tok/s", runs.reference, note);
    for peer in peers {
        let name = |what: &str| format!("peer: llama.cpp {}, {what}", peer.name);
        figures.add(SECTION, &name("decode"), "tok/s", peer.decode, peer.size.as_str());
        figures.add(SECTION, &name("prompt of 256"), "tok/s", peer.prompt, "activations of 8 bits");
    }
}

fn compared(peers: &[Peer], ours: f64, theirs: impl Fn(&Peer) -> &Vec<f64>) -> String {
    let share = |peer: &Peer| format!("{:.2} of llama.cpp's {}", ours / median(theirs(peer)), peer.name);
    peers.iter().map(share).collect::<Vec<_>>().join(", ")
}

/// What is measured, ready to run.
struct Engine {
    work: Work,
    one: Stepper,
    sequences: Lockstep,
    chunked: Stepper,
    source: LocalSource,
    /// Source and target of the copies of each thread.
    buffers: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Engine {
    fn prepare(folder: &Path) -> Result<Self> {
        let (one, chunked) = (folder.join("one.aimodel"), folder.join("chunked.aimodel"));
        let (tables, model) = (folder.join("tables"), folder.join("model"));
        write_package(&one, Variant::Provider, Functions::MAIN)?;
        write_tables(&tables)?;
        let functions = Functions { main: Sequence::Dynamic, prefill: Some(Prefill::Caches) };
        write_package(&chunked, Variant::Stock, functions)?;
        SyntheticCheckpoint::new(shape()).write(&model)?;
        let stepper =
            || Ok::<_, anyhow::Error>(Stepper::new(Session::open(&one)?, Some(Tables::open(&tables)?))?);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut engine = Engine {
            work: work_of_main(&one)?,
            one: stepper()?,
            sequences: Lockstep::new(stepper()?, SEQUENCES)?,
            chunked: Stepper::new(Session::open(&chunked)?, None)?,
            source: LocalSource::open(&model)?,
            buffers: (0..threads).map(|_| (vec![1; COPIED], vec![2; COPIED])).collect(),
        };
        engine.chunked.set_feeding(Feeding::Prefill(CHUNK))?;
        // Pages are read for the first time, and buffers made.
        engine.run(&mut Runs::default())?;
        Ok(engine)
    }

    fn run(&mut self, runs: &mut Runs) -> Result<()> {
        runs.bandwidth.push(copy(&mut self.buffers));
        runs.decode.push(decode(&mut self.one)?);
        runs.lockstep.push(lockstep(&mut self.sequences)?);
        runs.prompt.push(prompt(&mut self.chunked)?);
        runs.reference.push(reference(&self.source)?);
        Ok(())
    }
}

/// What a call of `main` reads and multiplies.
fn work_of_main(package: &Path) -> Result<Work> {
    let package = Package::open(package)?;
    let module = &package.bytecode.module;
    let graph = module.graphs().first().copied().context("the package has no function")?;
    let main = Function::of(module, graph).context("the function has no body")?;
    Ok(package.work(&main))
}

/// Bytes read and written, in GB per second.
fn copy(buffers: &mut [(Vec<u8>, Vec<u8>)]) -> f64 {
    let bytes = 2 * COPIED * buffers.len();
    let begin = std::time::Instant::now();
    std::thread::scope(|scope| {
        for (from, to) in buffers {
            scope.spawn(|| to.copy_from_slice(std::hint::black_box(from)));
        }
    });
    bytes as f64 / begin.elapsed().as_secs_f64() / 1e9
}

/// Tokens per second.
fn decode(stepper: &mut Stepper) -> Result<f64> {
    stepper.reset()?;
    let time = seconds(|| (0..DECODED).try_for_each(|at| stepper.feed(token(at)).map(drop)))?;
    Ok(DECODED as f64 / time)
}

/// Tokens of all sequences per second.
fn lockstep(sequences: &mut Lockstep) -> Result<f64> {
    let tokens: Vec<u32> = (0..SEQUENCES.get()).map(token).collect();
    sequences.reset()?;
    let time = seconds(|| (0..STEPS).try_for_each(|_| sequences.feed(&tokens, &Silent).map(drop)))?;
    Ok((STEPS * tokens.len()) as f64 / time)
}

/// Tokens per second.
fn prompt(stepper: &mut Stepper) -> Result<f64> {
    let tokens: Vec<u32> = (0..PROMPT).map(token).collect();
    stepper.reset()?;
    Ok(tokens.len() as f64 / seconds(|| stepper.read_prompt(&tokens))?)
}

/// Tokens per second of the checkpoint's decoder in f32.
fn reference(source: &LocalSource) -> Result<f64> {
    let reference = Reference::open(source)?;
    let tokens: Vec<u32> = (0..PROMPT).map(token).collect();
    let time = seconds(|| {
        let hidden = reference.feed_windows(&[tokens.as_slice(); WINDOWS], &Silent)?;
        (0..WINDOWS).try_for_each(|window| {
            let positions = window * PROMPT..(window + 1) * PROMPT;
            reference.logits_of(&hidden, positions, &Silent).map(drop)
        })
    })?;
    Ok((WINDOWS * PROMPT) as f64 / time)
}

/// Any token, another one at every place.
fn token(at: usize) -> u32 {
    at as u32 * 7 + 2
}
