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
use oracle::feeding::Feeding;
use oracle::interpreter::Session;
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

/// Measures all of them.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    let folder = options.scratch.join("engine");
    let (one, chunked) = (folder.join("one.aimodel"), folder.join("chunked.aimodel"));
    let tables = folder.join("tables");
    fs::create_dir_all(&folder)?;
    write_package(&one, Variant::Provider, Functions::MAIN)?;
    write_tables(&tables)?;
    let functions = Functions { main: Sequence::Dynamic, prefill: Some(Prefill::Caches) };
    write_package(&chunked, Variant::Stock, functions)?;
    let peers = llama::measure(options, &folder, PROMPT, DECODED)?;

    let bandwidth =
        figures.add(SECTION, "memory: copying, all threads", "GB/s", copy(options), "read and written");
    let work = work_of_main(&one)?;
    let floor = bandwidth * 1e9 / work.call_bytes as f64;
    let weights = format!(
        "{:.2} G weights, {:.2} GB a token",
        work.multiply_adds as f64 / 1e9,
        work.call_bytes as f64 / 1e9
    );
    figures.add(SECTION, "floor: reading the weights once a token", "tok/s", vec![floor], weights);

    let mut stepper = Stepper::new(Session::open(&one)?, Some(Tables::open(&tables)?))?;
    let runs = decode(options, &mut stepper)?;
    let decoded = median(&runs);
    let note = compared(&peers, decoded, |peer| &peer.decode);
    figures.add(SECTION, "decode", "tok/s", runs, note);
    let runs = lockstep(options, stepper)?;
    let note = format!("{:.1} times one sequence", median(&runs) / decoded);
    figures.add(SECTION, "decode, 16 sequences in lockstep", "tok/s", runs, note);
    let runs = prompt(options, &chunked)?;
    let note = compared(&peers, median(&runs), |peer| &peer.prompt);
    figures.add(SECTION, "prompt of 256 in chunks of 64 through prefill", "tok/s", runs, note);
    let note = "windows of 256, with all logits; bf16 weights";
    figures.add(SECTION, "fp32 reference", "tok/s", reference(options, &folder)?, note);
    for peer in peers {
        let name = |what: &str| format!("peer: llama.cpp {}, {what}", peer.name);
        figures.add(SECTION, &name("decode"), "tok/s", peer.decode, peer.size.as_str());
        figures.add(SECTION, &name("prompt of 256"), "tok/s", peer.prompt, "activations of 8 bits");
    }
    Ok(fs::remove_dir_all(&folder)?)
}

fn compared(peers: &[Peer], ours: f64, theirs: impl Fn(&Peer) -> &Vec<f64>) -> String {
    let share = |peer: &Peer| format!("{:.2} of llama.cpp's {}", ours / median(theirs(peer)), peer.name);
    peers.iter().map(share).collect::<Vec<_>>().join(", ")
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
fn copy(options: &Options) -> Vec<f64> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut buffers: Vec<(Vec<u8>, Vec<u8>)> =
        (0..threads).map(|_| (vec![1; COPIED], vec![2; COPIED])).collect();
    let mut once = || {
        let begin = std::time::Instant::now();
        std::thread::scope(|scope| {
            for (from, to) in &mut buffers {
                scope.spawn(|| to.copy_from_slice(std::hint::black_box(from)));
            }
        });
        (2 * COPIED * threads) as f64 / begin.elapsed().as_secs_f64() / 1e9
    };
    once();
    (0..options.runs).map(|_| once()).collect()
}

/// Tokens per second.
fn decode(options: &Options, stepper: &mut Stepper) -> Result<Vec<f64>> {
    let mut run = |tokens: usize| {
        stepper.reset()?;
        let time = seconds(|| (0..tokens as u32).try_for_each(|at| stepper.feed(at * 7 + 2).map(|_| ())))?;
        Ok(tokens as f64 / time)
    };
    run(2)?;
    (0..options.runs).map(|_| run(DECODED)).collect()
}

/// Tokens of all sequences per second.
fn lockstep(options: &Options, stepper: Stepper) -> Result<Vec<f64>> {
    let mut sequences = Lockstep::new(stepper, SEQUENCES)?;
    let tokens: Vec<u32> = (0..SEQUENCES.get() as u32).map(|at| at * 7 + 2).collect();
    let mut run = |steps: usize| {
        sequences.reset()?;
        let time = seconds(|| (0..steps).try_for_each(|_| sequences.feed(&tokens, &Silent).map(|_| ())))?;
        Ok((steps * tokens.len()) as f64 / time)
    };
    run(1)?;
    (0..options.runs).map(|_| run(STEPS)).collect()
}

/// Tokens per second of the checkpoint's decoder in f32.
fn reference(options: &Options, folder: &Path) -> Result<Vec<f64>> {
    let model = folder.join("model");
    SyntheticCheckpoint::new(shape()).write(&model)?;
    let source = LocalSource::open(&model)?;
    let reference = Reference::open(&source)?;
    let tokens: Vec<u32> = (0..PROMPT as u32).map(|at| at * 7 + 2).collect();
    let run = |windows: usize| {
        let time = seconds(|| {
            let hidden = reference.feed_windows(&vec![tokens.as_slice(); windows], &Silent)?;
            (0..windows).try_for_each(|window| {
                let positions = window * PROMPT..(window + 1) * PROMPT;
                reference.logits_of(&hidden, positions, &Silent).map(|_| ())
            })
        })?;
        Ok((windows * PROMPT) as f64 / time)
    };
    run(1)?;
    (0..options.runs).map(|_| run(WINDOWS)).collect()
}

/// Tokens per second.
fn prompt(options: &Options, package: &Path) -> Result<Vec<f64>> {
    let mut stepper = Stepper::new(Session::open(package)?, None)?;
    stepper.set_feeding(Feeding::Prefill(CHUNK))?;
    let tokens: Vec<u32> = (0..PROMPT as u32).map(|at| at * 7 + 2).collect();
    let mut run = |tokens: &[u32]| {
        stepper.reset()?;
        Ok(tokens.len() as f64 / seconds(|| stepper.read_prompt(tokens))?)
    };
    run(&tokens[..8])?;
    (0..options.runs).map(|_| run(&tokens)).collect()
}
