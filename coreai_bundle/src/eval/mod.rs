//! How far bundles are from their checkpoint on a text.

mod record;
mod state;
mod store;
mod what_if;

use std::path::{Path, PathBuf};

use ::oracle::eval::bundle::{Found, measure};
use ::oracle::eval::logits::{LogitsFile, Subject};
use ::oracle::eval::report::{BundleFigures, ReferenceFigures, of_bundle, of_reference};
use ::oracle::eval::{DEFAULT_TEXT, WindowShape, Windows};
use ::oracle::file;
use ::oracle::reference::Reference;
use ::oracle::stepper::Stepper;
use ::oracle::text::Text;
use anyhow::{Context, bail};
use checkpoint::source::Source;
use converter::recipe::Treatment;
use packer::replace::Outputs;
use progress::Progress;
use report::Report;
use serde::Serialize;
use text::{counted, small};

use crate::reporting;
use crate::runnable::Runnable;
use state::State;
use store::Store;

/// Most bytes of a text.
const MAX_TEXT: u64 = 64 << 20;
/// Tokens of a window by default, if the model's context is not shorter.
const DEFAULT_WINDOW: usize = 512;
/// What the text that comes with the tool is called.
const DEFAULT_NAME: &str = "the default text";

/// What to evaluate, and on what.
#[derive(Clone, Debug, Default)]
pub struct EvalRequest {
    /// The bundles.
    pub bundles: Vec<Runnable>,
    /// Conversions of the checkpoint that are made for this, evaluated and deleted.
    pub what_ifs: Vec<Treatment>,
    /// The text; the one that comes with the tool otherwise.
    pub text: Option<EvalText>,
    /// Tokens of a window.
    pub window: Option<usize>,
    /// From window to window.
    pub stride: Option<usize>,
    /// Most positions to score.
    pub limit: Option<usize>,
    /// The checkpoint's logits from an earlier run.
    pub logits: Option<PathBuf>,
    /// Where to keep the checkpoint's logits.
    pub save_logits: Option<PathBuf>,
    /// Where to keep what is finished, so that the run can be continued.
    pub resume: Option<PathBuf>,
    /// Threads of conversions.
    pub threads: usize,
}

/// A text to evaluate on.
#[derive(Clone, Debug)]
pub enum EvalText {
    /// In a file, whose name it has.
    File(PathBuf),
    /// As it is.
    Given {
        /// What it is called.
        name: String,
        /// The text.
        content: String,
    },
}

impl EvalText {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Self::Given { name, .. } => name.clone(),
        }
    }

    fn read(&self) -> anyhow::Result<String> {
        match self {
            Self::File(path) => {
                small::read_text(path, MAX_TEXT).with_context(|| format!("cannot read {}", path.display()))
            }
            Self::Given { content, .. } => Ok(content.clone()),
        }
    }

    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Given { .. } => None,
        }
    }
}

/// What the means must keep, for CI.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Largest mean divergence, in nats.
    pub max_kl: Option<f64>,
    /// Least share of positions with the same winner.
    pub min_agreement: Option<f64>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// What the text is called.
    pub text: String,
    /// The checkpoint on it.
    pub reference: ReferenceFigures,
    /// The bundles on it.
    pub bundles: Vec<EvaluatedBundle>,
    /// Whether all of them kept the limits.
    pub passed: bool,
}

/// A bundle on a text.
#[derive(Clone, Debug, Serialize)]
pub struct EvaluatedBundle {
    /// Its name.
    pub bundle: String,
    /// What was found.
    #[serde(flatten)]
    pub figures: BundleFigures,
    /// Limits that it did not keep.
    pub failures: Vec<String>,
}

