//! Hugging Face's own client as the judge of what `publish` writes to a Hub, and a third-party Hub as the judge of how
//! we read from one.

use super::environment::{clear, run, scratch, scripts};
use super::task::{Plan, Task};
use super::{Options, build, program};
use crate::workspace::target;
use anyhow::{Context, Result};
use fixtures::data;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is judged.
const PUBLISHED: &str = "published release";
const MIRRORED: &str = "mirrored checkpoint";

/// Makes two release trees that differ in their license, and plans a task for them; and one for a checkpoint behind a mirror.
pub(crate) fn plan(options: &Options, plan: &mut Plan) -> Result<()> {
    if ![PUBLISHED, MIRRORED].iter().any(|subject| options.wants(subject)) {
        return Ok(());
    }
    let program = program(options)?;
    let local_hub = target().join("debug").join(format!("local-hub{}", std::env::consts::EXE_SUFFIX));
    if !local_hub.is_file() {
        build()?;
    }
    if options.wants(PUBLISHED) {
        let folder = empty("published-release")?;
        let converted = folder.join("converted");
        let checkpoint = data::tiny_checkpoint();
        run(Command::new(&program)
            .arg("convert")
            .arg(checkpoint)
            .arg("-o")
            .arg(&converted)
            .args(["--name", "m"]))?;
        let first = release(&program, &folder, "first", "Terms of one release")?;
        let second = release(&program, &folder, "second", "Terms of another")?;
        plan.run(Task {
            subject: PUBLISHED.into(),
            script: scripts().join("hub.py"),
            arguments: [&program, &local_hub, &first, &second, &folder].map(Into::into).into(),
        });
    }
    if options.wants(MIRRORED) {
        let folder = empty("mirrored-checkpoint")?;
        plan.run(Task {
            subject: MIRRORED.into(),
            script: scripts().join("mirror.py"),
            arguments: [&program, &local_hub, &data::tiny_checkpoint(), &folder].map(Into::into).into(),
        });
    }
    Ok(())
}

/// An empty folder for a task's files.
fn empty(name: &str) -> Result<PathBuf> {
    let folder = scratch().join(name);
    clear(&folder)?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// A release of what was converted, with this license.
fn release(program: &Path, folder: &Path, name: &str, terms: &str) -> Result<PathBuf> {
    let (output, license) = (folder.join(name), folder.join(format!("{name}.txt")));
    fs::write(&license, terms).with_context(|| format!("cannot write {}", license.display()))?;
    let parts = ["m_decode_int4lin", "m_gather_raw"].map(|part| folder.join("converted").join(part));
    let facts = ["--base-model", "google/gemma-4-tiny", "--license-id", "other", "--license"];
    run(Command::new(program).arg("release").args(parts).args(facts).arg(&license).arg("-o").arg(&output))?;
    Ok(output)
}
