//! What can go wrong, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aimodel::package::PackageError;
use output::StagingError;
use packer::FileError;
use packer::metadata::MetadataError;

use crate::architecture::{Architecture, DEVICES, Platform};
use crate::log::{KnownFault, LogExcerpt, METAL_TOOLCHAIN_HINT};

/// An ahead-of-time stage that did not succeed. Nothing incomplete is left behind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a platform's name.
    #[error("'{name}' is not a platform: ios or macos")]
    UnknownPlatform {
        /// As typed.
        name: String,
    },
    /// Text that no architecture could have.
    #[error("'{name}' is not an architecture: lower-case letters and digits such as h18p")]
    BadArchitecture {
        /// As typed.
        name: String,
    },
    /// An architecture that is not known for the platform.
    #[error("architecture '{name}' is not known for {platform}; known are {}", platform.architectures().join(", "))]
    UnknownArchitecture {
        /// As typed.
        name: String,
        /// The platform that was asked for.
        platform: Platform,
        /// The platform that has it.
        other: Option<Platform>,
    },
    /// A device whose architecture is not documented.
    #[error("the architecture of device '{name}' is not known; known devices are {}", known_devices())]
    UnknownDevice {
        /// As typed.
        name: String,
    },
    /// A value that is not a version.
    #[error("'{value}' is not an OS version: digits and dots such as 27.0")]
    BadVersion {
        /// As typed.
        value: String,
    },
    /// Not a compute unit.
    #[error("'{value}' is not a compute unit: gpu, neural-engine or none")]
    BadCompute {
        /// As typed.
        value: String,
    },
    /// No architecture was asked for.
    #[error("no architecture given")]
    NoArchitecture,

    /// The folder is not a bundle to compile.
    #[error("{} cannot be compiled: {reason}", path.display())]
    NotCompilable {
        /// The bundle.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// The source package does not match its own digest.
    #[error("{} is damaged: its SHA-256 is {found}, but main.hash says {expected}", path.display())]
    DamagedSource {
        /// The program.
        path: PathBuf,
        /// From `main.hash`.
        expected: String,
        /// Of the file.
        found: String,
    },
    /// The source's graph cannot be read, or a copy of it not written.
    #[error(transparent)]
    Program(#[from] PackageError),
    /// A `prefill` function that must be left out, where this program does not run the compiler.
    #[error(
        "{} has a prefill function, which is left out of graphs for iOS: on betas of iOS 27, functions that take several tokens \
         were reported to crash", path.display()
    )]
    HasPrefill {
        /// The bundle.
        path: PathBuf,
    },
    /// Too little disk space for the compile.
    #[error("{} has {} free, but compiling needs about {}", path.display(), gigabytes(*available), gigabytes(*needed))]
    DiskSpace {
        /// Where.
        path: PathBuf,
        /// Bytes that the compile may need.
        needed: u64,
        /// Bytes that are free.
        available: u64,
    },

    /// No `xcrun`.
    #[error("{} cannot be run: {source}", program.display())]
    NoXcrun {
        /// The operation.
        program: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// `xcrun` does not find the compiler.
    #[error("{} does not find coreai-build: {message}", xcrun.display())]
    NoCompiler {
        /// The `xcrun` that was asked.
        xcrun: PathBuf,
        /// Its message.
        message: String,
    },
    /// The compiler does not report its version.
    #[error("{} --version printed no version: {message}", compiler.display())]
    NoVersion {
        /// The compiler.
        compiler: PathBuf,
        /// Its message.
        message: String,
    },

    /// The compiler reported a failure.
    #[error("coreai-build failed for {architecture} ({status}){log}")]
    CompileFailed {
        /// For which it compiled.
        architecture: Architecture,
        /// Exit code or signal.
        status: String,
        /// What it printed.
        log: Box<LogExcerpt>,
    },
    /// The compiler reported success and wrote no artifact for the architecture.
    #[error("coreai-build exited 0 but wrote no {expected}{}{log}", but_wrote(found))]
    NoArtifact {
        /// The artifact's folder name.
        expected: String,
        /// What it wrote instead.
        found: Vec<String>,
        /// What it printed.
        log: Box<LogExcerpt>,
    },
    /// The compiler reported success and the artifact is not usable.
    #[error("coreai-build exited 0 but {name} is not usable:{}{log}", list(defects))]
    BadArtifact {
        /// The artifact's folder name.
        name: String,
        /// What is wrong with it.
        defects: Vec<String>,
        /// What it printed.
        log: Box<LogExcerpt>,
    },
    /// An artifact from elsewhere is not usable.
    #[error("{} is not usable:{}", path.display(), list(defects))]
    BadForeignArtifact {
        /// The artifact.
        path: PathBuf,
        /// What is wrong with it.
        defects: Vec<String>,
    },
    /// The compile took too long and was stopped.
    #[error("coreai-build was stopped for {architecture} after {} seconds{log}", limit.as_secs())]
    TimedOut {
        /// For which it compiled.
        architecture: Architecture,
        /// The limit.
        limit: Duration,
        /// What it printed.
        log: Box<LogExcerpt>,
    },
    /// Ctrl-C.
    #[error("interrupted; what was unfinished has been removed")]
    Interrupted,

    /// A remote machine that cannot be used, or a connection that broke too often.
    #[error("{host}: {message}")]
    Remote {
        /// The machine.
        host: String,
        /// What happened.
        message: String,
        /// What to do about it.
        hint: &'static str,
    },
    /// A connection that failed at every attempt. What was transferred is kept on the other machine.
    #[error("the connection to {host} failed {attempts} times: {message}")]
    ConnectionLost {
        /// The machine.
        host: String,
        /// Number of attempts.
        attempts: u32,
        /// What `ssh` or `rsync` said.
        message: String,
    },
    /// A path that cannot be put into a script.
    #[error("{} cannot be put into a script: {reason}", path.display())]
    Unprintable {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },

    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bundle's metadata could not be read or written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// The output could not be staged or published.
    #[error(transparent)]
    Staging(#[from] StagingError),
}

impl Error {
    /// For `map_err`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }

    /// What the user can do, where the message does not say it already.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::UnknownArchitecture { other: Some(platform), .. } => {
                return Some(format!(
                    "it is an architecture of {platform}: add --platform {}",
                    platform.name().to_ascii_lowercase()
                ));
            }
            Self::UnknownArchitecture { other: None, .. } => {
                "the compiler exits 0 for any name, and a device refuses another's artifact: check the name, or pass \
                 --force if it is newer than this program"
            }
            Self::UnknownDevice { .. } => {
                "pass --arch instead; `AIModel.deviceArchitectureName` returns it on the device"
            }
            Self::NoArchitecture => "pass --arch h18p for an iPhone 17 Pro, or --device",
            Self::DamagedSource { .. } => "write the bundle again, or copy it again",
            Self::Program(_) => "pass --keep-prefill to compile the graph as it is",
            Self::HasPrefill { .. } => {
                "convert again with --prefill none and compile that bundle, or pass --keep-prefill to compile the function too"
            }
            Self::DiskSpace { .. } => "free some space or choose another disk with -o",
            Self::NoXcrun { .. } => {
                "the compiler exists on a Mac with Xcode 27 only; from another machine use --ssh, --script or \
                 --github-workflow"
            }
            Self::NoCompiler { .. } | Self::NoVersion { .. } => METAL_TOOLCHAIN_HINT,
            Self::CompileFailed { log, .. }
            | Self::NoArtifact { log, .. }
            | Self::BadArtifact { log, .. } => log.fault?.hint(),
            Self::BadForeignArtifact { .. } => {
                "compile again, or copy it again: `rsync -rt` keeps every file"
            }
            Self::TimedOut { .. } => "pass a larger --timeout if the compiler was still at work",
            Self::Remote { hint, .. } => hint,
            Self::ConnectionLost { .. } => {
                "check that `ssh` to it works without asking for anything; what was transferred is kept there, and the same \
                 command continues with it"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Whether the machine or the compiler is at fault, and not the user's input. For errors of the system, their kind decides.
    pub fn blames_the_machine(&self) -> bool {
        match self {
            Self::CompileFailed { log, .. }
            | Self::NoArtifact { log, .. }
            | Self::BadArtifact { log, .. } => !log.fault.is_some_and(KnownFault::is_the_users),
            Self::NoVersion { .. } | Self::DiskSpace { .. } => true,
            _ => false,
        }
    }
}

fn known_devices() -> String {
    DEVICES.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn list(defects: &[String]) -> String {
    defects.iter().map(|defect| format!("\n  - {defect}")).collect()
}

fn but_wrote(found: &[String]) -> String {
    if found.is_empty() { String::new() } else { format!(" but {}", found.join(", ")) }
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
