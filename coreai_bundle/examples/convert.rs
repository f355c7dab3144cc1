//! Converts a checkpoint into bundles for engines with and without patches.
//!
//!     cargo run --example convert -- CHECKPOINT OUT

use converter::decoder::Variant;
use coreai_bundle::options::GraphChoice;
use coreai_bundle::{ConvertRequest, convert};
use progress::Silent;

/// Returns the folders that were made.
pub(crate) fn run(checkpoint: &str, out: &str) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut made = Vec::new();
    for variants in [vec![Variant::Provider, Variant::Table], vec![Variant::Stock]] {
        let graphs = GraphChoice { variants, ..GraphChoice::default() };
        let request = ConvertRequest { graphs, ..ConvertRequest::new(checkpoint, out) };
        let finished = convert(&request, &Silent)?;
        made.extend(finished.bundles.into_iter().map(|bundle| bundle.path));
        made.extend(finished.tables.map(|tables| tables.path));
    }
    Ok(made)
}

#[allow(dead_code, clippy::print_stdout, reason = "an example, which a test includes")]
fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(checkpoint), Some(out)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("give a checkpoint and a folder for the outputs");
    };
    run(&checkpoint, &out)?.iter().for_each(|path| println!("{}", path.display()));
    Ok(())
}
