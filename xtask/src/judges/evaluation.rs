//! numpy as the judge of `eval`: its figures and its file of logits, computed again by independent code.

use super::apple::interpreter;
use super::environment::{clear, run, scratch, scripts};
use super::task::{Plan, Task};
use super::{Options, program};
use anyhow::{Context, Result};
use fixtures::data;
use std::process::Command;

/// Formats of weights, with the options of `convert`.
const SUBJECTS: [(&str, &[&str]); 5] = [
    ("tiny evaluation lattice", &["--head", "int4"]),
    ("tiny evaluation absmax", &["--head", "int4", "--rule", "absmax"]),
    ("tiny evaluation q4_0", &["--head", "int4", "--rule", "q4_0"]),
    ("tiny evaluation int8", &["--weights", "int8", "--head", "int8"]),
    ("tiny evaluation f16", &["--weights", "f16", "--head", "f16"]),
];

/// Name of the bundles.
const NAME: &str = "m";
/// How the default text is cut: windows that overlap, and are longer than the sliding window.
const WINDOWS: [&str; 6] = ["--limit", "600", "--window", "96", "--stride", "64"];

/// Converts, evaluates and plans a task for each subject.
pub(crate) fn plan(options: &Options, plan: &mut Plan) -> Result<()> {
    let wanted: Vec<_> = SUBJECTS.into_iter().filter(|(name, _)| options.wants(name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (program, interpreter, checkpoint) = (program(options)?, interpreter()?, data::tiny_checkpoint());
    for (name, weights) in wanted {
        let folder = scratch().join(name.replace(' ', "-"));
        clear(&folder)?;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut convert = Command::new(&program);
        convert.arg("convert").arg(&checkpoint).arg("-o").arg(&folder).args(["--name", NAME, "--no-report"]);
        run(convert.args(weights))?;
        let path = |name: &str| folder.join(name);
        let bundle = std::fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.join("metadata.json").exists())
            .with_context(|| format!("no bundle in {}", folder.display()))?;
        let mut eval = Command::new(&program);
        eval.arg("eval").arg(&bundle).arg("--checkpoint").arg(&checkpoint).args(WINDOWS);
        eval.arg("--save-logits").arg(path("logits")).arg("--json");
        std::fs::write(path("figures.json"), run(&mut eval)?)?;
        let package = bundle.join(bundle.file_name().unwrap_or_default()).with_extension("aimodel");
        plan.run(Task {
            subject: name.into(),
            script: scripts().join("evaluation.py"),
            arguments: vec![
                checkpoint.clone().into_os_string(),
                package.into_os_string(),
                path(&format!("{NAME}_gather_raw")).into_os_string(),
                path("figures.json").into_os_string(),
                path("logits").into_os_string(),
                interpreter.clone().into_os_string(),
            ],
        });
    }
    Ok(())
}
