//! Takes what the workers made, in order, and writes it to packages, tables and spools.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use aimodel::package::{PackageError, PackageMetadata, PackageWriter};
use output::WrittenFile;

use super::matrix::Matrix;
use super::schedule::{Piece, Schedule, Step, Work};
use super::spool::{Spool, WaitingBlob};
use super::workers::Made;
use super::{Destination, GraphPass, WrittenGraphs};
use crate::error::ConvertError;
use crate::journal::{Entry, Journal};
use crate::statistics::{TensorStatistics, WeightStatistics};
use crate::tables::{TableOutput, TableWriter};
use checkpoint::source::{Reading, bytes_of};

/// Bytes that go from a spool to the packages at a time.
const COPIED: usize = 1 << 20;

/// Everything that is being written.
pub(super) struct Sink<'d> {
    pass: &'d GraphPass<'d>,
    schedule: &'d Schedule<'d>,
    writers: Vec<PackageWriter<'d>>,
    /// The tensor that is being read.
    reading: Option<Reading<'d>>,
    /// The matrix whose codes are being written.
    matrix: Matrix,
    /// Blobs that are being made beside this one, by number.
    spools: BTreeMap<usize, Spool>,
    /// Blobs that were made and whose turn has not come, by number.
    waiting: BTreeMap<usize, WaitingBlob>,
    /// The waiting blob whose turn it is.
    unspooled: Option<File>,
    /// The table that is being written beside the blob.
    table: Option<TableOutput>,
    statistics: WeightStatistics,
    /// Matrices whose statistics are in the journal, or on the way to it.
    noted: usize,
    /// The tensor that was read last.
    last_tensor: &'d str,
    /// Finished tensors that are not completely in the files yet.
    pending: VecDeque<Pending>,
}

/// A finished tensor whose bytes are being written to the packages.
struct Pending {
    entry: Entry,
    /// The position in each package when it was finished; nothing while it is not yet in the file.
    reached: Vec<Option<WrittenFile>>,
}

