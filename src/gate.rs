//! `coreai-bundle gate`: does a bundle say what its checkpoint says?

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::oracle::file::{self, Case, Oracle};
use ::oracle::gate::{self, CaseReport, GateReport};
use ::oracle::reference::Reference;
use ::oracle::stepper::Stepper;
use aimodel::staging::StagedFile;
use anyhow::bail;
use clap::Args;
use packer::output::{FileKind, Output, Outputs};

use crate::oracle::shortened;
use crate::runnable::Runnable;
use crate::{interrupt, origin, outputs, terminal};

/// Hold a bundle against an oracle
///
/// Tokens are fed one by one through the bundle's own caches, as the engine does. The bundle passes if it chooses the oracle's
/// token wherever the choice is clear (a margin of 0.1). With the checkpoint all logits are compared, and causes are looked for.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle gate out/gemma4_e4b_qat_decode_int4lin --oracle oracle.json
  coreai-bundle gate out/gemma4_e4b_qat_decode_int4lin --oracle oracle.json --checkpoint gemma-4-E4B-it-qat --layers")]
pub(crate) struct Arguments {
    #[command(flatten)]
    runnable: Runnable,
    /// What the checkpoint says, made by `coreai-bundle oracle`
    #[arg(long, value_name = "FILE")]
    oracle: PathBuf,
    /// The checkpoint: compare all logits with it, and look for causes
    #[arg(long, value_name = "SOURCE")]
    checkpoint: Option<String>,
    /// Branch, tag or commit of the checkpoint's repository [default: main]
    #[arg(long, value_name = "REVISION", requires = "checkpoint")]
    revision: Option<String>,
    /// Compare layer by layer, and name the first that departs
    #[arg(long, requires = "checkpoint")]
    layers: bool,
    /// Write the bundle's own 24-token continuation of the first prompt, for devices to repeat
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(path) = &arguments.probe {
        StagedFile::check(path, arguments.probe_output())?;
    }
    let oracle = Oracle::read(&arguments.oracle)?;
    let mut stepper = arguments.runnable.stepper()?;
    let open = |source| origin::open_kept(source, arguments.revision.as_deref());
    let origin = arguments.checkpoint.as_deref().map(open).transpose()?;
    let mut reference = match &origin {
        Some(origin) => {
            check_identity(&oracle, &file::identity(&*origin.source)?.fingerprint, &arguments.oracle)?;
            Some(Reference::open(&*origin.source)?)
        }
        None => None,
    };
    interrupt::listen()?;
    let report = measure(&mut stepper, &oracle, reference.as_mut(), arguments.layers)?;
    if let Some(path) = &arguments.probe {
        write_probe(&mut stepper, &oracle, path, arguments.probe_output())?;
    }
    let mut out = terminal::out();
    if arguments.json {
        terminal::print_json(&report)?;
    } else {
        print(&report, &mut out)?;
    }
    Ok(ExitCode::from(report.exit_code()))
}

impl Arguments {
    /// What the probe may replace: an older one.
    fn probe_output(&self) -> Output {
        let inputs = [&self.runnable.bundle, &self.oracle].into_iter().chain(&self.runnable.tables);
        let checkpoint = self.checkpoint.as_deref().map(PathBuf::from);
        Outputs::new(inputs.cloned().chain(checkpoint), true).file(FileKind::Probe)
    }
}

/// An oracle speaks for one checkpoint. Those made with `transformers` do not say for which.
fn check_identity(oracle: &Oracle, fingerprint: &str, path: &Path) -> anyhow::Result<()> {
    match &oracle.checkpoint {
        Some(known) if known.fingerprint != fingerprint => bail!(
            "{}: the oracle is of another checkpoint than --checkpoint; make it again with `coreai-bundle oracle`",
            path.display()
        ),
        _ => Ok(()),
    }
}

/// Runs the gate with a bar over the positions.
pub(crate) fn measure(
    stepper: &mut Stepper,
    oracle: &Oracle,
    reference: Option<&mut Reference<'_>>,
    layers: bool,
) -> anyhow::Result<GateReport> {
    let positions: usize = oracle.cases.iter().map(|case| case.ids().count()).sum();
    let bar = terminal::bar(Some(positions as u64), "gate {bar:30} {pos}/{len} positions, {per_sec}, {eta}");
    let report = gate::run(stepper, oracle, reference, layers, &mut || {
        bar.inc(1);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.finish_and_clear();
    Ok(report?)
}

fn write_probe(stepper: &mut Stepper, oracle: &Oracle, path: &Path, output: Output) -> anyhow::Result<()> {
    let prompt: Vec<u32> =
        oracle.cases.first().map(|case: &Case| case.prompt_ids.clone()).unwrap_or_default();
    let probe = gate::probe(stepper, &prompt)?;
    outputs::write_text(path, output, &(serde_json::to_string(&probe)? + "\n"))
}

/// The report for people.
fn print(report: &GateReport, out: &mut dyn Write) -> io::Result<()> {
    for case in &report.cases {
        writeln!(out, "{:38} {}", shortened(&case.prompt), case_line(case))?;
        for flip in &case.flips {
            writeln!(
                out,
                "  position {}: token {} instead of {}, margin {:.2}",
                flip.position, flip.found, flip.expected, flip.margin
            )?;
        }
    }
    if let Some(layers) = &report.layers {
        for layer in &layers.layers {
            writeln!(
                out,
                "layer {:2}: mean error {:.5}, worst {:.5} at position {}",
                layer.layer, layer.mean_error, layer.worst_error, layer.worst_position
            )?;
        }
        match layers.first_departing {
            Some(layer) => writeln!(out, "layer {layer} is the first that departs")?,
            None => writeln!(out, "no layer departs")?,
        }
    }
    report.causes.iter().try_for_each(|cause| writeln!(out, "cause: {cause}"))?;
    writeln!(out, "{}", verdict(report))
}

fn case_line(case: &CaseReport) -> String {
    let right = case.qualified - case.flips.len();
    let mut line = format!("{right:4} of {:4} positions agree", case.qualified);
    if let Some(distances) = &case.distances {
        line.push_str(&format!(
            ", cosine {:.6} at least {:.6}, KL {:.2e}",
            distances.mean_cosine, distances.min_cosine, distances.mean_kl
        ));
    }
    if let Some(position) = case.first_divergence {
        line.push_str(&format!(", first other token at {position}"));
    }
    line
}

/// One line that says it all.
pub(crate) fn verdict(report: &GateReport) -> String {
    let word = if report.passed { "passed" } else { "FAILED" };
    let distances = report.cases.iter().filter_map(|case| case.distances);
    let lowest = distances.map(|distances| distances.min_cosine).fold(f64::INFINITY, f64::min);
    let cosine = if lowest.is_finite() { format!(", minimum cosine {lowest:.6}") } else { String::new() };
    let norm = report.cases.iter().map(|case| case.norm_difference).fold(0.0, f64::max);
    format!(
        "gate {word}: {} of {} qualified positions agree{cosine}, largest difference of norms {:.2} %",
        report.agreed,
        report.qualified,
        100.0 * norm
    )
}