impl EvalRequest {
    /// Evaluates everything.
    ///
    /// # Errors
    /// If something cannot be read, run or written, belongs to something else, or the run is cancelled.
    pub fn run(
        &self,
        source: Option<&dyn Source>,
        limits: Limits,
        progress: &dyn Progress,
    ) -> anyhow::Result<Evaluation> {
        let mut store = Store::open(self, source)?;
        self.bundles.iter().try_for_each(|bundle| check_bundle(bundle, store.subject()))?;
        let mut state = State::open(self.resume.as_deref(), store.subject())?;
        let logits = store.logits(source, progress)?;
        let mut bundles = Vec::new();
        for runnable in &self.bundles {
            let name = name_of(&runnable.bundle)?;
            let key = state::key(runnable, &name)?;
            let figures = self.figures(&name, &key, &mut state, &logits, progress, || runnable.stepper())?;
            bundles.push(EvaluatedBundle::new(name, figures, limits));
        }
        if let (Some(source), false) = (source, self.what_ifs.is_empty()) {
            let mut conversions = what_if::TemporaryConversions::open(source, self.threads)?;
            for treatment in &self.what_ifs {
                let name = what_if::name(*treatment).to_owned();
                let stepper = || conversions.make(*treatment, progress);
                let figures =
                    self.figures(&name, &format!("rule {name}"), &mut state, &logits, progress, stepper)?;
                bundles.push(EvaluatedBundle::new(name, figures, limits));
            }
        }
        let reference = of_reference(&logits)?;
        let passed = bundles.iter().all(|bundle| bundle.failures.is_empty());
        state.remove()?;
        store.close()?;
        Ok(Evaluation { text: self.text_name(), reference, bundles, passed })
    }

    /// What is found about one bundle, which `stepper` opens unless an earlier run has finished it.
    fn figures(
        &self,
        name: &str,
        key: &str,
        state: &mut State,
        logits: &LogitsFile,
        progress: &dyn Progress,
        stepper: impl FnOnce() -> anyhow::Result<Stepper>,
    ) -> anyhow::Result<BundleFigures> {
        let mut results: Vec<Found> = state.results(key);
        if results.len() < logits.subject().windows.positions() {
            let stepper = stepper()?;
            progress.begin(name);
            let done = results.len();
            let measured = measure(stepper, logits, done, progress, &mut |first, found| {
                // Part of these windows may have been kept by the run that was cut off.
                let new = found.get(results.len().saturating_sub(first)..).unwrap_or_default();
                state.add(key, results.len(), new)?;
                results.extend(new);
                Ok(())
            });
            measured.with_context(|| name.to_owned())?;
        }
        Ok(of_bundle(logits, &results)?)
    }

    fn text_name(&self) -> String {
        self.text.as_ref().map_or_else(|| DEFAULT_NAME.to_owned(), EvalText::name)
    }

    /// The tokens of the text, up to the limit.
    fn tokens(&self, text: &Text) -> anyhow::Result<Vec<u32>> {
        let content = self.text.as_ref().map_or_else(|| Ok(DEFAULT_TEXT.to_owned()), EvalText::read)?;
        let mut tokens = text.encode(&content)?;
        if let Some(limit) = self.limit {
            tokens.truncate(limit.saturating_add(1));
        }
        Ok(tokens)
    }

    /// The text in windows: as typed, or else as `default` says.
    fn windows(&self, text: &Text, default: WindowShape) -> anyhow::Result<Windows> {
        let window = self.window.unwrap_or(default.window);
        let stride = self.stride.unwrap_or(if self.window.is_some() { window } else { default.stride });
        Ok(Windows::new(self.tokens(text)?, text.begin(), WindowShape { window, stride })?)
    }

    /// What the run is about, from the checkpoint.
    fn subject(&self, source: &dyn Source, reference: &Reference<'_>) -> anyhow::Result<Subject> {
        let text = Text::of_checkpoint(source)?;
        let longest = self.context(reference.config().max_positions)?;
        let window = DEFAULT_WINDOW.min(longest);
        let windows = self.windows(&text, WindowShape { window, stride: window })?;
        if windows.shape().window > longest {
            bail!(
                "--window {}: the model's context is {longest} positions; give that or fewer",
                windows.shape().window
            );
        }
        let vocab = reference.config().vocab;
        if let Some(token) = windows.tokens().iter().find(|token| **token as usize >= vocab) {
            bail!(
                "the tokenizer makes token {token}, which is outside the checkpoint's vocabulary of {vocab}"
            );
        }
        Ok(Subject { checkpoint: file::identity(source)?, tokenizer: text.digest(), vocab, windows })
    }

