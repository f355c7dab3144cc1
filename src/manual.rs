//! `coreai-bundle completions` and `coreai-bundle man`: completions for shells and pages for `man`, made from the definition of the arguments.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use coreai_bundle::parts::output::{KeepExisting, StagedDirectory};

use crate::cli::Cli;
use crate::terminal;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  coreai-bundle completions bash > ~/.local/share/bash-completion/completions/coreai-bundle
  coreai-bundle completions zsh > ~/.zfunc/_coreai-bundle
  coreai-bundle completions fish > ~/.config/fish/completions/coreai-bundle.fish")]
pub(crate) struct CompletionArguments {
    /// Shell
    shell: Shell,
}

/// Write the manual pages into a new folder
#[derive(Debug, Args)]
#[command(after_help = "Example:
  coreai-bundle man man1 && man ./man1/coreai-bundle-convert.1")]
pub(crate) struct ManArguments {
    /// Folder to make
    folder: PathBuf,
}

/// Prints completions.
pub(crate) fn completions(arguments: &CompletionArguments) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(arguments.shell, &mut command, env!("CARGO_PKG_NAME"), &mut text);
    terminal::out().write_all(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages.
pub(crate) fn man(arguments: &ManArguments) -> anyhow::Result<ExitCode> {
    let folder = StagedDirectory::new(&arguments.folder, KeepExisting)?;
    clap_mangen::generate_to(Cli::command(), folder.path())
        .with_context(|| format!("cannot write into {}", folder.path().display()))?;
    folder.commit()?;
    Ok(ExitCode::SUCCESS)
}
