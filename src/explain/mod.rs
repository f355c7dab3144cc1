//! `coreai-bundle explain`: one block of one tensor, and why its codes are what they are.

mod packed;
mod source;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::oracle::bundle::BundlePaths;
use aimodel::package::PROGRAM;
use anyhow::bail;
use clap::Args;
use serde::Serialize;

use crate::cli::Rule;
use crate::origin::Access;
use crate::terminal;

/// Names that an error lists.
const LISTED: usize = 8;
/// Widest text, even where there is room for more.
const WIDEST: usize = 100;

/// Show one block of a tensor: its values, its lattice, its codes, and what each rule would make of it
///
/// Of a checkpoint: the 32 source values, the lattice that they lie on with the interval of all scales that reproduce them, and
/// scale, codes and error of every rule. Of a package or bundle: the packed codes and scale, and what they stand for.
#[derive(Debug, Args)]
#[command(after_help = "The end of a name will do where it is the end of one name only.

Examples:
  coreai-bundle explain gemma-4-E4B-it-qat layers.5.mlp.down_proj.weight --row 3 --block 2
  coreai-bundle explain gemma-4-E4B-it-qat layers.5.mlp.down_proj.weight --rule q4_0
  coreai-bundle explain out/gemma4_e4b_qat_decode_int4lin layers.5.mlp.down_proj.weight --row 3 --block 2")]
pub(crate) struct Arguments {
    /// Checkpoint, package or bundle; or a checkpoint's repository on the Hub, as owner/name
    path: PathBuf,
    #[command(flatten)]
    access: Access,
    /// Name of the tensor, or the end of it
    tensor: String,
    /// Row: all axes but the last, as one
    #[arg(long, value_name = "N", default_value_t = 0)]
    row: u64,
    /// Block of 32 weights within the row
    #[arg(long, value_name = "N", default_value_t = 0)]
    block: u64,
    /// Rule to show, of a checkpoint; once for each [default: all, and int8]
    #[arg(long = "rule", value_enum, value_name = "RULE")]
    rules: Vec<Rule>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if is_bundle(&arguments.path) {
        if !arguments.rules.is_empty() {
            bail!(
                "--rule needs source values; {} holds codes: give the checkpoint",
                arguments.path.display()
            );
        }
        let package = BundlePaths::find(&arguments.path)?.package;
        let explained = packed::explain(&package, arguments)?;
        print(arguments, &explained, |out| packed::print(out, &explained))?;
    } else {
        let explained = source::explain(arguments)?;
        print(arguments, &explained, |out| source::print(out, &explained))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn is_bundle(path: &Path) -> bool {
    path.join(PROGRAM).exists() || path.join(packer::metadata::FILE_NAME).exists()
}

fn print(
    arguments: &Arguments,
    explained: &impl Serialize,
    as_text: impl Fn(&mut dyn Write) -> io::Result<()>,
) -> anyhow::Result<()> {
    if arguments.json {
        terminal::print_json(explained)?;
    } else {
        as_text(&mut terminal::out())?;
    }
    Ok(())
}

/// Which of the names is meant: the whole of one, or the end of just one.
fn find(names: &[&str], wanted: &str, path: &Path) -> anyhow::Result<usize> {
    if let Some(at) = names.iter().position(|name| *name == wanted) {
        return Ok(at);
    }
    let end = format!(".{wanted}");
    let found: Vec<usize> = (0..names.len()).filter(|at| names[*at].ends_with(&end)).collect();
    if let [only] = found[..] {
        return Ok(only);
    }
    let like: Vec<&str> = names.iter().copied().filter(|name| name.contains(wanted)).take(LISTED).collect();
    let hint = if like.is_empty() {
        String::new()
    } else {
        format!("; names with it: {}", text::bounds::list(&like))
    };
    let problem = if found.is_empty() { "there is no tensor" } else { "more than one tensor ends with" };
    bail!("{}: {problem} {wanted:?}{hint}", path.display());
}

/// Refuses a row or a block that the tensor does not have.
fn check_place(arguments: &Arguments, name: &str, rows: u64, blocks: u64) -> anyhow::Result<()> {
    if arguments.row >= rows || arguments.block >= blocks {
        bail!(
            "{name} has rows 0 to {} and blocks 0 to {} in each; row {}, block {} is not there",
            rows.saturating_sub(1),
            blocks.saturating_sub(1),
            arguments.row,
            arguments.block
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_name_will_do_if_it_is_the_end_of_one() {
        let names = ["model.a.weight", "model.b.weight", "weight.a"];
        let path = Path::new("x");
        assert_eq!(find(&names, "b.weight", path).unwrap(), 1);
        assert_eq!(find(&names, "weight.a", path).unwrap(), 2);
        let many = find(&names, "weight", path).unwrap_err().to_string();
        assert!(many.contains("more than one") && many.contains("model.a.weight"), "{many}");
        assert!(find(&names, "c", path).unwrap_err().to_string().contains("no tensor \"c\""));
    }
}
