//! Damaged programs that the verifier passes, for judges: `mutants SEED COUNT FOLDER`.
//!
//! Changes the programs of the tests `COUNT` times and writes each that [`verify`] passes to `FOLDER/NUMBER.mlirb`. Prints how many.

#![allow(clippy::print_stdout, reason = "the count is what it is run for")]

#[allow(dead_code, clippy::unwrap_used, reason = "helpers of tests, of which this uses a part")]
#[path = "../tests/it/common/mod.rs"]
mod common;

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

use aimodel::bytecode::reader::Bytecode;
use aimodel::verify::verify;
use common::cases;
use common::mutation::{Numbers, mutant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [seed, count, folder] = arguments.as_slice() else {
        return Err("usage: mutants SEED COUNT FOLDER".into());
    };
    let (mut numbers, cases) = (Numbers(seed.parse()?), cases::all());
    let mut passed = 0;
    for number in 0..count.parse::<usize>()? {
        let case = &cases[numbers.below(cases.len())];
        let bytes = mutant(&case.module, &mut numbers);
        if Bytecode::read(bytes.as_slice()).is_ok_and(|read| verify(&read.module).is_ok()) {
            fs::write(Path::new(folder).join(format!("{number}.mlirb")), bytes)?;
            passed += 1;
        }
    }
    println!("{passed}");
    Ok(())
}
