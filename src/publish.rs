//! `coreai-bundle publish`: a release tree as a repository of the Hub.

use coreai_bundle::parts::hub;
use coreai_bundle::parts::text::counted;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use coreai_bundle::parts::hub::upload::{Comparison, FileState, LocalFile, PublishTarget, Published};
use coreai_bundle::parts::hub::{RepositoryId, Settings};
use coreai_bundle::publish::{self, Checked};
use serde_json::json;

use crate::progress::Bar;
use crate::terminal::{self, GREEN, STRONG, YELLOW, paint};
use crate::{digits, interrupt, template};

/// What a dry run ends with.
const NOTHING_SENT: &str = "nothing was sent: --dry-run";

/// Publish a release tree on the Hub, in one commit
///
/// The tree is checked first, as `check` does, and refused if it has defects. Then it is compared with what the repository
/// holds: what is new or changed is sent, in chunks that the Hub's storage does not have, and what exists only on the Hub stays. An upload
/// that was cut off continues where it was when it is run again. Afterwards every digest that the Hub reports is compared with what is here.
#[derive(Debug, Args)]
#[command(
    after_help = "The token is the one from HF_TOKEN, HF_TOKEN_PATH or `hf auth login`, and must have write access.

Example:
  coreai-bundle publish release --repo-id me/gemma-4-E4B-it-coreai --private"
)]
pub(crate) struct Arguments {
    /// Release tree that `coreai-bundle release` made
    folder: PathBuf,
    /// Repository to publish to; created if it does not exist
    #[arg(long, value_name = "USER/NAME")]
    repo_id: String,
    /// Make a new repository private, and refuse to publish to one that is public
    #[arg(long)]
    private: bool,
    /// Open a pull request, instead of changing the branch
    #[arg(long)]
    pr: bool,
    /// Branch to publish to, which must exist
    #[arg(long, value_name = "BRANCH", default_value = "main")]
    revision: String,
    /// First line of the commit's message [default: one that names the release and the tool]
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Show what is new, changed and equal, and send nothing; without the network, list the files
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let id = RepositoryId::new(&arguments.repo_id)?;
    publish::refuse_archive(&arguments.folder)?;
    let client = match arguments.dry_run {
        true => publish::reader(interrupt::asked)?,
        false => Some(publish::client(interrupt::asked)?),
    };
    let release = Checked::new(&arguments.folder, &template::render)?;
    // Up to here a signal can simply end the process.
    interrupt::listen()?;
    let target = PublishTarget {
        id: &id,
        revision: &arguments.revision,
        private: arguments.private,
        pull_request: arguments.pr,
        message: arguments.message.as_deref().unwrap_or(&release.message),
    };
    let files = &release.files;
    let Some(client) = client else { return list(&id, files, "HF_HUB_OFFLINE is set") };
    let comparison = match release.compare(&client, &target) {
        Err(error) if arguments.dry_run && is_unreachable(&error) => {
            return list(&id, files, &error.to_string());
        }
        compared => compared?,
    };
    if !terminal::is_json() {
        print_comparison(&mut terminal::out(), &id, client.settings(), files, &comparison)?;
    }
    let send = || release.send(&client, &target, &comparison, &Bar::or_events("file"));
    let published = (!arguments.dry_run).then(send).transpose()?;
    if terminal::is_json() {
        print_json(&id, files, &comparison, published.as_ref())?;
    } else {
        print_result(&mut terminal::out(), client.settings(), &target, published.as_ref())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn is_unreachable(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(hub::Error::NoNetwork { .. }))
}

/// Shows what would be published, if the Hub cannot be asked what it has.
fn list(id: &RepositoryId, files: &[LocalFile], reason: &str) -> anyhow::Result<ExitCode> {
    if terminal::is_json() {
        let paths: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let result = json!({"repository": id.as_str(), "files": paths, "not_compared": reason});
        terminal::print_json(&json!({"event": "done", "publish": result}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = terminal::out();
    for file in files {
        let path = terminal::shortened(&file.path, terminal::width().saturating_sub(12));
        writeln!(out, "{:>10}  {path}", digits::bytes(file.size))?;
    }
    let bytes = digits::bytes(files.iter().map(|file| file.size).sum());
    writeln!(
        out,
        "{}: {} ({bytes}), not compared: {reason}",
        paint(STRONG, id),
        counted(files.len(), "file")
    )?;
    writeln!(out, "{NOTHING_SENT}")?;
    Ok(ExitCode::SUCCESS)
}

/// How many files are in a state.
fn count(comparison: &Comparison, state: FileState) -> usize {
    comparison.states.iter().filter(|found| **found == state).count()
}

fn print_comparison(
    out: &mut impl Write,
    id: &RepositoryId,
    settings: &Settings,
    files: &[LocalFile],
    comparison: &Comparison,
) -> io::Result<()> {
    // What precedes a path has 20 columns.
    let width = terminal::width().saturating_sub(20);
    let mut line = |word: String, size: u64, path: &str| {
        writeln!(out, "{word} {:>10}  {}", digits::bytes(size), terminal::shortened(path, width))
    };
    for (file, state) in files.iter().zip(&comparison.states) {
        let word = match state {
            FileState::New => paint(GREEN, "new    "),
            FileState::Changed => paint(YELLOW, "changed"),
            FileState::Equal => "equal  ".to_owned(),
        };
        line(word, file.size, &file.path)?;
    }
    for entry in &comparison.only_there {
        line("stays  ".to_owned(), entry.size, &entry.path)?;
    }
    let [new, changed, equal] =
        [FileState::New, FileState::Changed, FileState::Equal].map(|s| count(comparison, s));
    let stays = comparison.only_there.len();
    let is_new = match (&comparison.head, &settings.token) {
        (Some(_), _) => "",
        (None, Some(_)) => " (not there yet)",
        (None, None) => " (not there yet, or not public: there is no token)",
    };
    let id = paint(STRONG, id);
    writeln!(out, "{id}{is_new}: {new} new, {changed} changed, {equal} equal, {stays} on the Hub only")
}

fn print_result(
    out: &mut impl Write,
    settings: &Settings,
    target: &PublishTarget<'_>,
    published: Option<&Published>,
) -> io::Result<()> {
    let Some(published) = published else { return writeln!(out, "{NOTHING_SENT}") };
    let Some(commit) = &published.commit else {
        return writeln!(out, "nothing was sent: the Hub has every file already");
    };
    let Published { sent, sent_bytes, known_bytes, transferred_bytes, held, inline, .. } = published;
    let [bytes, known, transferred] = [sent_bytes, known_bytes, transferred_bytes].map(|b| digits::bytes(*b));
    writeln!(
        out,
        "sent {sent} large files ({bytes}) and {inline} small ones; {held} large ones were there already"
    )?;
    if *sent > 0 {
        writeln!(
            out,
            "the storage had {known} of the large files; {transferred} were transferred for the rest"
        )?;
    }
    writeln!(out, "every file has the same digest on the Hub as here")?;
    match &published.pull_request {
        Some(address) => writeln!(out, "{address}"),
        None => writeln!(out, "{}/{}/commit/{commit}", settings.public_endpoint(), target.id),
    }
}

fn print_json(
    id: &RepositoryId,
    files: &[LocalFile],
    comparison: &Comparison,
    published: Option<&Published>,
) -> io::Result<()> {
    let of = |state: FileState| -> Vec<&str> {
        let found = files.iter().zip(&comparison.states).filter(|(_, found)| **found == state);
        found.map(|(file, _)| file.path.as_str()).collect()
    };
    let stays: Vec<&str> = comparison.only_there.iter().map(|entry| entry.path.as_str()).collect();
    let result = json!({
        "repository": id.as_str(),
        "new": of(FileState::New),
        "changed": of(FileState::Changed),
        "equal": of(FileState::Equal),
        "stays": stays,
        "published": published,
    });
    terminal::print_json(&json!({"event": "done", "publish": result}))
}
