//! Whether a bundle agrees with its checkpoint.

use std::path::Path;

use ::oracle::feeding::Feeding;
use ::oracle::file::{self, Case, Oracle};
use ::oracle::gate::{self, FeedingReport, GateReport, PartExactness};
use ::oracle::reference::Reference;
use ::oracle::stepper::Stepper;
use anyhow::bail;
use checkpoint::source::Source;
use packer::replace::Output;
use packer::template::Conversation;
use progress::Progress;

use crate::oracle::{GivenPrompts, of_prompts};
use crate::origin::{Access, Opener};
use crate::outputs;
use crate::runnable::Runnable;
use crate::source::SourceSpec;

/// Refuses an oracle of another checkpoint. Oracles made with `transformers` do not say which one they are of.
///
/// # Errors
/// If it is of another one, or the checkpoint cannot be read.
pub fn check_identity(oracle: &Oracle, source: &dyn Source, path: &Path) -> anyhow::Result<()> {
    let fingerprint = file::identity(source)?.fingerprint;
    match &oracle.checkpoint {
        Some(known) if known.fingerprint != fingerprint => bail!(
            "{}: the oracle is of another checkpoint than --checkpoint; make it again with `coreai-bundle oracle`",
            path.display()
        ),
        _ => Ok(()),
    }
}

/// Refuses an oracle with a sequence that is longer than the bundle's context.
///
/// # Errors
/// If there is one, or the bundle cannot be read.
pub fn check_context(oracle: &Oracle, runnable: &Runnable) -> anyhow::Result<()> {
    let Some(limit) = runnable.max_context()? else { return Ok(()) };
    let longest = oracle.cases.iter().map(Case::len).max().unwrap_or(0);
    if longest as u64 > limit {
        bail!(
            "the oracle has a sequence of {longest} tokens, the bundle a context of {limit}: make one with shorter prompts, or convert \
             with a larger --max-context"
        );
    }
    Ok(())
}

/// Runs the gate, and reports its positions to `progress`. With a reference, it also counts the weights that are exact.
///
/// # Errors
/// If the bundle cannot be run, or the run is cancelled.
pub fn measure(
    stepper: &mut Stepper,
    oracle: &Oracle,
    mut reference: Option<&mut Reference<'_>>,
    layers: bool,
    progress: &dyn Progress,
) -> anyhow::Result<GateReport> {
    let run = |(case, repeated): (&Case, usize)| if repeated < case.len() { case.len() } else { 0 };
    let positions: usize = oracle.cases.iter().zip(oracle.repeated()).map(run).sum();
    progress.expect(positions as u64);
    let report = gate::run(stepper, oracle, reference.as_deref_mut(), layers, progress);
    progress.finish();
    let mut report = report?;
    if let Some(reference) = reference {
        report.exactness = gate::exactness(stepper, reference, progress)?;
    }
    Ok(report)
}

/// Feeds a bundle as the engine does and one by one, and compares logits and caches. None if the engine feeds it one by one.
///
/// # Errors
/// If the bundle cannot be run, or the run is cancelled.
pub fn compare_feedings(
    runnable: &Runnable,
    oracle: &Oracle,
    progress: &dyn Progress,
) -> anyhow::Result<Option<FeedingReport>> {
    let (mut engine, mut one_by_one) = (runnable.stepper()?, runnable.stepper()?);
    if engine.feeding() == Feeding::ONE_BY_ONE {
        return Ok(None);
    }
    one_by_one.set_feeding(Feeding::ONE_BY_ONE)?;
    progress.expect(oracle.cases.iter().map(|case| case.len() as u64).sum());
    let report = gate::compare_feedings(&mut one_by_one, &mut engine, oracle, progress);
    progress.finish();
    Ok(Some(report?))
}

/// Writes the bundle's own continuation of the first prompt, for devices to repeat.
///
/// # Errors
/// If the bundle cannot be run, or the file cannot be written.
pub fn write_probe(
    stepper: &mut Stepper,
    oracle: &Oracle,
    path: &Path,
    output: Output,
) -> anyhow::Result<()> {
    let prompt: Vec<u32> =
        oracle.cases.first().map(|case: &Case| case.prompt_ids.clone()).unwrap_or_default();
    let probe = gate::probe(stepper, &prompt)?;
    outputs::write_text(path, output, &(serde_json::to_string(&probe)? + "\n"))
}

/// One line about two ways of feeding.
pub fn feedings_verdict(report: &FeedingReport) -> String {
    let word = if report.passed { "equal" } else { "DIFFERENT" };
    let caches: Vec<String> =
        report.caches.iter().map(|cache| format!("{} {:.6}", cache.state, cache.min_cosine)).collect();
    format!(
        "in chunks and one by one: {word}, {} positions, minimum cosine {:.6}, {} other winners; caches: {}",
        report.positions,
        report.min_cosine,
        report.flips.len(),
        caches.join(", ")
    )
}

/// How many weights are exact, in one line; None if they were not counted.
pub fn exactness_line(parts: &[PartExactness]) -> Option<String> {
    let sum = |count: fn(&PartExactness) -> u64| parts.iter().map(count).sum::<u64>();
    let (exact, all) = (sum(|part| part.weights_exact), sum(|part| part.weights));
    let share = |exact, all| report::digits::percent(exact, all);
    let of_parts: Vec<String> = parts
        .iter()
        .map(|part| format!("{} {}", part.part, share(part.weights_exact, part.weights)))
        .collect();
    (all > 0).then(|| {
        format!("weights byte-exact in bf16: {} of {all}; {}", share(exact, all), of_parts.join(", "))
    })
}

/// The result in one line.
pub fn verdict(report: &GateReport) -> String {
    let word = if report.passed { "passed" } else { "FAILED" };
    let cosine = report
        .distances
        .map(|distances| format!(", minimum cosine {:.6}", distances.min_cosine))
        .unwrap_or_default();
    format!(
        "gate {word}: {} of {} qualified positions agree{cosine}, largest difference of norms {:.2} %",
        report.agreed,
        report.qualified,
        100.0 * report.norm_difference()
    )
}

/// Compares a bundle with its checkpoint in fp32, on the default prompts; also counts the weights that are exact.
///
/// # Errors
/// If one of them cannot be read, the bundle cannot be run, or the run is cancelled.
pub fn gate(bundle: &Runnable, checkpoint: &str, progress: &dyn Progress) -> anyhow::Result<GateReport> {
    let source = SourceSpec::parse(checkpoint, None)?;
    let opened = Opener { cancelled: || false, progress }.open(&source, Access::kept(&source))?;
    let mut reference = Reference::open(&*opened.source)?;
    let render = Conversation::render;
    let oracle = of_prompts(&*opened.source, &reference, &GivenPrompts::default(), &render, progress)?;
    check_context(&oracle, bundle)?;
    measure(&mut bundle.stepper()?, &oracle, Some(&mut reference), false, progress)
}
