//! `cargo xtask dist`: the release archive.

mod archive;
mod install;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::workspace::{cargo, root, run, target};

/// What to build, and where to put it.
#[derive(Args)]
pub(crate) struct Options {
    /// Cargo profile to build with
    #[arg(long, default_value = "dist", conflicts_with = "binary")]
    profile: String,
    /// Pack this existing binary, instead of building one
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Target triple in the archive's name [default: that of this machine]
    #[arg(long, value_name = "TRIPLE")]
    triple: Option<String>,
    /// Folder to put the archive into
    #[arg(short, long, value_name = "DIR", default_value = "target/dist")]
    output: PathBuf,
}

/// Builds the binary, unless it is given, and packs it with all that belongs to it.
pub(crate) fn run_with(options: &Options) -> Result<()> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => build(&options.profile)?,
    };
    let triple = options.triple.clone().map_or_else(host, Ok)?;
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, not a number"))?,
        Err(_) => 0,
    };
    let output = root().join(&options.output);
    fs::create_dir_all(&output).with_context(|| format!("cannot make {}", output.display()))?;
    let archive = archive::pack(&binary, root(), &triple, seconds, &output)?;
    println!("{}  {} bytes", archive.display(), archive.metadata()?.len());
    Ok(())
}

/// Where the archives are.
#[derive(Args)]
pub(crate) struct InstallOptions {
    /// Folder with the release archives of all targets; the files are written into it
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    archives: PathBuf,
}

/// Writes the Homebrew formula and the container file for this version's archives.
pub(crate) fn write_install_files(options: &InstallOptions) -> Result<()> {
    let folder = root().join(&options.archives);
    let version = env!("CARGO_PKG_VERSION");
    let files = [
        ("coreai-bundle.rb", install::formula(&folder, version)?),
        ("Containerfile", install::container(&folder, version)?),
    ];
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}

fn build(profile: &str) -> Result<PathBuf> {
    run(&mut cargo(["build", "--locked", "--package", "coreai-bundle", "--profile", profile]))?;
    // Cargo's own name for the folder of its profile `dev`.
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(target().join(folder).join("coreai-bundle"))
}

/// Triple of this machine, as the compiler reports it.
fn host() -> Result<String> {
    let output =
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("-vV").output();
    let output = output.context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(triple) => Ok(triple.to_owned()),
        None => bail!("rustc -vV does not name the host; give --triple"),
    }
}
