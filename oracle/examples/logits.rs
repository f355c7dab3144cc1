//! Writes the interpreter's logits of some sequences, for the judges: `logits PACKAGE TABLES SEQUENCES.json wide|apple OUT`.
//!
//! `TABLES` is a table folder, or `-` for a graph that contains its tables; `SEQUENCES.json` is a list of lists of ids. `OUT`
//! will contain f32 `[positions of all sequences, V]`, little-endian.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use interpreter::{Rounding, Session};
use oracle::stepper::Stepper;
use oracle::tables::Tables;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [package, tables, sequences, rounding, out] = arguments.as_slice() else {
        return Err("usage: logits PACKAGE TABLES SEQUENCES.json wide|apple OUT".into());
    };
    let tables = if tables == "-" { None } else { Some(Tables::open(Path::new(tables))?) };
    let sequences: Vec<Vec<u32>> = serde_json::from_slice(&fs::read(sequences)?)?;
    let mut stepper = Stepper::new(Session::open(Path::new(package))?, tables)?;
    stepper.set_rounding(match rounding.as_str() {
        "wide" => Rounding::Once,
        "apple" => Rounding::EachStep,
        other => return Err(format!("{other:?} is neither wide nor apple").into()),
    });
    let mut out = BufWriter::new(File::create(out)?);
    for sequence in sequences {
        stepper.reset()?;
        for token in sequence {
            out.write_all(bytemuck::cast_slice(&stepper.feed(token)?))?;
        }
    }
    Ok(out.flush()?)
}
