//! The interpreter on a model of E4B's widths, six layers deep: tokens one by one, and prompts in chunks.

use std::fs;
use std::num::NonZeroUsize;

use anyhow::{Context, Result};
use converter::decoder::{Functions, Prefill, Sequence, Variant};
use interpreter::Session;
use oracle::feeding::{Feeding, chunks};
use oracle::stepper::Stepper;

use crate::Options;
use crate::figure::{Figures, median, seconds};
use crate::synthetic::write_package;

const SECTION: &str = "prompts in the interpreter, 6 layers of E4B's widths";
/// Tokens of the prompt, those of it that are fed one by one, and those of a chunk.
const PROMPT: usize = 256;
const ALONE: usize = 16;
const CHUNK: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");

/// Measures all of them.
pub(crate) fn measure(options: &Options, figures: &mut Figures) -> Result<()> {
    let package = options.scratch.join("prompts.aimodel");
    let functions = Functions { main: Sequence::Dynamic, prefill: Some(Prefill::Caches) };
    write_package(&package, Variant::Stock, functions)?;
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
