//! What somebody with a Mac can run: the bare commands, or a script that checks its own work.

use std::path::{Path, PathBuf};
use std::time::Duration;

use output::Digest;
use packer::TOOL;
use serde::Deserialize;
use text::small;

use crate::architecture::Architecture;
use crate::artifact::least_bytes;
use crate::compile::{CompileSettings, artifact_name};
use crate::error::Error;
use crate::log::METAL_TOOLCHAIN_HINT;
use crate::shell;
use crate::source::SourceBundle;
use crate::stage::{CompileRequest, Stage};

const BODY: &str = include_str!("script/compile.sh");
const PLACE_HINT: &str = "pass the bundle's folder as the first argument";

/// The compiler's command line for one architecture, with this machine's paths. It writes into the folder
/// `compiled` beside the siblings.
pub(crate) fn command_line(stage: &Stage, architecture: &Architecture) -> String {
    let package = stage.source.package_path();
    let output = compiled_folder(stage);
    let arguments = stage.request.settings.arguments(package.as_os_str(), output.as_os_str(), architecture);
    format!("xcrun {}", shell::join(arguments))
}

fn compiled_folder(stage: &Stage) -> PathBuf {
    let parent = stage.request.output.as_deref().or(stage.source.path.parent());
    parent.unwrap_or(Path::new("/")).join("compiled")
}

/// The commands to do manually what the stage does: compile, compare digests, make the siblings.
///
/// # Errors
/// [`Error::HasPrefill`].
pub fn commands(stage: &Stage) -> Result<String, Error> {
    stage.require_whole()?;
    let output = compiled_folder(stage);
    let mut lines = vec![format!("mkdir -p {}", shell::join([&output]))];
    for architecture in &stage.request.architectures {
        let artifact = output.join(artifact_name(&stage.source.stem, architecture));
        let file = |name: &str| shell::join([artifact.join(name)]);
        lines.push(command_line(stage, architecture));
        lines.push("# The two digests must be equal: the compiler exits 0 for some failures.".into());
        lines.push(format!("shasum -a 256 < {}", file(&format!("main-{architecture}.mlirb"))));
        lines.push(format!("xxd -p -c 32 {}", file("main.hash")));
        let bundle = shell::join([&stage.source.path]);
        let artifact = shell::join([&artifact]);
        lines.push(format!("coreai-bundle aotc {bundle} --arch {architecture} --artifact {artifact}"));
    }
    Ok(lines.join("\n") + "\n")
}

/// A bash script for a Mac that compiles the bundle's graph, checks source and artifacts, and leaves each artifact
/// with a record of how it was made ([`CompileRecord`]). Arguments: the bundle (beside the script otherwise), the
/// output folder (the current one otherwise).
///
/// # Errors
/// [`Error::Unprintable`] for names with control characters; [`Error::HasPrefill`].
pub fn script(stage: &Stage) -> Result<String, Error> {
    stage.require_whole()?;
    let CompileRequest { architectures, settings, timeout, .. } = &stage.request;
    text(&stage.source, architectures, settings, *timeout)
}

pub(crate) fn text(
    source: &SourceBundle,
    architectures: &[Architecture],
    settings: &CompileSettings,
    timeout: Duration,
) -> Result<String, Error> {
    if source.name.chars().chain(source.stem.chars()).any(char::is_control) {
        return Err(Error::Unprintable {
            path: source.package_path(),
            reason: "its name has a control character",
        });
    }
    Ok(format!(
        "#!/bin/bash\n\
         # Compiles a Core AI graph ahead of time, on a Mac with Xcode 27 and its Metal Toolchain.\n\
         # usage: compile.sh [BUNDLE [OUTPUT]]\n\
         # Written by {TOOL}. XCRUN names another xcrun, DEVELOPER_DIR another Xcode.\n\
         # Names and hints below are meant literally.\n# shellcheck disable=SC2016\n\
         set -euo pipefail\n\n\
         bundle_name={}\nstem={}\nmain_sha256={}\narchitectures=({})\nplatform={}\ncommon_options=({})\n\
         least_bytes={}\nneeded_kilobytes={}\nlimit_seconds={}\ntoolchain_hint={}\nplace_hint={}\n\n{BODY}",
        shell::quote(&source.name),
        shell::quote(&source.stem),
        source.program_sha256,
        shell::join(architectures.iter().map(Architecture::as_str)),
        settings.platform,
        shell::join(settings.common_options()),
        least_bytes(source.package_bytes()),
        source.needed_bytes() / 1024,
        timeout.as_secs(),
        shell::quote(METAL_TOOLCHAIN_HINT),
        shell::quote(PLACE_HINT),
    ))
}

/// What the script records of a compile, beside the artifact as `<stem>.<arch>.compile.json`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct CompileRecord {
    /// First line of `coreai-build --version`.
    pub compiler: String,
    /// Options of the compile; see [`crate::Settings::options`].
    pub options: Vec<String>,
    /// Digest of the program that was compiled.
    pub source_main_sha256: Digest,
    /// Digest of `main-<arch>.mlirb`.
    pub program_sha256: Digest,
    /// Time of the compile.
    pub seconds: u64,
    /// Name and version of the Mac's system.
    pub host: String,
}

impl CompileRecord {
    /// Reads the record beside `artifact`; None where there is none.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn beside(artifact: &Path) -> Result<Option<Self>, Error> {
        let path = artifact.with_extension("compile.json");
        let bytes = match small::read(&path, small::JSON) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read", &path)(e)),
        };
        let record = serde_json::from_slice(&bytes);
        record
            .map(Some)
            .map_err(|e| Error::io("read", &path)(std::io::Error::new(std::io::ErrorKind::InvalidData, e)))
    }
}
