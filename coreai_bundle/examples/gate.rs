//! Compares a bundle with its checkpoint in fp32.
//!
//!     cargo run --release --example gate -- BUNDLE CHECKPOINT

use std::path::Path;

use coreai_bundle::gate;
use coreai_bundle::runnable::Runnable;
use interpreter::Rounding;
use oracle::gate::GateReport;
use progress::Silent;

pub(crate) fn run(bundle: &Path, checkpoint: &str) -> anyhow::Result<GateReport> {
    let bundle = Runnable { bundle: bundle.to_owned(), tables: None, rounding: Rounding::Once, chunk: None };
    gate(&bundle, checkpoint, &Silent)
}

#[allow(dead_code, clippy::print_stdout, reason = "an example, which a test includes")]
fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(bundle), Some(checkpoint)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("give a bundle and its checkpoint");
    };
    let report = run(Path::new(&bundle), &checkpoint)?;
    println!("passed: {}, {} of {} positions", report.passed, report.agreed, report.qualified);
    Ok(())
}
