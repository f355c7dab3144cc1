//! Lists what loaders and engines would trip over in a bundle.
//!
//!     cargo run --example check -- BUNDLE

use std::path::Path;

use coreai_bundle::check;
use packer::check::Options;
use packer::template::Conversation;

/// Returns one line for each defect.
pub(crate) fn run(bundle: &Path) -> anyhow::Result<Vec<String>> {
    let render = Conversation::render;
    let report = check(bundle, &Options::new(&render))?;
    Ok(report
        .defects()
        .map(|finding| format!("{}: {} (fix: {})", finding.id, finding.what, finding.fix))
        .collect())
}

#[allow(dead_code, clippy::print_stdout, reason = "an example, which a test includes")]
fn main() -> anyhow::Result<()> {
    let Some(bundle) = std::env::args().nth(1) else { anyhow::bail!("give a bundle") };
    run(Path::new(&bundle))?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
