//! Writes graphs: every blob of the plan, streamed through the quantizers on all cores, to one or several packages at once.
//!
//! Every tensor is read once. Everything else that is made from it is made in the same pass: rows of the gather
//! tables go to their files at once, and a blob that comes later in the package (the tied head, after the embedding) waits
//! in a temporary file as finished codes.

mod matrix;
pub(crate) mod schedule;
mod sink;
mod spool;
mod workers;

use std::path::{Path, PathBuf};

use aimodel::package::{self, PROGRAM, PackageMetadata};
use output::WrittenFile;
use progress::Progress;

use self::schedule::Schedule;
use self::sink::Sink;
use self::workers::Workers;
use crate::error::ConvertError;
use crate::journal::{Journal, JournalError};
use crate::ordered::for_each_in_order;
use crate::plan::GraphPlan;
use crate::statistics::WeightStatistics;
use crate::stock::StockTable;
use crate::tables::TableWriter;
use checkpoint::Checkpoint;
use checkpoint::source::Source;

/// Where a graph goes.
#[derive(Debug)]
pub(crate) struct Destination<'p> {
    /// What to write.
    pub(crate) plan: &'p GraphPlan,
    /// Package directory to make.
    pub(crate) directory: PathBuf,
}

/// What was written.
#[derive(Debug, Default)]
pub(crate) struct WrittenGraphs {
    /// Packages, in the order of the destinations.
    pub(crate) packages: Vec<WrittenFile>,
    /// What quantization did to the weights.
    pub(crate) statistics: WeightStatistics,
}

/// One pass over the tensors of a checkpoint's graphs.
pub(crate) struct GraphPass<'r> {
    pub(crate) source: &'r dyn Source,
    pub(crate) checkpoint: &'r Checkpoint,
    pub(crate) metadata: &'r PackageMetadata,
    /// The per-layer table, where the graph holds it.
    pub(crate) stock: Option<&'r StockTable>,
    /// A folder for temporary files.
    pub(crate) scratch: &'r Path,
    pub(crate) threads: usize,
    pub(crate) progress: &'r dyn Progress,
}

impl GraphPass<'_> {
    /// Writes packages whose plans hold the same blobs in the same order, and those of the tables that are made from the same
    /// tensors. Continues where the journal ends.
    ///
    /// # Errors
    /// If the checkpoint cannot be read, holds an element that cannot be converted, a package cannot be written, or the
    /// run is cancelled. The package directories are then incomplete.
    pub(crate) fn write(
        &self,
        destinations: &[Destination<'_>],
        mut tables: Option<&mut TableWriter<'_>>,
        journal: &mut Journal,
    ) -> Result<WrittenGraphs, ConvertError> {
        let Some(first) = destinations.first() else { return Ok(WrittenGraphs::default()) };
        let schedule = Schedule::new(&first.plan.blobs, self.checkpoint, tables.as_deref(), self.stock)?;
        let has_unplanned_tables = tables.is_none() && !journal.done.tables.is_empty();
        if has_unplanned_tables || !schedule.allows(&journal.done, destinations.len()) {
            return Err(journal.damaged().into());
        }
        if journal.done.has_packages {
            self.progress.resume(schedule.input_bytes(&schedule.pieces));
            return self.whole_packages(destinations, journal);
        }
        let (before, pieces) = schedule.split(journal.done.next_blob.unwrap_or(0));
        self.progress.resume(schedule.input_bytes(before));
        self.source.will_read_in_order(&schedule.tensors(pieces));
        let workers = Workers::new(self.source, &schedule);
        let mut sink = Sink::new(self, destinations, &schedule, journal)?;
        for_each_in_order(
            pieces.len(),
            self.threads,
            self.threads * 2,
            |at| workers.make(&pieces[at]),
            |at, made| {
                let made = sink.take(&pieces[at], made, tables.as_deref_mut(), journal)?;
                workers.give_back(made);
                Ok(())
            },
        )?;
        sink.finish(self.metadata, journal)
    }

    /// Packages that an interrupted run has finished.
    fn whole_packages(
        &self,
        destinations: &[Destination<'_>],
        journal: &Journal,
    ) -> Result<WrittenGraphs, ConvertError> {
        let done = &journal.done;
        for (destination, program) in destinations.iter().zip(&done.packages) {
            let path = destination.directory.join(PROGRAM);
            let is_whole = program.is_whole(&path);
            let is_whole = is_whole.map_err(|source| ConvertError::Io { path: path.clone(), source })?;
            if !is_whole || program.bytes != destination.plan.layout.total {
                return Err(JournalError::Damaged { path }.into());
            }
            package::write_sidecars(journal.disk(), &destination.directory, program, self.metadata)?;
        }
        let statistics = WeightStatistics { tensors: done.statistics.clone() };
        Ok(WrittenGraphs { packages: done.packages.clone(), statistics })
    }
}