impl<'d> Sink<'d> {
    /// Starts, or continues where the journal ends, which [`Schedule::allows`] this place.
    pub(super) fn new(
        pass: &'d GraphPass<'d>,
        destinations: &'d [Destination<'_>],
        schedule: &'d Schedule<'d>,
        journal: &Journal,
    ) -> Result<Self, ConvertError> {
        let (done, disk) = (&journal.done, journal.disk());
        let writers = destinations.iter().enumerate().map(|(at, destination)| {
            let (directory, layout) = (Path::new(&destination.directory), &destination.plan.layout);
            match (done.next_blob, done.packages.get(at)) {
                (Some(next), Some(front)) => PackageWriter::resume_on(disk, directory, layout, next, front),
                _ => {
                    // An interrupted run may have left the beginning of one.
                    let _ = fs::remove_dir_all(directory);
                    PackageWriter::create_on(disk, directory, layout)
                }
            }
        });
        let waiting = done
            .spools
            .iter()
            .map(|record| WaitingBlob::resume(pass.scratch, record).map(|waiting| (record.blob, waiting)));
        Ok(Sink {
            pass,
            schedule,
            writers: writers.collect::<Result<_, _>>()?,
            reading: None,
            matrix: Matrix::default(),
            spools: BTreeMap::new(),
            waiting: waiting.collect::<Result<_, _>>()?,
            unspooled: None,
            table: None,
            statistics: WeightStatistics { tensors: done.statistics.clone() },
            noted: done.statistics.len(),
            last_tensor: "",
            pending: VecDeque::new(),
        })
    }

    /// Writes the results for a piece, and returns the buffers.
    pub(super) fn take(
        &mut self,
        piece: &Piece,
        made: Made,
        tables: Option<&mut TableWriter<'_>>,
        journal: &mut Journal,
    ) -> Result<Made, ConvertError> {
        if self.pass.progress.cancelled() {
            return Err(ConvertError::Interrupted);
        }
        let step = self.schedule.step(piece);
        if piece.first {
            self.note(piece, tables.as_deref(), journal)?;
            self.last_tensor = &step.tensor.name;
            self.pass.progress.begin(&step.tensor.name);
        }
        match step.work {
            Work::Read(_) => self.take_read(piece, step, &made, tables, journal)?,
            Work::Unspool => self.take_spooled(piece, step)?,
            Work::Table(_) => {
                self.put(&made.now.bytes)?;
                self.pass.progress.advance(bytes_of(piece.count as u64));
            }
            Work::Scales => {
                let mut scales = self.matrix.take_scales().map_err(|error| self.scratch_error(error))?;
                self.put_all(&mut scales, step.blob.bytes_of(piece.count as u64))?;
            }
        }
        Ok(made)
    }

    fn take_read(
        &mut self,
        piece: &Piece,
        step: &'d Step<'d>,
        made: &Made,
        tables: Option<&mut TableWriter<'_>>,
        journal: &Journal,
    ) -> Result<(), ConvertError> {
        if piece.first {
            self.begin(step, tables.as_deref(), journal)?;
        }
        self.put(&made.now.bytes)?;
        let appended = self.matrix.append(&made.now, self.pass.scratch);
        appended.map_err(|error| self.scratch_error(error))?;
        for ((at, _), product) in step.later.iter().zip(&made.later) {
            if let Some(spool) = self.spools.get_mut(at) {
                spool.append(product)?;
            }
        }
        if let (Some(table), Some(rows)) = (&mut self.table, &made.rows) {
            table.put(rows)?;
        }
        let bytes = bytes_of(piece.count as u64);
        self.pass.progress.advance(bytes);
        if let Some(reading) = &mut self.reading {
            reading.advance(bytes);
        }
        if piece.last {
            self.add_statistics(step);
            for (at, spool) in std::mem::take(&mut self.spools) {
                self.waiting.insert(at, spool.finish()?);
            }
            if let (Some(tables), Some(table)) = (tables, self.table.take()) {
                tables.end(table)?;
            }
        }
        Ok(())
    }

    /// Before a blob begins: everything that was read so far is finished, if no matrix waits for its scales. It is recorded in the
    /// journal as soon as the files hold it.
    fn note(
        &mut self,
        piece: &Piece,
        tables: Option<&TableWriter<'_>>,
        journal: &mut Journal,
    ) -> Result<(), ConvertError> {
        if !journal.is_on() || self.matrix.has_scales() || self.last_tensor.is_empty() {
            return Ok(());
        }
        self.writers.iter_mut().try_for_each(PackageWriter::mark)?;
        let entry = Entry::Tensor {
            name: self.last_tensor.to_owned(),
            next_blob: piece.step,
            packages: Vec::new(),
            statistics: self.new_statistics(),
            tables: tables.map(|tables| tables.files().clone()).unwrap_or_default(),
            spools: self.waiting.values().map(|waiting| waiting.record().clone()).collect(),
        };
        self.pending.push_back(Pending { entry, reached: vec![None; self.writers.len()] });
        self.record_reached(journal)
    }

    /// Statistics of the matrices that were finished since the last call.
    fn new_statistics(&mut self) -> Vec<TensorStatistics> {
        let new = self.statistics.tensors[self.noted..].to_vec();
        self.noted = self.statistics.tensors.len();
        new
    }

    /// Records what all packages hold by now.
    fn record_reached(&mut self, journal: &mut Journal) -> Result<(), ConvertError> {
        for (at, writer) in self.writers.iter().enumerate() {
            let mut waiting =
                self.pending.iter_mut().filter_map(|pending| match pending.reached.get_mut(at) {
                    Some(reached @ None) => Some(reached),
                    _ => None,
                });
            while let Some(mark) = writer.reached() {
                if let Some(reached) = waiting.next() {
                    *reached = Some(mark);
                }
            }
        }
        while self.pending.front().is_some_and(|pending| pending.reached.iter().all(Option::is_some)) {
            let Some(Pending { mut entry, reached }) = self.pending.pop_front() else { break };
            if let Entry::Tensor { packages, .. } = &mut entry {
                *packages = reached.into_iter().flatten().collect();
            }
            journal.record(&entry)?;
        }
        Ok(())
    }

    /// A tensor is read: opens what else is made from it.
    fn begin(
        &mut self,
        step: &'d Step<'d>,
        tables: Option<&TableWriter<'_>>,
        journal: &Journal,
    ) -> Result<(), ConvertError> {
        self.reading = Some(Reading::new(self.pass.source, step.tensor));
        for (at, _) in &step.later {
            self.spools.insert(*at, Spool::new(journal.disk(), self.pass.scratch, *at)?);
        }
        if let (Some(tables), Some(job)) = (tables, step.table) {
            self.table = Some(tables.begin(job)?);
        }
        Ok(())
    }

    fn take_spooled(&mut self, piece: &Piece, step: &Step<'_>) -> Result<(), ConvertError> {
        if piece.first
            && let Some(waiting) = self.waiting.remove(&piece.step)
        {
            let (unspooled, matrix) = waiting.open(step.blob.bytes(), self.pass.scratch)?;
            (self.unspooled, self.matrix) = (Some(unspooled), matrix);
        }
        let Some(mut unspooled) = self.unspooled.take() else { return Ok(()) };
        self.put_all(&mut unspooled, step.blob.bytes_of(piece.count as u64))?;
        if piece.last {
            self.add_statistics(step);
        } else {
            self.unspooled = Some(unspooled);
        }
        Ok(())
    }

    /// Writes bytes that wait elsewhere.
    fn put_all(&mut self, from: &mut impl Read, bytes: u64) -> Result<(), ConvertError> {
        let mut left = usize::try_from(bytes).unwrap_or(usize::MAX);
        let mut buffer = vec![0; left.min(COPIED)];
        while left > 0 {
            let part = &mut buffer[..left.min(COPIED)];
            from.read_exact(part).map_err(|error| self.scratch_error(error))?;
            self.put(part)?;
            left -= part.len();
        }
        Ok(())
    }

    fn scratch_error(&self, source: io::Error) -> ConvertError {
        ConvertError::Io { path: self.pass.scratch.to_owned(), source }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        self.writers.iter_mut().try_for_each(|writer| writer.write(bytes)).map_err(ConvertError::from)
    }

    /// Adds the statistics of a matrix whose codes are complete.
    fn add_statistics(&mut self, step: &Step<'_>) {
        if let (Some(statistics), Some(treatment)) = (self.matrix.statistics.take(), step.blob.codes()) {
            self.statistics.tensors.push(TensorStatistics {
                name: step.blob.role.short_name(),
                tensor: step.tensor.name.clone(),
                shape: step.blob.shape.clone(),
                treatment,
                statistics,
            });
        }
    }

    pub(super) fn finish(
        mut self,
        metadata: &PackageMetadata,
        journal: &mut Journal,
    ) -> Result<WrittenGraphs, ConvertError> {
        let unwritten = self.pending.into_iter().flat_map(|pending| match pending.entry {
            Entry::Tensor { statistics, .. } => statistics,
            _ => Vec::new(),
        });
        let mut statistics: Vec<TensorStatistics> = unwritten.collect();
        statistics.extend_from_slice(&self.statistics.tensors[self.noted..]);
        let packages: Vec<WrittenFile> = std::mem::take(&mut self.writers)
            .into_iter()
            .map(|writer| writer.finish(metadata))
            .collect::<Result<_, PackageError>>()?;
        journal.record(&Entry::Packages { packages: packages.clone(), statistics })?;
        Ok(WrittenGraphs { packages, statistics: self.statistics })
    }
}
