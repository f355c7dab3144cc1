//! `coreai-bundle eval`: how far bundles are from their checkpoint on a text.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::{Args, ValueEnum};
use coreai_bundle::contents::all_bundles;
use coreai_bundle::eval::{EvalRequest, EvalText, EvaluatedBundle, Evaluation, Limits};
use coreai_bundle::parts::converter::recipe::Treatment;
use coreai_bundle::parts::oracle::eval::Share;
use coreai_bundle::parts::quantizer::Int4Rule;

use crate::columns::Columns;
use crate::progress::Bar;
use crate::runnable::RunArguments;
use crate::terminal::{STRONG, paint, wrap};
use crate::{digits, interrupt, origin, terminal};

/// Measure on a text how far bundles are from their checkpoint
///
/// The text is fed in windows to the checkpoint in fp32 and to each bundle, and their predictions are compared at every token:
/// perplexity, KL divergence of the bundle from the checkpoint in nats, and how often both have the same winner. Without a text, one of
/// about 15 kB is used that comes with the tool: prose, code, several languages and a chat. Intervals treat positions as independent,
/// which they are not. A run that is interrupted keeps the logits of --save-logits as far as they are, and with --resume the results
/// too; the same command continues it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle eval out/gemma4_e4b_qat_decode_int4lin --checkpoint gemma-4-E4B-it-qat
  coreai-bundle eval out/a out/b --checkpoint gemma-4-E4B-it-qat --text wiki.txt --limit 4096 --save-logits wiki.logits
  coreai-bundle eval out/c --logits wiki.logits --max-kl 0.001 --min-agreement 0.98
  coreai-bundle eval --rule lattice,q4_0,absmax --checkpoint gemma-4-E4B-it-qat")]
