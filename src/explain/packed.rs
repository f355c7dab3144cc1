//! A block of a package for people.

use std::io::{self, Write};

use coreai_bundle::explain::PackedBlock;
use coreai_bundle::parts::text::terminal::word;
use half::f16;

use super::{print_numbers, scale_text};
use crate::digits;
use crate::terminal::{STRONG, paint};

pub(super) fn print(out: &mut dyn Write, packed: &PackedBlock) -> io::Result<()> {
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
