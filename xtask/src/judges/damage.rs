//! Apple's loader as the judge of our verifier: what it refuses, the verifier must refuse as well.

use super::environment::{clear, run, scratch, scripts};
use super::task::{Plan, Task};
use super::{Options, build};
use crate::workspace::target;
use anyhow::{Context, Result};
use std::process::Command;

/// The seed of the damage, and how many programs are damaged; the verifier passes a tenth of them.
const SEED: &str = "20260301";
const DAMAGED: &str = "1500";

/// Damages programs, keeps those that the verifier passes, and plans a task that loads them.
pub(crate) fn plan(options: &Options, plan: &mut Plan) -> Result<()> {
    let subject = "damaged programs";
    if !options.wants(subject) {
        return Ok(());
    }
    build()?;
    let folder = scratch().join("damage");
    clear(&folder)?;
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let program = target().join("debug/examples").join(format!("mutants{}", std::env::consts::EXE_SUFFIX));
    run(Command::new(program).args([SEED, DAMAGED]).arg(&folder))?;
    plan.run(Task {
        subject: subject.into(),
        script: scripts().join("damage.py"),
        arguments: vec![folder.into()],
    });
    Ok(())
}