pub(crate) struct Arguments {
    /// Bundles to measure, or folders and archives of bundles
    #[arg(required_unless_present = "rules")]
    bundles: Vec<PathBuf>,
    /// The checkpoint: a folder, or a repository of the Hub, which is downloaded into the cache first
    #[arg(long, value_name = "SOURCE", required_unless_present = "logits")]
    checkpoint: Option<String>,
    /// Branch, tag or commit of the checkpoint's repository [default: main]
    #[arg(long, value_name = "REVISION", requires = "checkpoint")]
    revision: Option<String>,
    /// The checkpoint's logits, kept by --save-logits, instead of the checkpoint
    #[arg(long, value_name = "FILE", conflicts_with = "save_logits")]
    logits: Option<PathBuf>,
    /// Keep the checkpoint's logits: 3 bytes for each token of the vocabulary and each position
    #[arg(long, value_name = "FILE")]
    save_logits: Option<PathBuf>,
    /// Also convert the checkpoint by these rules into a temporary folder, and measure that; int8 and f16 are formats of all weights
    #[arg(long = "rule", value_name = "RULE", value_enum, value_delimiter = ',', requires = "checkpoint")]
    rules: Vec<Rule>,
    /// A file of text, instead of the default one
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Tokens of a window [default: 512, or the model's context if it is shorter]
    #[arg(long, value_name = "N")]
    window: Option<NonZeroUsize>,
    /// Tokens from window to window; less than a window gives every token more context [default: the window]
    #[arg(long, value_name = "N")]
    stride: Option<NonZeroUsize>,
    /// Measure the first tokens only
    #[arg(long, value_name = "TOKENS")]
    limit: Option<NonZeroUsize>,
    #[command(flatten)]
    how: RunArguments,
    /// Keep what is finished in this file until the command succeeds, and continue from there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Fail bundles with a larger mean KL divergence, in nats
    #[arg(long, value_name = "X", value_parser = crate::gate::divergence)]
    max_kl: Option<f64>,
    /// Fail bundles that have the checkpoint's winner at a smaller share of positions, from 0 to 1
    #[arg(long, value_name = "X", value_parser = crate::gate::share)]
    min_agreement: Option<f64>,
    /// Put the figures into the manifest of each bundle, from where release takes them to the model card
    #[arg(long, requires = "bundles")]
    record: bool,
    /// Write a page with the figures
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// A conversion to measure, as typed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Rule {
    /// The lattice that the checkpoint was trained on
    Lattice,
    /// As GGML's Q4_0 reference quantizer
    #[value(name = "q4_0")]
    Q4_0,
    /// As coreai-opt's int4 symmetric
    Absmax,
    /// 8-bit codes
    Int8,
    /// Half precision
    F16,
}

impl From<Rule> for Treatment {
    fn from(typed: Rule) -> Self {
        match typed {
            Rule::Lattice => Treatment::Int4(Int4Rule::Lattice),
            Rule::Q4_0 => Treatment::Int4(Int4Rule::Q4_0),
            Rule::Absmax => Treatment::Int4(Int4Rule::Absmax),
            Rule::Int8 => Treatment::Int8,
            Rule::F16 => Treatment::F16,
        }
    }
}

impl Arguments {
    fn request(&self) -> anyhow::Result<EvalRequest> {
        let bundles = self
            .bundles
            .iter()
            .map(|bundle| all_bundles(bundle))
            .collect::<anyhow::Result<Vec<_>>>()?
            .concat();
        let number = |typed: Option<NonZeroUsize>| typed.map(NonZeroUsize::get);
        Ok(EvalRequest {
            bundles: bundles.iter().map(|bundle| self.how.runnable(bundle)).collect(),
            what_ifs: self.rules.iter().map(|rule| Treatment::from(*rule)).collect(),
            text: self.text.clone().map(EvalText::File),
            window: number(self.window),
            stride: number(self.stride),
            limit: number(self.limit),
            logits: self.logits.clone(),
            save_logits: self.save_logits.clone(),
            resume: self.resume.clone(),
            threads: std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        })
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let (Some(stride), Some(window)) = (arguments.stride, arguments.window)
        && stride > window
    {
        bail!(
            "--stride {stride}: tokens would be left out between windows of {window}; give {window} or less"
        );
    }
    let request = arguments.request()?;
    let open = |typed| origin::open_kept(typed, arguments.revision.as_deref());
    let opened = arguments.checkpoint.as_deref().map(open).transpose()?.map(|(_, opened)| opened);
    interrupt::listen()?;
    let limits = Limits { max_kl: arguments.max_kl, min_agreement: arguments.min_agreement };
    let source = opened.as_ref().map(|opened| &*opened.source);
    let evaluation = request.run(source, limits, &Bar::of_work())?;
    if arguments.record {
        evaluation.record(&request)?;
    }
    if let Some(path) = &arguments.html {
        evaluation.write_page(path, &request)?;
    }
    if terminal::is_json() {
        terminal::print_json(&evaluation)?;
    } else {
        print(&evaluation, terminal::width(), &mut terminal::out())?;
    }
    Ok(ExitCode::from(evaluation.exit_code()))
}

/// The figures for people.
fn print(evaluation: &Evaluation, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let reference = &evaluation.reference;
    let positions = reference.positions as u64;
    let mut line = |text: &str, indent: usize| writeln!(out, "{}", wrap(text, 0, indent, width));
    let stride = match reference.stride {
        stride if stride == reference.window => String::new(),
        stride => format!(", one every {stride}"),
    };
    let (tokens, window) = (digits::grouped(positions), reference.window);
    let noun = if positions == 1 { "token" } else { "tokens" };
    line(&format!("{}: {tokens} {noun} in windows of {window}{stride}", evaluation.text), 2)?;
    line(
        &format!(
            "fp32 reference: perplexity {}, sure at {} of the positions",
            digits::perplexity(reference.perplexity),
            digits::percent(reference.sure as u64, positions)
        ),
        2,
    )?;
    let mut columns = Columns::new(&["bundle", "mean KL", "agreement", "perplexity"]);
    for EvaluatedBundle { bundle, figures, .. } in &evaluation.bundles {
        columns.row(vec![
            bundle.clone(),
            digits::nats(figures.mean_kl),
            percent(figures.agreement),
            digits::perplexity(figures.perplexity),
        ]);
    }
    write!(out, "\n{}", columns.text(width))?;
    evaluation.bundles.iter().try_for_each(|found| print_bundle(found, width, out))
}

fn print_bundle(found: &EvaluatedBundle, width: usize, out: &mut dyn Write) -> io::Result<()> {
    let figures = &found.figures;
    let Share { agreed, of, low, high, .. } = figures.agreement;
    writeln!(out, "\n{}", paint(STRONG, terminal::shortened(&found.bundle, width)))?;
    let mut line = |text: &str| writeln!(out, "  {}", wrap(text, 2, 4, width));
    line(&format!(
        "same winner at {agreed} of {of} positions (95 %: {:.2} to {:.2} %), where the reference is sure at {} of {}",
        100.0 * low,
        100.0 * high,
        figures.sure.agreed,
        figures.sure.of
    ))?;
    line(&format!("largest KL {} at position {}", digits::nats(figures.max_kl), figures.max_kl_position))?;
    found.failures.iter().try_for_each(|failure| line(&format!("failed: {failure}")))?;
    let mut columns = Columns::new(&["  tokens before", "mean KL", "agreement", "positions"]);
    for part in &figures.curve {
        columns.row(vec![
            format!("  {} to {}", part.first, part.last),
            digits::nats(part.mean_kl),
            format!("{:.2} %", 100.0 * part.agreement),
            digits::grouped(part.positions as u64),
        ]);
    }
    write!(out, "{}", columns.text(width))
}

fn percent(share: Share) -> String {
    digits::percent(share.agreed as u64, share.of as u64)
}
