//! Finds the compiler and its version.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Serialize;

use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::process::{self, Captured, End};
use crate::program;

/// `xcrun` may rebuild its cache, which takes a while on a cold Mac.
const LIMIT: Duration = Duration::from_secs(120);

/// Where to look for the compiler.
#[derive(Clone, Default, Debug)]
pub struct ToolchainOptions {
    /// The `xcrun` to use; the one on `PATH` otherwise.
    pub xcrun: Option<PathBuf>,
    /// The Xcode to use (`DEVELOPER_DIR`); the environment's or the selected one otherwise.
    pub developer_dir: Option<PathBuf>,
}

impl ToolchainOptions {
    fn xcrun(&self) -> &Path {
        self.xcrun.as_deref().unwrap_or(Path::new("xcrun"))
    }

    /// A command that runs `xcrun` with the chosen Xcode.
    pub(crate) fn command(&self) -> Result<Command, Error> {
        let program = self.xcrun();
        let found = program::find(program);
        let mut command =
            Command::new(found.map_err(|source| Error::NoXcrun { program: program.into(), source })?);
        if let Some(folder) = &self.developer_dir {
            command.env("DEVELOPER_DIR", folder);
        }
        Ok(command)
    }

    /// What `xcrun` with `arguments` prints.
    pub(crate) fn ask(&self, arguments: &[&str], interrupt: &Interrupt) -> Result<Captured, Error> {
        let captured = process::capture(self.command()?.args(arguments), LIMIT, interrupt);
        let captured =
            captured.map_err(|source| Error::NoXcrun { program: self.xcrun().to_path_buf(), source })?;
        if captured.end == End::Interrupted {
            return Err(Error::Interrupted);
        }
        Ok(captured)
    }
}

/// A compiler that was found and reported its version.
#[derive(Clone, Debug, Serialize)]
pub struct Toolchain {
    /// The compiler, as `xcrun` resolves it.
    pub compiler: PathBuf,
    /// First line of `coreai-build --version`, such as `coreai-build 3600.79.1`.
    pub version: String,
    #[serde(skip)]
    options: ToolchainOptions,
    /// Whether `xcrun` finds the compiler only without its cache, which can predate the component's installation.
    #[serde(skip)]
    cache_is_stale: bool,
}

impl Toolchain {
    /// Asks `xcrun` for the compiler and the compiler for its version.
    ///
    /// # Errors
    /// [`Error::NoXcrun`], [`Error::NoCompiler`], [`Error::NoVersion`], [`Error::Interrupted`].
    pub fn find(options: &ToolchainOptions, interrupt: &Interrupt) -> Result<Self, Error> {
        let mut found = options.ask(&["--find", "coreai-build"], interrupt)?;
        let cache_is_stale = !found.succeeded();
        if cache_is_stale {
            found = options.ask(&["--no-cache", "--find", "coreai-build"], interrupt)?;
        }
        let compiler = PathBuf::from(found.stdout.trim_end_matches('\n'));
        if !found.succeeded() || !compiler.is_file() {
            return Err(Error::NoCompiler { xcrun: options.xcrun().into(), message: found.message() });
        }
        let version = Self::ask_version(&compiler, options, interrupt)?;
        Ok(Self { compiler, version, options: options.clone(), cache_is_stale })
    }

    fn ask_version(
        compiler: &Path,
        options: &ToolchainOptions,
        interrupt: &Interrupt,
    ) -> Result<String, Error> {
        let no_version = |message: String| Error::NoVersion { compiler: compiler.to_path_buf(), message };
        let mut command = Command::new(compiler);
        if let Some(folder) = &options.developer_dir {
            command.env("DEVELOPER_DIR", folder);
        }
        let answer = process::capture(command.arg("--version"), LIMIT, interrupt)
            .map_err(|e| no_version(e.to_string()))?;
        if answer.end == End::Interrupted {
            return Err(Error::Interrupted);
        }
        let line = answer.stdout.lines().map(str::trim).find(|line| !line.is_empty());
        match line {
            Some(line) if answer.succeeded() => Ok(line.chars().filter(|c| !c.is_control()).collect()),
            _ => Err(no_version(answer.message())),
        }
    }

    /// The compiler's own description of `compile`, for reports.
    pub(crate) fn help(&self, interrupt: &Interrupt) -> Result<String, Error> {
        let mut command = self.command()?;
        let answer = process::capture(command.args(["coreai-build", "compile", "--help"]), LIMIT, interrupt);
        let program = PathBuf::from(command.get_program());
        Ok(answer.map_err(|source| Error::NoXcrun { program, source })?.message())
    }

    /// A command that runs tools of this toolchain through `xcrun`.
    pub(crate) fn command(&self) -> Result<Command, Error> {
        let mut command = self.options.command()?;
        if self.cache_is_stale {
            command.arg("--no-cache");
        }
        Ok(command)
    }
}

/// State of Xcode's Metal Toolchain component.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum MetalToolchain {
    /// Installed, with its build version if that is reported.
    Installed(String),
    /// Not installed, with what `xcodebuild` says.
    Missing(String),
}

impl MetalToolchain {
    pub(crate) fn ask(options: &ToolchainOptions, interrupt: &Interrupt) -> Result<Self, Error> {
        let answer = options.ask(&["xcodebuild", "-showComponent", "MetalToolchain"], interrupt)?;
        let field = |name: &str| {
            let value = |line: &str| Some(line.trim().strip_prefix(name)?.trim().to_owned());
            answer.stdout.lines().find_map(value)
        };
        // An update may be offered for one that is installed.
        Ok(match field("Status:") {
            Some(status) if status.starts_with("installed") => {
                Self::Installed(field("Build Version:").unwrap_or(status))
            }
            Some(status) => Self::Missing(status),
            None => Self::Missing(answer.message()),
        })
    }
}