    /// What the run is about, without the checkpoint: what its logits are about, except for what was typed.
    fn subject_of(&self, logits: &LogitsFile) -> anyhow::Result<Subject> {
        let subject = logits.subject().clone();
        let has_text = self.text.is_some() || self.limit.is_some();
        if !has_text && self.window.is_none() && self.stride.is_none() {
            return Ok(subject);
        }
        let bundle = self.bundles.first().context("give a bundle to compare with --logits")?;
        let windows = self.windows(&bundle.text()?, subject.windows.shape())?;
        Ok(Subject { windows, ..subject })
    }

    /// Positions that the checkpoint and all bundles have.
    fn context(&self, model: usize) -> anyhow::Result<usize> {
        let mut shortest = model;
        for runnable in &self.bundles {
            let limit = runnable.max_context()?.and_then(|limit| usize::try_from(limit).ok());
            shortest = shortest.min(limit.unwrap_or(usize::MAX));
        }
        Ok(shortest)
    }

    /// What is read: outputs must not replace it.
    fn inputs(&self) -> impl Iterator<Item = PathBuf> {
        let bundles = self.bundles.iter().map(|runnable| runnable.bundle.clone());
        bundles.chain(self.text.as_ref().and_then(EvalText::path)).chain(self.logits.clone())
    }
}

/// Refuses a bundle with another tokenizer, or a shorter context than the windows.
fn check_bundle(runnable: &Runnable, subject: &Subject) -> anyhow::Result<()> {
    let bundle = runnable.bundle.display();
    if runnable.text()?.digest() != subject.tokenizer {
        bail!(
            "{bundle}: its tokenizer.json is not the checkpoint's, so their tokens cannot be compared: give the checkpoint that it was \
             made from"
        );
    }
    let window = subject.windows.shape().window;
    if let Some(limit) = runnable.max_context()?.filter(|limit| *limit < window as u64) {
        bail!(
            "{bundle}: its context is {limit} positions, the windows have {window}: give a smaller --window"
        );
    }
    Ok(())
}

/// The folder's own name, even if it was given as `.`.
fn name_of(bundle: &Path) -> anyhow::Result<String> {
    let whole = paths::resolve(bundle).with_context(|| format!("cannot find {}", bundle.display()))?;
    Ok(whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}

impl EvaluatedBundle {
    fn new(bundle: String, figures: BundleFigures, limits: Limits) -> Self {
        let mut failures = Vec::new();
        if figures.not_finite > 0 {
            failures
                .push(format!("logits are infinite or NaN at {}", counted(figures.not_finite, "position")));
        }
        if let Some(limit) = limits.max_kl.filter(|limit| figures.mean_kl > *limit) {
            failures.push(format!("the mean KL divergence is {:.2e}, above {limit:.2e}", figures.mean_kl));
        }
        if let Some(limit) = limits.min_agreement.filter(|limit| figures.agreement.share < *limit) {
            failures.push(format!("the agreement is {:.4}, below {limit}", figures.agreement.share));
        }
        EvaluatedBundle { bundle, figures, failures }
    }
}

impl Evaluation {
    /// Exit code of the command: 0 if all bundles keep the limits, 1 if not.
    pub fn exit_code(&self) -> u8 {
        u8::from(!self.passed)
    }

    /// Puts the figures into the manifest of each bundle, from where cards and pages take them.
    ///
    /// # Errors
    /// If a bundle has no manifest, or it cannot be written.
    pub fn record(&self, request: &EvalRequest) -> anyhow::Result<()> {
        request
            .bundles
            .iter()
            .zip(&self.bundles)
            .try_for_each(|(runnable, found)| record::write(self, found, &runnable.bundle))
    }

    /// Writes the page that shows the figures.
    ///
    /// # Errors
    /// If it must not be replaced, or cannot be written.
    pub fn write_page(&self, path: &Path, request: &EvalRequest) -> anyhow::Result<()> {
        let evaluations = self.bundles.iter().map(|found| record::facts(self, found)).collect();
        let names: Vec<&str> = self.bundles.iter().map(|found| found.bundle.as_str()).collect();
        let name = format!("Evaluation of {}", names.join(", "));
        let report = Report { name, tool: packer::TOOL.to_owned(), evaluations, ..Report::default() };
        reporting::write_page(&report, path, &Outputs::new(request.inputs(), true))
    }
}

pub(crate) use record::of_manifest;
