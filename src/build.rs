//! `coreai-bundle build`: a whole release from a recipe.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::build::{BuildOutcome, BuildRecipe, BuildRequest, BuildWatchers, Step, StepState};
use coreai_bundle::convert::Watchers;
use serde_json::json;

use crate::progress::{Bar, Lines};
use crate::terminal::{self, GREEN, YELLOW, paint};
use crate::{interrupt, origin, template};

/// Make a whole release from a recipe
///
/// The recipe names the checkpoint and says which bundles to make and how, how they are compared with it, what is compiled ahead
/// of time, and where the release may be published. A build that was cut off continues when the same command is run again;
/// what is there with the right digests is kept. The release's manifest holds the recipe and the commit: built from it, the
/// release has the same bytes. `coreai-bundle init` writes a recipe to start from.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle init google/gemma-4-E4B-it-qat-q4_0-unquantized
  coreai-bundle build gemma4_e4b_qat.toml -o out
  coreai-bundle build out/release/manifest.json -o again")]
pub(crate) struct Arguments {
    /// Recipe, or the manifest of a release that a recipe made
    recipe: PathBuf,
    /// Folder to put the outputs into [default: ./NAME-coreai]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// The checkpoint, instead of the one that the recipe names
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Publish the release to the repository that the recipe names
    #[arg(long)]
    publish: bool,
    /// Replace outputs that another command made; what this tool did not write stays
    #[arg(long)]
    force: bool,
    /// Threads to use [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let request = BuildRequest {
        recipe: BuildRecipe::read(&arguments.recipe)?,
        source: arguments.source.clone(),
        output: arguments.output.clone(),
        publish: arguments.publish,
        force: arguments.force,
        threads: arguments.threads.map_or_else(cores, NonZeroUsize::get),
    };
    interrupt::listen()?;
    let (bytes, positions) = (Bar::or_events("tensor"), Bar::of_positions());
    let (work, downloads) = (Bar::of_work(), Bar::of_bytes());
    let outcome = request.run(BuildWatchers {
        steps: &Lines,
        work: &work,
        conversion: Watchers { bytes: &bytes, positions: &positions, render: &template::render },
        opener: origin::opener(&downloads),
    });
    if outcome.is_err() && interrupt::asked() {
        terminal::tell("what was finished is kept: the same command continues");
    }
    let outcome = outcome?;
    if terminal::is_json() {
        terminal::print_json(&json!({"event": "done", "build": outcome}))?;
    } else {
        print(&outcome, terminal::width(), &mut terminal::out())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each output and each step that made none: what it is, and what was measured or why it was not run.
fn print(outcome: &BuildOutcome, width: usize, out: &mut impl Write) -> io::Result<()> {
    for Step { name, state, facts } in &outcome.steps {
        let (word, facts) = match state {
            StepState::Made => (paint(GREEN, "made   "), facts.join(", ")),
            StepState::Kept => ("kept   ".to_owned(), facts.join(", ")),
            StepState::NotRun(reason) => (paint(YELLOW, "not run"), reason.clone()),
        };
        writeln!(out, "{word}  {}", terminal::shortened(name, width.saturating_sub(9)))?;
        if !facts.is_empty() {
            writeln!(out, "         {}", terminal::wrap(&facts, 9, 9, width))?;
        }
    }
    writeln!(out, "{}  release", outcome.release.display())
}
