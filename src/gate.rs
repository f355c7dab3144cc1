//! `coreai-bundle gate`: does a bundle choose the tokens that its checkpoint chooses?

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::gate::{
    check_context, check_identity, compare_feedings, exactness_line, feedings_verdict, measure, verdict,
    write_probe,
};
use coreai_bundle::parts::oracle::file::Oracle;
use coreai_bundle::parts::oracle::gate::{Bounds, CaseReport, FeedingReport, Flip, GateReport};
use coreai_bundle::parts::oracle::reference::Reference;
use coreai_bundle::parts::output::StagedFile;
use coreai_bundle::parts::packer::replace::{FileKind, Output, Outputs};
use serde::Serialize;

use crate::oracle::prompt_line;
use crate::progress::Bar;
use crate::runnable::RunnableArguments;
use crate::{interrupt, origin, terminal};

/// Compare a bundle with an oracle
///
/// Tokens are fed through the bundle's own caches as the engine does: prompts in chunks through the function prefill, if the
/// bundle has one, everything else one by one. Where such chunks have no logits, a prompt is read four times, up to each of its
/// quarters. The bundle passes if it chooses the oracle's token wherever the choice is clear (a margin of 0.1), at enough
/// positions, and does not clearly prefer another token elsewhere. With the checkpoint, all logits are compared, and causes of a
/// failure are looked for. A bundle that fails ends the command with status 1.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle gate out/gemma4_e4b_qat_decode_int4lin --oracle oracle.json
  coreai-bundle gate out/gemma4_e4b_qat_decode_int4lin --oracle oracle.json --checkpoint gemma-4-E4B-it-qat --layers")]
pub(crate) struct Arguments {
    #[command(flatten)]
    runnable: RunnableArguments,
    /// Oracle of the checkpoint, made by `coreai-bundle oracle`
    #[arg(long, value_name = "FILE")]
    oracle: PathBuf,
    /// The checkpoint: compare all logits with it, and look for causes
    #[arg(long, value_name = "SOURCE")]
    checkpoint: Option<String>,
    /// Branch, tag or commit of the checkpoint's repository [default: main]
    #[arg(long, value_name = "REVISION", requires = "checkpoint")]
    revision: Option<String>,
    /// Also feed tokens one by one, and compare logits and caches with those that the engine's way of feeding makes
    #[arg(long)]
    both: bool,
    /// Compare layer by layer, and name the first that deviates
    #[arg(long, requires = "checkpoint")]
    layers: bool,
    /// Minimum number of distinct positions with a clear choice
    #[arg(long, value_name = "N", default_value_t = Bounds::LOSSLESS.min_positions as u32, value_parser = clap::value_parser!(u32).range(1..))]
    min_positions: u32,
    /// Minimum cosine of the logits at any position [default: 0.995; 0.99 with int8 weights]
    #[arg(long, value_name = "X", value_parser = share, requires = "checkpoint")]
    min_cosine: Option<f64>,
    /// Minimum mean cosine of the logits [default: 0.9995; 0.999 with int8 weights]
    #[arg(long, value_name = "X", value_parser = share, requires = "checkpoint")]
    min_mean_cosine: Option<f64>,
    /// Maximum mean KL divergence in nats [default: 0.001; 0.004 with int8 weights]
    #[arg(long, value_name = "X", value_parser = divergence, requires = "checkpoint")]
    max_kl: Option<f64>,
    /// Write the bundle's own 24-token continuation of the first prompt, for devices to repeat
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
}

impl Arguments {
    /// The bounds of the bundle's format, except for those that were typed.
    fn bounds(&self, of_format: Bounds) -> Bounds {
        Bounds {
            min_positions: self.min_positions as usize,
            min_cosine: self.min_cosine.unwrap_or(of_format.min_cosine),
            min_mean_cosine: self.min_mean_cosine.unwrap_or(of_format.min_mean_cosine),
            max_mean_kl: self.max_kl.unwrap_or(of_format.max_mean_kl),
            ..of_format
        }
    }
}

pub(crate) fn share(typed: &str) -> Result<f64, String> {
    number(typed).filter(|value| *value <= 1.0).ok_or_else(|| "give a number from 0 to 1".to_owned())
}

pub(crate) fn divergence(typed: &str) -> Result<f64, String> {
    number(typed).ok_or_else(|| "give a number that is not negative".to_owned())
}

