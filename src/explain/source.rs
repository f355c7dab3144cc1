//! A block of a checkpoint: its values, its lattice, and what each rule makes of it.

use std::io::{self, Write};

use anyhow::{Context, bail};
use checkpoint::source::{Dtype, Source};
use converter::quant::lattice::{Recovered, recover};
use converter::quant::{BLOCK, Fit, Int4Rule, fit, fit_int8};
use half::{bf16, f16};
use serde::Serialize;
use text::terminal::word;

use super::{Arguments, check_place, find, print_numbers, scale_text};
use crate::columns::Columns;
use crate::terminal::{self, STRONG, YELLOW, paint};
use crate::{digits, origin};

/// A block of a checkpoint.
#[derive(Debug, Serialize)]
pub(super) struct Explained {
    tensor: String,
    dtype: String,
    shape: Vec<u64>,
    row: u64,
    block: u64,
    /// Column of its first weight.
    column: u64,
    source: Vec<f32>,
    /// None if the block lies on none.
    lattice: Option<Lattice>,
    rules: Vec<Made>,
}

/// The lattice of a block.
#[derive(Debug, Serialize)]
struct Lattice {
    scale: f32,
    scale_bits: u16,
    /// Whether the scale, an f16 number, lies in the interval, so that it reproduces every weight.
    exact: bool,
    codes: Vec<i8>,
    extremum_code: i8,
    /// Magnitudes of all real scales that reproduce the block; the upper bound of a block of zeros is none.
    interval: Interval,
}

#[derive(Debug, Serialize)]
struct Interval {
    lowest: f64,
    includes_lowest: bool,
    highest: Option<f64>,
    includes_highest: bool,
}

/// What a rule makes of a block.
#[derive(Debug, Serialize)]
struct Made {
    rule: &'static str,
    scale: f32,
    scale_bits: u16,
    codes: Vec<i8>,
    /// Weights that `code * scale`, rounded to bf16, equals.
    exact: u32,
    /// Root of the squared error over the squared weights.
    relative_error: f64,
}

pub(super) fn explain(arguments: &Arguments) -> anyhow::Result<Explained> {
    let path = &arguments.path;
    let typed = path.to_str().with_context(|| format!("{}: the path is not UTF-8", path.display()))?;
    let origin = origin::open(typed, &arguments.access)?;
    let source: &dyn Source = &*origin.source;
    let names: Vec<&str> = source.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    let at = find(&names, &arguments.tensor, path)?;
    let tensor = source.tensors().get(at).context("the tensor is gone")?;
    if tensor.dtype != Dtype::BF16 {
        bail!("{} is {:?}; the rules are for BF16", tensor.name, tensor.dtype);
    }
    let shape: Vec<u64> = tensor.shape.iter().map(|extent| *extent as u64).collect();
    let (columns, block) = (shape.last().copied().unwrap_or(1).max(1), BLOCK as u64);
    if !columns.is_multiple_of(block) {
        bail!("{}: its last axis {columns} is not a multiple of {BLOCK}, so it has no blocks", tensor.name);
    }
    let rows = shape.iter().rev().skip(1).product();
    check_place(arguments, &tensor.name, rows, columns / block)?;
    let column = arguments.block * block;
    let mut weights = [bf16::ZERO; BLOCK];
    source.read_weights(tensor, arguments.row * columns + column, &mut weights)?;
    let told = || format!("{}, row {}, block {}", tensor.name, arguments.row, arguments.block);
    Ok(Explained {
        tensor: tensor.name.clone(),
        dtype: format!("{:?}", tensor.dtype),
        shape,
        row: arguments.row,
        block: arguments.block,
        column,
        source: weights.iter().map(|weight| weight.to_f32()).collect(),
        lattice: recover(&weights).map(|recovered| Lattice::from(&recovered)),
        rules: all_rules(arguments, &weights).with_context(told)?,
    })
}

