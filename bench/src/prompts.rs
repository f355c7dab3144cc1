//! The interpreter on a model of E4B's widths, six layers deep: tokens one by one, and prompts in chunks.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;

use aimodel::bytecode::layout::Layout;
use aimodel::package::{PackageMetadata, PackageWriter};
use anyhow::{Context, Result, ensure};
use checkpoint::config::DecoderConfig;
use converter::decoder::{CacheForm, Functions, GraphOptions, Prefill, Sequence, Variant, build};
use converter::quant::Int4Rule;
use converter::recipe::{Recipe, Treatment};
use fixtures::Shape;
use oracle::feeding::{Feeding, chunks};
use oracle::interpreter::Session;
use oracle::stepper::Stepper;

use crate::Options;
use crate::figure::{Figures, median, seconds};

const SECTION: &str = "prompts in the interpreter, 6 layers of E4B's widths";
const LAYERS: usize = 6;
/// Tokens of the prompt, those of it that are fed one by one, and those of a chunk.
const PROMPT: usize = 256;
const ALONE: usize = 16;
const CHUNK: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Measures all of them.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    let package = options.scratch.join("prompts.aimodel");
    write_package(&package)?;
    let mut stepper = Stepper::new(Session::open(&package)?, None)?;
    let tokens: Vec<u32> = (0..PROMPT as u32).map(|at| at * 7 + 2).collect();
    // The pages are read, and what a thread needs is made.
    stepper.prefill(&tokens[..8])?;
    stepper.feed(2)?;
    let one_by_one = repeat(options, &mut stepper, &tokens[..ALONE], |stepper, tokens| {
        tokens.iter().try_for_each(|token| stepper.feed(*token).map(|_| ()).map_err(Into::into))
    })?;
    let one_by_one = figures.add(SECTION, "one by one", "ms", one_by_one, "for each token");
    let in_chunks = repeat(options, &mut stepper, &tokens, |stepper, tokens| {
        for chunk in chunks(tokens, CHUNK) {
            let outputs = stepper.feed_chunk(chunk)?;
            (0..chunk.len()).try_for_each(|at| outputs.logits(at).map(|_| ()))?;
        }
        Ok(())
    })?;
    let times = |runs: &[f64]| format!("{:.1} times as fast", one_by_one / median(runs));
    let note = times(&in_chunks);
    figures.add(SECTION, "chunks of 64 with all logits, dynamic main", "ms", in_chunks, note);
    stepper.set_feeding(Feeding::Prefill(CHUNK))?;
    let through_prefill = repeat(options, &mut stepper, &tokens, |stepper, tokens| {
        stepper.read_prompt(tokens)?.context("the prompt is empty")?;
        Ok(())
    })?;
    let note = times(&through_prefill);
    figures.add(SECTION, "prompt of 256 in chunks of 64 through prefill", "ms", through_prefill, note);
    Ok(fs::remove_dir_all(&package)?)
}

/// Milliseconds for each token.
fn repeat(
    options: &Options,
    stepper: &mut Stepper,
    tokens: &[u32],
    read: impl Fn(&mut Stepper, &[u32]) -> Result<()>,
) -> Result<Vec<f64>> {
    let mut run = || {
        stepper.reset()?;
        Ok(1e3 * seconds(|| read(stepper, tokens))? / tokens.len() as f64)
    };
    (0..options.runs).map(|_| run()).collect()
}

/// A package for Apple's engine. Every blob is a run of one small half, which is as good a row of codes as any.
fn write_package(directory: &Path) -> Result<()> {
    // Without shared layers, `prefill` saves little: the last layer's attention, the MLPs and the head.
    let shape = Shape { kv_shared: 0, ..Shape::e4b(LAYERS) };
    let config = DecoderConfig::from_json(shape.config().to_string().as_bytes())?;
    let int4 = Treatment::Int4(Int4Rule::Lattice);
    let options = GraphOptions {
        variant: Variant::Stock,
        recipe: Recipe::new(int4, int4),
        tied_head: true,
        functions: Functions { main: Sequence::Dynamic, prefill: Some(Prefill::Caches) },
        caches: CacheForm::Padded,
    };
    let graph = build(&config, options, &BTreeMap::new())?;
    let layout = Layout::new(&graph.module).context("the graph is too large")?;
    let mut writer = PackageWriter::create(directory, &layout)?;
    let piece = half::f16::from_f32(0.002).to_le_bytes().repeat(1 << 19);
    while let Some(placement) = writer.next_blob() {
        let mut left = usize::try_from(placement.length)?;
        while left > 0 {
            let part = left.min(piece.len());
            writer.write(&piece[..part])?;
            left -= part;
        }
    }
    let written = writer.finish(&PackageMetadata::new("bench", "20260101T000000Z"))?;
    ensure!(written.bytes == layout.total, "the package has another size than planned");
    Ok(())
}