fn number(typed: &str) -> Option<f64> {
    typed.parse().ok().filter(|value: &f64| value.is_finite() && *value >= 0.0)
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(path) = &arguments.probe {
        StagedFile::check(path, arguments.probe_output())?;
    }
    let oracle = Oracle::read(&arguments.oracle)?;
    let runnable = arguments.runnable.runnable();
    check_context(&oracle, &runnable)?;
    let mut stepper = runnable.stepper()?;
    let open = |typed| origin::open_kept(typed, arguments.revision.as_deref());
    let opened = arguments.checkpoint.as_deref().map(open).transpose()?.map(|(_, opened)| opened);
    let mut reference = match &opened {
        Some(opened) => {
            check_identity(&oracle, &*opened.source, &arguments.oracle)?;
            Some(Reference::open(&*opened.source)?)
        }
        None => None,
    };
    interrupt::listen()?;
    let bar = Bar::of_positions();
    let report = measure(&mut stepper, &oracle, reference.as_mut(), arguments.layers, &bar)?;
    let bounds = arguments.bounds(report.bounds);
    let gate = report.judged_by(bounds);
    let feedings = if arguments.both { compare_feedings(&runnable, &oracle, &bar)? } else { None };
    if arguments.both && feedings.is_none() {
        terminal::tell("the engine feeds this bundle one token at a time, so --both has nothing to compare");
    }
    let report = Both { gate, feedings };
    if let Some(path) = &arguments.probe {
        write_probe(&mut stepper, &oracle, path, arguments.probe_output())?;
    }
    let mut out = terminal::out();
    if terminal::is_json() {
        terminal::print_json(&report)?;
    } else {
        print(&report.gate, &mut out)?;
        if let Some(feedings) = &report.feedings {
            feedings.flips.iter().try_for_each(|flip| writeln!(out, "  {}", flip_line(flip)))?;
            writeln!(out, "{}", feedings_verdict(feedings))?;
        }
    }
    let differ = report.feedings.as_ref().is_some_and(|feedings| !feedings.passed);
    Ok(ExitCode::from(report.gate.exit_code().max(u8::from(differ))))
}

/// The report and, if it was asked for, how two ways of feeding compare.
#[derive(Serialize)]
struct Both {
    #[serde(flatten)]
    gate: GateReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    feedings: Option<FeedingReport>,
}

impl Arguments {
    /// What the probe may replace: an older one.
    fn probe_output(&self) -> Output {
        let inputs = [&self.runnable.bundle, &self.oracle].into_iter().chain(&self.runnable.how.tables);
        let checkpoint = self.checkpoint.as_ref().map(|typed| PathBuf::from(typed.trim()));
        Outputs::new(inputs.cloned().chain(checkpoint), true).file(FileKind::Probe)
    }
}

/// The report for people.
fn print(report: &GateReport, out: &mut dyn Write) -> io::Result<()> {
    for case in &report.cases {
        writeln!(out, "{}", prompt_line(&case.prompt, &case_line(case)))?;
        case.flips
            .iter()
            .chain(&case.tie_flips)
            .try_for_each(|flip| writeln!(out, "  {}", flip_line(flip)))?;
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
            Some(layer) => writeln!(out, "layer {layer} is the first that deviates")?,
            None => writeln!(out, "no layer deviates")?,
        }
    }
    report.reasons().try_for_each(|reason| writeln!(out, "{reason}"))?;
    if let Some(line) = exactness_line(&report.exactness) {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "{}", verdict(report))
}

fn flip_line(flip: &Flip) -> String {
    let Flip { position, expected, found, margin, lead } = flip;
    format!(
        "position {position}: token {found} instead of {expected}, margin {margin:.2}, ahead by {lead:.2}"
    )
}

fn case_line(case: &CaseReport) -> String {
    if case.repeated == case.positions {
        return "repeats an earlier sequence, and is not counted again".to_owned();
    }
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

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    #[test]
    fn help_shows_the_bounds_that_are_used() {
        let mut command = Arguments::augment_args(clap::Command::new("gate"));
        let help = command.render_long_help().to_string();
        let (lossless, eight_bits) = (Bounds::LOSSLESS, Bounds::EIGHT_BITS);
        for bounds in [
            [lossless.min_cosine, eight_bits.min_cosine],
            [lossless.min_mean_cosine, eight_bits.min_mean_cosine],
            [lossless.max_mean_kl, eight_bits.max_mean_kl],
        ] {
            let default = format!("[default: {}; {} with int8 weights]", bounds[0], bounds[1]);
            let words: Vec<&str> = help.split_whitespace().collect();
            assert!(words.join(" ").contains(&default), "{default}\n{help}");
        }
    }
}
