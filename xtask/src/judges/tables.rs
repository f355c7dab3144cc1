//! numpy as the judge of gather tables: the rule computed again, by independent code.

use super::environment::{clear, scratch, scripts, trouble};
use super::task::{Plan, Task};
use super::{Options, program};
use anyhow::{Context, Result, bail};
use fixtures::data;
use fixtures::{Shape, SyntheticCheckpoint};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Name of a checkpoint, and how to get it.
type Subject = (&'static str, fn(&Path) -> Result<PathBuf>);

const SUBJECTS: [Subject; 2] = [
    ("tiny tables", |_| Ok(data::tiny_checkpoint())),
    ("e2b-like tables", |folder| {
        let checkpoint = folder.join("checkpoint");
        SyntheticCheckpoint { shards: 3, ..SyntheticCheckpoint::new(Shape::e2b_like()) }
            .write(&checkpoint)?;
        Ok(checkpoint)
    }),
];

/// Writes the tables of each subject in both forms, and plans a task for them.
pub(crate) fn plan(options: &Options, plan: &mut Plan) -> Result<()> {
    let wanted: Vec<_> = SUBJECTS.into_iter().filter(|(name, _)| options.wants(name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let program = program(options)?;
    for (name, checkpoint) in wanted {
        let folder = scratch().join(name.replace(' ', "-"));
        clear(&folder)?;
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let checkpoint = checkpoint(&folder)?;
        let tables = |form: &str| write(&program, &checkpoint, &folder, form);
        tables("raw")?;
        tables("safetensors")?;
        let output = |name: &str| folder.join(name).into_os_string();
        plan.run(Task {
            subject: name.into(),
            script: scripts().join("gather_tables.py"),
            arguments: vec![checkpoint.into_os_string(), output("m_gather_raw"), output("m_ple.safetensors")],
        });
    }
    Ok(())
}

fn write(program: &Path, checkpoint: &Path, folder: &Path, form: &str) -> Result<()> {
    let mut command = Command::new(program);
    command.arg("tables").arg(checkpoint).arg("-o").arg(folder).args(["--name", "m", "--ple", form]);
    let done = command.output().with_context(|| format!("cannot run {}", program.display()))?;
    match trouble(done.status, &done.stderr) {
        Some(trouble) => bail!("tables --ple {form}: {trouble}"),
        None => Ok(()),
    }
}
