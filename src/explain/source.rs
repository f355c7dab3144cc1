//! A block of a checkpoint for people.

use std::io::{self, Write};

use coreai_bundle::explain::{ExplainedLattice, SourceBlock};
use coreai_bundle::parts::quantizer::BLOCK;
use coreai_bundle::parts::text::terminal::word;
use half::f16;

use super::{print_numbers, scale_text};
use crate::columns::Columns;
use crate::digits;
use crate::terminal::{self, STRONG, YELLOW, paint};

pub(super) fn print(out: &mut dyn Write, explained: &SourceBlock) -> io::Result<()> {
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

fn print_lattice(out: &mut dyn Write, lattice: Option<&ExplainedLattice>) -> io::Result<()> {
    let Some(lattice) = lattice else {
        return writeln!(out, "\n{}", paint(YELLOW, "the block does not lie on a lattice of 4-bit codes"));
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
