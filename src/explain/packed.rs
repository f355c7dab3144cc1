//! A block of a package: the codes and the scale as they are packed.

use std::io::{self, Write};
use std::path::Path;

use aimodel::package::Package;
use aimodel::view::Weight;
use anyhow::Context;
use half::f16;
use serde::Serialize;
use text::terminal::word;

use super::{Arguments, check_place, find, print_numbers, scale_text};
use crate::digits;
use crate::terminal::{STRONG, paint};

/// Weights that are shown of a tensor that is not in blocks.
const SHOWN: u64 = 32;

/// A block as it is packed.
#[derive(Debug, Serialize)]
pub(super) struct Packed {
    tensor: String,
    format: String,
    shape: Vec<u64>,
    row: u64,
    block: u64,
    /// Column of its first weight.
    column: u64,
    #[serde(flatten)]
    codes: Option<Codes>,
    /// What the graph computes with.
    values: Vec<f32>,
}

/// Codes and their scale.
#[derive(Debug, Serialize)]
struct Codes {
    scale: f32,
    scale_bits: u16,
    codes: Vec<i32>,
}

pub(super) fn explain(path: &Path, arguments: &Arguments) -> anyhow::Result<Packed> {
    let package = Package::open(path)?;
    let weights = package.weights();
    let names: Vec<&str> = weights.iter().map(Weight::name).collect();
    let at = find(&names, &arguments.tensor, path)?;
    let weight = weights.get(at).context("the tensor is gone")?;
    let stored = weight.stored();
    let columns = stored.shape.last().copied().unwrap_or(1).max(1);
    let width = weight.block().unwrap_or(SHOWN.min(columns));
    check_place(arguments, weight.name(), stored.count() / columns, columns / width)?;
    let column = arguments.block * width;
    let start = arguments.row * columns + column;
    let count = usize::try_from(width)?;
    let codes = match weight {
        Weight::Whole(_) => None,
        Weight::Blocks { codes, scales } => {
            let scale = package.elements(scales, start / width, 1)?.first().copied().unwrap_or_default();
            let codes = package.elements(codes, start, count)?.into_iter().map(|code| code as i32).collect();
            Some(Codes { scale, scale_bits: f16::from_f32(scale).to_bits(), codes })
        }
    };
    Ok(Packed {
        tensor: weight.name().to_owned(),
        format: weight.format(),
        shape: stored.shape.clone(),
        row: arguments.row,
        block: arguments.block,
        column,
        codes,
        values: package.values(weight, start, count)?,
    })
}

pub(super) fn print(out: &mut dyn Write, packed: &Packed) -> io::Result<()> {
    let shape = digits::shape(&packed.shape);
    writeln!(out, "{}  {} {shape}", paint(STRONG, word(&packed.tensor)), packed.format)?;
    let last = packed.column + packed.values.len() as u64 - 1;
    writeln!(out, "row {}, block {}: columns {} to {last}", packed.row, packed.block, packed.column)?;
    if let Some(codes) = &packed.codes {
        writeln!(
            out,
            "\n{}",
            paint(STRONG, format_args!("scale {}", scale_text(f16::from_bits(codes.scale_bits))))
        )?;
        writeln!(out, "\n{}", paint(STRONG, "codes"))?;
        print_numbers(out, &codes.codes.iter().map(i32::to_string).collect::<Vec<_>>())?;
    }
    writeln!(out, "\n{}", paint(STRONG, "values"))?;
    print_numbers(out, &packed.values.iter().map(f32::to_string).collect::<Vec<_>>())
}
