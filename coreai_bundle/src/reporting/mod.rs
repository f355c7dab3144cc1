//! Reports beside the outputs: facts as JSON, and the page that shows them.

mod clock;
mod conversion;
pub(crate) mod gate;

use std::path::{Path, PathBuf};

use output::{StagedFile, StagingError};
use packer::replace::{FileKind, Outputs};
use report::{Report, html};
use serde::Serialize;

use crate::outputs;

pub(crate) use clock::{Clock, Timeline};
pub(crate) use conversion::{Facts, of_conversion};

/// The files of a report.
#[derive(Debug, Serialize)]
pub struct ReportFiles {
    /// The facts.
    pub json: PathBuf,
    /// The page.
    pub html: PathBuf,
}

impl ReportFiles {
    /// The files of a report of this name in a folder.
    pub(crate) fn at(folder: &Path, name: &str) -> Self {
        let path = |suffix: &str| folder.join(format!("{name}{suffix}"));
        let [json, html] = packer::archive::REPORTS.map(path);
        ReportFiles { json, html }
    }

    /// Refuses what [`Self::write`] would refuse, before the work.
    pub(crate) fn check(&self, outputs: &Outputs) -> Result<(), StagingError> {
        StagedFile::check(&self.json, outputs.file(FileKind::ReportFacts).always())?;
        StagedFile::check(&self.html, outputs.file(FileKind::ReportPage).always())
    }

    /// Writes a report and replaces an older one: it is about outputs that were just made.
    pub(crate) fn write(&self, report: &Report, outputs: &Outputs) -> anyhow::Result<()> {
        let facts = serde_json::to_string(report)? + "\n";
        outputs::write_text(&self.json, outputs.file(FileKind::ReportFacts).always(), &facts)?;
        write_page(report, &self.html, outputs)
    }
}

/// Writes the page alone.
pub(crate) fn write_page(report: &Report, path: &Path, outputs: &Outputs) -> anyhow::Result<()> {
    outputs::write_text(path, outputs.file(FileKind::ReportPage).always(), &html::render(report)?)
}
