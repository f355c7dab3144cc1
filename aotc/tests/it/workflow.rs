//! The workflow for a hosted Mac, checked by actionlint.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::checker;
use aotc::workflow::{DEFAULT_RUNNER, Workflow, workflow};
use aotc::{Architecture, CompileSettings, Platform};

fn text(repository: &str, bundle: &str) -> Result<String, aotc::Error> {
    let architectures = ["h18p", "h17p"].map(|name| Architecture::known(name, Platform::Ios).unwrap());
    workflow(&Workflow {
        repository,
        bundle,
        architectures: &architectures,
        settings: &CompileSettings::default(),
        keep_prefill: false,
        runner: DEFAULT_RUNNER,
    })
}

#[test]
fn workflow_passes_actionlint() {
    let Some(actionlint) = checker("actionlint") else { return };
    let scratch = tempfile::tempdir().unwrap();
    for bundle in ["gpu-pipelined/gemma4_e4b", "it's \"odd\": #{模型}"] {
        let path = scratch.path().join("aotc.yml");
        fs::write(&path, text("owner/name", bundle).unwrap()).unwrap();
        let mut command = Command::new(&actionlint);
        if let Some(shellcheck) = checker("shellcheck") {
            command.arg("-shellcheck").arg(shellcheck);
        }
        let output = command.arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn workflow_names_what_it_was_written_for() {
    let text = text("owner/name", "gpu-pipelined/gemma4_e4b").unwrap();
    for expected in [
        "default: \"owner/name\"",
        "default: \"h18p h17p\"",
        "--platform ios --min-os 27.0 --preferred-compute gpu --expect-frequent-reshapes=true",
        "timeout-minutes: 300",
        "runs-on: \"macos-26\"",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains('@') || !text.contains("@TOOL@"), "{text}");
}

#[test]
fn names_that_are_expressions_are_refused() {
    for bad in ["${{ secrets.HF_TOKEN }}", "a\nb", ""] {
        assert!(text(bad, "bundle").is_err() && text("owner/name", bad).is_err(), "{bad}");
    }
}

/// The project's own workflow is checked by the same program.
#[test]
fn the_release_workflow_passes_actionlint() {
    let Some(actionlint) = checker("actionlint") else { return };
    let workflow = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.github/workflows/release.yml");
    let output = Command::new(&actionlint).arg(&workflow).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