fn all_rules(arguments: &Arguments, weights: &[bf16; BLOCK]) -> anyhow::Result<Vec<Made>> {
    let typed: Vec<Int4Rule> = arguments.rules.iter().map(|rule| Int4Rule::from(*rule)).collect();
    let rules = if typed.is_empty() { Int4Rule::ALL.to_vec() } else { typed.clone() };
    let mut made = Vec::new();
    for rule in rules {
        made.push(Made::new(rule.name(), &fit(rule, weights)?));
    }
    if typed.is_empty() {
        made.push(Made::new("int8", &fit_int8(weights)?));
    }
    Ok(made)
}

impl From<&Recovered> for Lattice {
    fn from(recovered: &Recovered) -> Self {
        let (lowest, includes_lowest) = recovered.interval.lower_bound();
        let (highest, includes_highest) = recovered.interval.upper_bound();
        Lattice {
            scale: recovered.scale.to_f32(),
            scale_bits: recovered.scale.to_bits(),
            exact: recovered.is_exact,
            codes: recovered.codes.to_vec(),
            extremum_code: recovered.extremum_code,
            interval: Interval {
                lowest,
                includes_lowest,
                highest: Some(highest).filter(|bound| bound.is_finite()),
                includes_highest,
            },
        }
    }
}

impl Made {
    fn new(rule: &'static str, fit: &Fit) -> Self {
        let (error, weights) = (f64::from(fit.squared_error), f64::from(fit.squared_weights));
        Made {
            rule,
            scale: fit.scale.to_f32(),
            scale_bits: fit.scale.to_bits(),
            codes: fit.codes.to_vec(),
            exact: fit.exact,
            relative_error: if weights > 0.0 { (error / weights).sqrt() } else { 0.0 },
        }
    }
}

pub(super) fn print(out: &mut dyn Write, explained: &Explained) -> io::Result<()> {
    let shape = digits::shape(&explained.shape);
    writeln!(out, "{}  {} {shape}", paint(STRONG, word(&explained.tensor)), explained.dtype)?;
    let (row, block, first) = (explained.row, explained.block, explained.column);
    writeln!(out, "row {row}, block {block}: columns {first} to {}", first + BLOCK as u64 - 1)?;
    writeln!(out, "\n{}", paint(STRONG, "source"))?;
    print_numbers(out, &explained.source.iter().map(f32::to_string).collect::<Vec<_>>())?;
    print_lattice(out, explained.lattice.as_ref())?;
    let mut columns = Columns::new(&["rule", "scale", "exact", "relative error"]);
    for made in &explained.rules {
        let scale = scale_text(f16::from_bits(made.scale_bits));
        let (exact, error) = (format!("{}/{BLOCK}", made.exact), format!("{:.2e}", made.relative_error));
        columns.row(vec![made.rule.to_owned(), scale, exact, error]);
    }
    write!(out, "\n{}", columns.text(terminal::width()))?;
    for made in &explained.rules {
        writeln!(out, "\n{}", paint(STRONG, format_args!("codes by {}", made.rule)))?;
        print_numbers(out, &made.codes.iter().map(i8::to_string).collect::<Vec<_>>())?;
    }
    Ok(())
}

fn print_lattice(out: &mut dyn Write, lattice: Option<&Lattice>) -> io::Result<()> {
    let Some(lattice) = lattice else {
        return writeln!(out, "\n{}", paint(YELLOW, "the block lies on no lattice of 4-bit codes"));
    };
    writeln!(out, "\n{}", paint(STRONG, "lattice"))?;
    let note =
        if lattice.exact { "" } else { ", next to the feasible scales: none of them is an f16 number" };
    writeln!(out, "  scale     {}{note}", scale_text(f16::from_bits(lattice.scale_bits)))?;
    let interval = &lattice.interval;
    let (left, right) =
        (if interval.includes_lowest { '[' } else { '(' }, if interval.includes_highest { ']' } else { ')' });
    let highest = interval.highest.map_or_else(|| "infinity".to_owned(), |bound| format!("{bound:.12}"));
    writeln!(out, "  feasible  {left}{:.12}, {highest}{right}, in magnitude", interval.lowest)?;
    writeln!(out, "  extremum  has code {}", lattice.extremum_code)
}
