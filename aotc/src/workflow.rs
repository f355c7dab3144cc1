//! A workflow for a hosted Mac: downloads a published bundle, compiles, checks and publishes.

use packer::TOOL;
use text::markup::quoted_yaml;

use crate::architecture::Architecture;
use crate::compile::CompileSettings;
use crate::error::Error;
use crate::shell;
use crate::stage::DEFAULT_TIMEOUT;

const TEMPLATE: &str = include_str!("workflow/aotc.yml");
/// Time for downloads, uploads and the toolchain's installation, besides the compiles.
const EXTRA_MINUTES: u64 = 60;
/// No hosted job may take longer.
const MOST_MINUTES: u64 = 360;

/// What the workflow starts with. Repository, bundle and architectures can be changed when it is run.
#[derive(Clone, Debug)]
pub struct Workflow<'a> {
    /// Hub repository, `owner/name`.
    pub repository: &'a str,
    /// Folder of the bundle in it.
    pub bundle: &'a str,
    /// Architectures to compile for.
    pub architectures: &'a [Architecture],
    /// Options for the compiler.
    pub settings: &'a CompileSettings,
    /// Whether the `prefill` function is compiled for iOS too.
    pub keep_prefill: bool,
    /// Label of the runner: a Mac that has Xcode 27.
    pub runner: &'a str,
}

/// Label of the hosted Macs that have the newest Xcode.
pub const DEFAULT_RUNNER: &str = "macos-26";

/// The workflow's text, for `.github/workflows/aotc.yml`.
///
/// # Errors
/// [`Error::Unprintable`] for names that a workflow would read as something other than text.
pub fn workflow(workflow: &Workflow<'_>) -> Result<String, Error> {
    let Workflow { repository, bundle, architectures, settings, keep_prefill, runner } = workflow;
    for name in [repository, bundle, runner] {
        if name.is_empty() || name.contains("${{") || name.chars().any(char::is_control) {
            let reason = "an empty name, a control character or an expression";
            return Err(Error::Unprintable { path: name.into(), reason });
        }
    }
    let compile_minutes = (DEFAULT_TIMEOUT.as_secs() / 60).saturating_mul(architectures.len() as u64);
    let minutes = compile_minutes.saturating_add(EXTRA_MINUTES).min(MOST_MINUTES);
    let names: Vec<&str> = architectures.iter().map(Architecture::as_str).collect();
    Ok(TEMPLATE
        .replace("@TOOL@", TOOL)
        .replace("@VERSION@", env!("CARGO_PKG_VERSION"))
        .replace("@SOURCE@", env!("CARGO_PKG_REPOSITORY"))
        .replace("@MINUTES@", &minutes.to_string())
        .replace("@OPTIONS@", &options(settings, *keep_prefill))
        .replace("@ARCHITECTURES@", &quoted_yaml(&names.join(" ")))
        .replace("@RUNNER@", &quoted_yaml(runner))
        .replace("@REPOSITORY@", &quoted_yaml(repository))
        .replace("@BUNDLE@", &quoted_yaml(bundle)))
}

/// The settings as options of `coreai-bundle aotc`.
fn options(settings: &CompileSettings, keep_prefill: bool) -> String {
    let reshapes = settings.expect_frequent_reshapes.to_string();
    let platform = settings.platform.name().to_ascii_lowercase();
    let (compute, minimum) = (settings.preferred_compute.to_string(), settings.minimum_os.to_string());
    let reshapes = format!("--expect-frequent-reshapes={reshapes}");
    let options = ["--platform", &platform, "--min-os", &minimum, "--preferred-compute", &compute, &reshapes];
    shell::join(options.into_iter().chain(keep_prefill.then_some("--keep-prefill")))
}
