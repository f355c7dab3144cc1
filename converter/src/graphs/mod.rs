//! Writes graphs: every blob of the plan, streamed through the quantizers on all cores, to one or several packages at once.
//!
//! Every tensor is read once. What else is made of it than the blob whose turn it is, is made in the same pass: rows of the gather
//! tables go to their files at once, a blob that stands further back in the package (the tied head, after the embedding) waits
//! in a temporary file as the codes it will be.

pub(crate) mod course;
mod sink;
mod spool;
mod workshop;

use std::path::{Path, PathBuf};

use aimodel::package::{PackageMetadata, WrittenPackage};

use self::course::Course;
use self::sink::Sink;
use self::workshop::Workshop;
use crate::checkpoint::Checkpoint;
use crate::error::ConvertError;
use crate::figures::Figures;
use crate::observer::Observer;
use crate::ordered::for_each_in_order;
use crate::plan::GraphPlan;
use crate::source::Source;
use crate::stock::StockTable;
use crate::tables::TableWriter;

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
    pub(crate) packages: Vec<WrittenPackage>,
    /// What quantization did to the weights.
    pub(crate) figures: Figures,
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
    pub(crate) observer: &'r dyn Observer,
}

impl GraphPass<'_> {
    /// Writes packages whose plans hold the same blobs in the same order, and those of the tables that are made of the same
    /// tensors.
    ///
    /// # Errors
    /// If the checkpoint cannot be read, holds an element that cannot be converted, a package cannot be written, or the
    /// observer ends the run. The package directories are then incomplete.
    pub(crate) fn write(
        &self,
        destinations: &[Destination<'_>],
        mut tables: Option<&mut TableWriter<'_>>,
    ) -> Result<WrittenGraphs, ConvertError> {
        let Some(first) = destinations.first() else { return Ok(WrittenGraphs::default()) };
        let course = Course::new(&first.plan.blobs, self.checkpoint, tables.as_deref())?;
        self.source.will_read_in_order(&course.reads());
        let workshop = Workshop::new(self.source, self.stock, &course);
        let mut sink = Sink::create(self, destinations, &course)?;
        for_each_in_order(
            course.pieces.len(),
            self.threads,
            self.threads * 2,
            |at| workshop.make(&course.pieces[at]),
            |at, made| {
                let made = sink.take(&course.pieces[at], made, tables.as_deref_mut())?;
                workshop.give_back(made);
                Ok(())
            },
        )?;
        sink.finish(self.metadata)
    }
}
