//! `coreai-bundle explain`: one block of one tensor, and why its codes are what they are.

mod packed;
mod source;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use coreai_bundle::explain::{BlockPlace, PackedBlock, SourceBlock, is_bundle};
use coreai_bundle::parts::quantizer::Int4Rule;
use serde::Serialize;

use crate::cli::Rule;
use crate::origin::{self, AccessArguments};
use crate::progress::Bar;
use crate::terminal;

/// Widest text, even where there is room for more.
const WIDEST: usize = 100;

/// Show one block of a tensor: its values, its lattice, its codes, and what each rule would do to it
///
/// For a checkpoint: the 32 source values, the lattice that they lie on with the interval of all scales that reproduce them, and
/// scale, codes and error of every rule. For a package or bundle: the packed codes and scale, and the values that they represent.
#[derive(Debug, Args)]
#[command(after_help = "The end of a name is enough if only one name ends with it.

Examples:
  coreai-bundle explain gemma-4-E4B-it-qat layers.5.mlp.down_proj.weight --row 3 --block 2
  coreai-bundle explain gemma-4-E4B-it-qat layers.5.mlp.down_proj.weight --rule q4_0
  coreai-bundle explain out/gemma4_e4b_qat_decode_int4lin layers.5.mlp.down_proj.weight --row 3 --block 2")]
pub(crate) struct Arguments {
    /// Checkpoint, package or bundle; or a checkpoint's repository on the Hub, as owner/name or by its address
    path: String,
    #[command(flatten)]
    access: AccessArguments,
    /// Name of the tensor, or the end of it
    tensor: String,
    /// Row: all axes but the last, as one
    #[arg(long, value_name = "N", default_value_t = 0)]
    row: u64,
    /// Block of 32 weights within the row
    #[arg(long, value_name = "N", default_value_t = 0)]
    block: u64,
    /// Rule to show, for a checkpoint; may be repeated [default: all, and int8]
    #[arg(long = "rule", value_enum, value_name = "RULE")]
    rules: Vec<Rule>,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let (path, tensor) = (Path::new(&arguments.path), &arguments.tensor);
    let place = BlockPlace { tensor, row: arguments.row, block: arguments.block };
    if is_bundle(path) {
        if !arguments.rules.is_empty() {
            bail!("--rule needs source values, but {} holds codes: give the checkpoint", path.display());
        }
        let explained = PackedBlock::read(path, place)?;
        print(&explained, |out| packed::print(out, &explained))?;
    } else {
        let rules: Vec<Int4Rule> = arguments.rules.iter().map(|rule| Int4Rule::from(*rule)).collect();
        let bar = Bar::of_bytes();
        let (checkpoint, access) = (arguments.access.source(&arguments.path)?, arguments.access.access());
        let explained = SourceBlock::read(&checkpoint, access, place, &rules, origin::opener(&bar))?;
        print(&explained, |out| source::print(out, &explained))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(
    explained: &impl Serialize,
    as_text: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    if terminal::is_json() {
        terminal::print_json(explained)?;
    } else {
        as_text(&mut terminal::out())?;
    }
    Ok(())
}

/// Numbers in lines that fit the terminal, a power of two in each.
fn print_numbers(out: &mut dyn Write, numbers: &[String]) -> io::Result<()> {
    let cell = numbers.iter().map(String::len).max().unwrap_or(0) + 1;
    let room = terminal::width().min(WIDEST) - 1;
    let mut count = numbers.len().next_power_of_two();
    while count > 1 && count * cell > room {
        count /= 2;
    }
    for line in numbers.chunks(count) {
        let line: String = line.iter().map(|number| format!("{number:>cell$}")).collect();
        writeln!(out, " {line}")?;
    }
    Ok(())
}

/// A scale with its bits, for those who want to find it in a file.
fn scale_text(scale: half::f16) -> String {
    format!("{} (0x{:04x})", scale.to_f32(), scale.to_bits())
}
