//! Statistics of weights, read from the packed blobs.

use anyhow::Context;
use rayon::prelude::*;
use serde::Serialize;

use crate::columns::Columns;
use crate::digits;
use crate::terminal;
use crate::weights::{Program, Weight};

/// Elements that are read at a time; whole blocks of any size that is a power of two.
const PIECE: u64 = 1 << 18;

/// Figures of one weight.
#[derive(Debug, Serialize)]
pub(super) struct Statistics {
    name: String,
    format: String,
    shape: Vec<u64>,
    bytes: u64,
    /// Root mean square of the values.
    rms: f64,
    /// Largest magnitude.
    largest: f32,
    zeros: u64,
    /// Of weights in blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    scales: Option<Scales>,
    /// How often each 4-bit code stands there: entry 0 counts -8, entry 15 counts 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    codes: Option<[u64; 16]>,
}

/// Scales of a weight.
#[derive(Debug, Serialize)]
struct Scales {
    count: u64,
    /// Smallest and largest magnitude of those that are not zero.
    smallest: f32,
    largest: f32,
    zeros: u64,
    negative: u64,
}

/// Reads all weights of a package, on all cores.
pub(super) fn read(program: &Program) -> anyhow::Result<Vec<Statistics>> {
    let weights = program.weights();
    let one = |weight: &Weight| {
        statistics(program, weight).with_context(|| format!("weights of {}", weight.name()))
    };
    weights.par_iter().map(one).collect()
}

fn statistics(program: &Program, weight: &Weight) -> anyhow::Result<Statistics> {
    let stored = weight.stored();
    let count = stored.count();
    let (mut squares, mut largest, mut zeros) = (0.0, 0.0_f32, 0);
    let mut codes = [0; 16];
    let four_bits = matches!(weight, Weight::Blocks { codes, .. } if codes.element.bits() == 4);
    for start in (0..count).step_by(PIECE as usize) {
        let size = (count - start).min(PIECE) as usize;
        for value in program.values(weight, start, size)? {
            squares += f64::from(value) * f64::from(value);
            largest = largest.max(value.abs());
            zeros += u64::from(value == 0.0);
        }
        if four_bits {
            for code in program.elements(stored, start, size)? {
                codes[(code + 8.0) as usize & 15] += 1;
            }
        }
    }
    Ok(Statistics {
        name: weight.name().to_owned(),
        format: weight.format(),
        shape: stored.shape.clone(),
        bytes: weight.bytes(),
        rms: if count == 0 { 0.0 } else { (squares / count as f64).sqrt() },
        largest,
        zeros,
        scales: scales(program, weight)?,
        codes: four_bits.then_some(codes),
    })
}

fn scales(program: &Program, weight: &Weight) -> anyhow::Result<Option<Scales>> {
    let Weight::Blocks { scales: stored, .. } = weight else { return Ok(None) };
    let count = stored.count();
    let mut scales = Scales { count, smallest: f32::INFINITY, largest: 0.0, zeros: 0, negative: 0 };
    for start in (0..count).step_by(PIECE as usize) {
        for scale in program.elements(stored, start, (count - start).min(PIECE) as usize)? {
            scales.zeros += u64::from(scale == 0.0);
            scales.negative += u64::from(scale < 0.0);
            scales.largest = scales.largest.max(scale.abs());
            if scale != 0.0 {
                scales.smallest = scales.smallest.min(scale.abs());
            }
        }
    }
    if scales.smallest.is_infinite() {
        scales.smallest = 0.0;
    }
    Ok(Some(scales))
}

/// A line for each weight.
pub(super) fn text(all: &[Statistics]) -> String {
    let mut columns = Columns::new(&["weight", "type", "shape", "size", "rms", "largest", "scales"]);
    for one in all {
        let scales = one.scales.as_ref();
        let range = scales.map(|scales| format!("{:.1e}..{:.1e}", scales.smallest, scales.largest));
        columns.row(vec![
            one.name.clone(),
            one.format.clone(),
            one.shape.iter().map(u64::to_string).collect::<Vec<_>>().join("x"),
            digits::bytes(one.bytes),
            format!("{:.4}", one.rms),
            format!("{:.3}", one.largest),
            range.unwrap_or_default(),
        ]);
    }
    columns.text(terminal::width())
}
