//! Reports beside the outputs: facts as JSON, and the page that shows them.

mod clock;
mod conversion;

use std::io::Write;
use std::path::{Path, PathBuf};

use aimodel::staging::StagedFile;
use anyhow::Context;
use report::{Report, html};
use serde::Serialize;

pub(crate) use clock::{Clock, Course};
pub(crate) use conversion::{Facts, of_conversion};

/// The files of a report.
#[derive(Debug, Serialize)]
pub(crate) struct Written {
    /// The facts.
    pub(crate) json: PathBuf,
    /// The page.
    pub(crate) html: PathBuf,
}

/// Writes `NAME.report.json` and `NAME.report.html` into a folder, over older ones: they tell of outputs that were just made.
pub(crate) fn write(report: &Report, folder: &Path, name: &str) -> anyhow::Result<Written> {
    let path = |suffix: &str| folder.join(format!("{name}{suffix}"));
    let [json, html] = packer::archive::REPORTS.map(path);
    write_file(&json, &(serde_json::to_string(report)? + "\n"))?;
    write_page(report, &html)?;
    Ok(Written { json, html })
}

/// Writes the page alone.
pub(crate) fn write_page(report: &Report, path: &Path) -> anyhow::Result<()> {
    write_file(path, &html::render(report)?)
}

fn write_file(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = StagedFile::new(path, true)?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))?;
    file.commit()?;
    Ok(())
}
