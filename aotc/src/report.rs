//! One JSON file about what a toolchain did, to attach to an issue.
//!
//! No one who works on this project has run the compiler, so its behavior becomes known from reports of people with a Mac.

use std::path::Path;

use serde::Serialize;

use packer::TOOL;
use packer::manifest::FileRecord;

use crate::doctor::{self, Check};
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::stage::{CompileOutcome, Stage};
use crate::toolchain::Toolchain;

/// Version of the schema below.
const VERSION: u32 = 1;

/// Everything about one run that others can learn from. Paths of the home folder are shortened to `~`.
#[derive(Debug, Serialize)]
pub struct CompileReport {
    report: u32,
    tool: &'static str,
    host: Host,
    /// What the machine can do.
    checks: Vec<Check>,
    toolchain: Option<ToolchainReport>,
    source: Option<SourceReport>,
    artifacts: Vec<ArtifactReport>,
    /// Why there are fewer artifacts than were asked for.
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Host {
    os: &'static str,
    architecture: &'static str,
    version: Option<String>,
    model: Option<String>,
}

#[derive(Debug, Serialize)]
struct ToolchainReport {
    compiler: String,
    version: String,
    /// The compiler's own description of its options.
    help: String,
}

#[derive(Debug, Serialize)]
struct SourceReport {
    name: String,
    bytes: u64,
    main_sha256: String,
    options: Vec<Vec<String>>,
}

#[derive(Debug, Serialize)]
struct ArtifactReport {
    architecture: String,
    /// Time of the compile; null for an artifact that was up to date.
    seconds: Option<f64>,
    files: Vec<FileRecord>,
}

impl CompileReport {
    /// The report of a machine, before anything was compiled.
    ///
    /// # Errors
    /// [`Error::Interrupted`].
    pub fn new(checks: Vec<Check>, interrupt: &Interrupt) -> Result<Self, Error> {
        let version = match doctor::answer_of(&["sw_vers"], interrupt)? {
            Some(version) => Some(version),
            None => doctor::answer_of(&["uname", "-sr"], interrupt)?,
        };
        let host = Host {
            os: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
            version,
            model: doctor::answer_of(&["sysctl", "-n", "hw.model"], interrupt)?,
        };
        Ok(Self {
            report: VERSION,
            tool: TOOL,
            host,
            checks,
            toolchain: None,
            source: None,
            artifacts: Vec::new(),
            error: None,
        })
    }

    /// Adds the toolchain.
    ///
    /// # Errors
    /// When it cannot be run for its help text.
    pub fn add_toolchain(&mut self, toolchain: &Toolchain, interrupt: &Interrupt) -> Result<(), Error> {
        self.toolchain = Some(ToolchainReport {
            compiler: toolchain.compiler.display().to_string(),
            version: toolchain.version.clone(),
            help: toolchain.help(interrupt)?,
        });
        Ok(())
    }

    /// Adds what a run did.
    pub fn add_outcome(&mut self, stage: &Stage, outcome: &CompileOutcome) {
        let source = stage.source();
        let options = |architecture| stage.request.settings.options(architecture);
        self.source = Some(SourceReport {
            name: source.name.clone(),
            bytes: source.package_bytes(),
            main_sha256: source.program_sha256.to_string(),
            options: stage.request.architectures.iter().map(options).collect(),
        });
        self.artifacts = outcome
            .siblings
            .iter()
            .map(|sibling| ArtifactReport {
                architecture: sibling.architecture.to_string(),
                seconds: sibling.compiled_in.map(|time| time.as_secs_f64()),
                files: sibling.artifact.as_ref().map(|artifact| artifact.files.clone()).unwrap_or_default(),
            })
            .collect();
        if let Some((_, error)) = &outcome.failure {
            self.add_error(error);
        }
    }

    /// Adds what stopped the run.
    pub fn add_error(&mut self, error: &Error) {
        self.error = Some(error.to_string());
    }

    /// The file's text, with `home` shortened to `~` wherever it appears.
    ///
    /// # Errors
    /// Never for the values that a report holds.
    pub fn to_json(&self, home: Option<&Path>) -> Result<String, serde_json::Error> {
        let mut value = serde_json::to_value(self)?;
        if let Some(home) = home.and_then(Path::to_str).filter(|home| home.len() > 1) {
            shorten(&mut value, home);
        }
        Ok(serde_json::to_string_pretty(&value)? + "\n")
    }
}

fn shorten(value: &mut serde_json::Value, home: &str) {
    match value {
        serde_json::Value::String(text) => *text = text.replace(home, "~"),
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| shorten(item, home)),
        serde_json::Value::Object(entries) => entries.values_mut().for_each(|entry| shorten(entry, home)),
        _ => {}
    }
}
