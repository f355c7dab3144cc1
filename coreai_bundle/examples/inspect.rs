//! Says what is in a checkpoint, package, bundle or table folder, as JSON.
//!
//!     cargo run --example inspect -- PATH

use std::path::Path;

use coreai_bundle::inspect;
use coreai_bundle::inspect::Shown;
use coreai_bundle::origin::{Access, Opener};
use coreai_bundle::source::SourceSpec;
use progress::Silent;

pub(crate) fn run(path: &Path) -> anyhow::Result<serde_json::Value> {
    let opener = Opener { cancelled: || false, progress: &Silent };
    let found = inspect(&SourceSpec::Local(path.to_owned()), Access::default(), &Shown::default(), opener)?;
    Ok(serde_json::to_value(found)?)
}

#[allow(dead_code, clippy::print_stdout, reason = "an example, which a test includes")]
fn main() -> anyhow::Result<()> {
    let Some(path) = std::env::args().nth(1) else { anyhow::bail!("give a path") };
    println!("{:#}", run(Path::new(&path))?);
    Ok(())
}
