//! GGML's reference quantizer as the judge of the `q4_0` rule.

use super::environment::{clear, run, scratch, scripts};
use super::task::{Plan, Task};
use super::{Options, program};
use anyhow::{Context, Result};
use fixtures::{Shape, SyntheticCheckpoint, WeightKind, damage, data};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The matrix that adversarial blocks are put into.
const MATRIX: &str = "model.language_model.layers.1.mlp.down_proj.weight";
/// Weights in a block.
const BLOCK: u64 = 32;

/// Name of a checkpoint, and how to get it.
type Subject = (&'static str, fn(&Path) -> Result<PathBuf>);

const SUBJECTS: [Subject; 2] =
    [("tiny q4_0", |_| Ok(data::tiny_checkpoint())), ("adversarial q4_0", adversarial)];

/// Random weights off any lattice, with blocks in one matrix that try the rule's corners.
fn adversarial(folder: &Path) -> Result<PathBuf> {
    let checkpoint = folder.join("checkpoint");
    let recipe = SyntheticCheckpoint {
        body: WeightKind::Off,
        embedding: WeightKind::Off,
        ..SyntheticCheckpoint::new(Shape::small())
    };
    recipe.write(&checkpoint)?;
    for (at, block) in corners().into_iter().enumerate() {
        for (element, bits) in (at as u64 * BLOCK..).zip(block) {
            damage::put_bf16(&checkpoint, MATRIX, element, bits)?;
        }
    }
    Ok(checkpoint)
}

/// Blocks as bf16 bits: zeros of both signs, ties of either sign first, subnormals, extremes of either sign, halves of a step.
fn corners() -> Vec<[u16; BLOCK as usize]> {
    const ONE: u16 = 0x3F80;
    const NEGATIVE: u16 = 0x8000;
    let block = |bits: fn(u16) -> u16| std::array::from_fn(|at| bits(at as u16));
    vec![
        block(|_| 0),
        block(|at| if at % 2 == 0 { NEGATIVE } else { 0 }),
        block(|at| if at % 2 == 0 { ONE } else { ONE | NEGATIVE }),
        block(|at| if at % 2 == 0 { ONE | NEGATIVE } else { ONE }),
        // Below about 2^-125 the reciprocal of the scale overflows, and the result of a quantizer is arbitrary.
        block(|at| if at == 31 { 0x0200 } else { at + 1 }),
        block(|at| if at == 31 { 0x0200 } else { at + 1 } | NEGATIVE),
        block(|at| if at == 31 { 0x476A } else { ONE + at }),
        block(|at| if at == 31 { 0x476A | NEGATIVE } else { ONE + at }),
        // Multiples of a sixteenth of the extremum: every other one lies between two codes.
        block(|at| bf16_bits(f32::from(at) / 16.0 - 1.0)),
        block(|at| bf16_bits(1.0 - f32::from(at) / 16.0)),
        // Scales that are subnormal in f16, and that vanish in it.
        block(|at| bf16_bits(1e-5 * (f32::from(at) - 15.5))),
        block(|at| bf16_bits(1e-9 * (f32::from(at) - 15.5))),
    ]
}

/// The upper half of an f32; all values above have few enough bits.
fn bf16_bits(value: f32) -> u16 {
    (value.to_bits() >> 16) as u16
}

/// Converts each subject by the rule, and plans a task for it.
pub(crate) fn plan(options: &Options, plan: &mut Plan) -> Result<()> {
    let wanted: Vec<_> = SUBJECTS.into_iter().filter(|(name, _)| options.wants(name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let program = program(options)?;
    for (name, checkpoint) in wanted {
        let folder = scratch().join(name.replace(' ', "-"));
        clear(&folder)?;
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let checkpoint = checkpoint(&folder)?;
        let rule = ["--name", "m", "--rule", "q4_0", "--head", "int4", "--no-tables"];
        run(Command::new(&program).arg("convert").arg(&checkpoint).arg("-o").arg(&folder).args(rule))?;
        let package = folder.join("m_decode_int4q4_0/m_decode_int4q4_0.aimodel");
        let blobs = folder.join("blobs.json");
        let listing = run(Command::new(&program).arg("inspect").arg(&package).arg("--json"))?;
        fs::write(&blobs, listing).with_context(|| format!("cannot write {}", blobs.display()))?;
        plan.run(Task {
            subject: name.into(),
            script: scripts().join("q4_0.py"),
            arguments: vec![checkpoint.into(), package.join("main.mlirb").into(), blobs.into()],
        });
    }
    Ok(())
}
