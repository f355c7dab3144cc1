//! Writes a table folder, a few rows of a tensor at a time, on all cores.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::bf16;
use output::{Disk, StreamedFile, WrittenFile};
use progress::Progress;
use quantizer::{QuantizeError, quantize_rows};

use super::plan::{Job, TableTreatment, TablesPlan};
use crate::buffers::Pool;
use crate::error::ConvertError;
use crate::journal::{Entry, Journal, JournalError};
use crate::ordered::for_each_in_order;
use checkpoint::Checkpoint;
use checkpoint::source::{Reading, Source, SummedSource, TensorChecksums, bytes_of};

/// Least number of elements that a worker takes at a time: whole rows.
const PIECE: u64 = 1 << 20;

/// The file with the facts about the tables.
const META: &str = "meta.json";

/// A table folder as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenTables {
    /// Files by name.
    pub files: BTreeMap<String, WrittenFile>,
    /// Of the tensors that they were made from.
    pub checksums: TensorChecksums,
}

/// An unfinished file.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    name: &'static str,
    file: StreamedFile,
}

impl Output {
    fn create(disk: &Disk, directory: &Path, name: &'static str) -> Result<Self, ConvertError> {
        let path = directory.join(name);
        // An interrupted run may have left the beginning of one.
        let _ = fs::remove_file(&path);
        let file = StreamedFile::create_on(disk, &path);
        match file {
            Ok(file) => Ok(Output { path, name, file }),
            Err(source) => Err(ConvertError::Io { path, source }),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        self.file.write(bytes).map_err(|source| ConvertError::Io { path: self.path.clone(), source })
    }

    fn finish(self) -> Result<(String, WrittenFile), ConvertError> {
        match self.file.finish() {
            Ok(written) => Ok((self.name.to_owned(), written)),
            Err(source) => Err(ConvertError::Io { path: self.path, source }),
        }
    }
}

/// An unfinished table folder, or one that an interrupted run has left. Tables of tensors that are read for a graph anyway are made in that
/// pass; [`TableWriter::finish`] makes the others.
#[derive(Debug)]
pub(crate) struct TableWriter<'p> {
    plan: &'p TablesPlan,
    directory: &'p Path,
    disk: Disk,
    files: BTreeMap<String, WrittenFile>,
}

impl<'p> TableWriter<'p> {
    /// Starts in an empty folder, or continues after the files that the journal lists.
    ///
    /// # Errors
    /// If one of them is not as it was.
    pub(crate) fn new(
        plan: &'p TablesPlan,
        directory: &'p Path,
        journal: &Journal,
    ) -> Result<Self, ConvertError> {
        let files = journal.done.tables.clone();
        let planned = plan.files();
        for (name, file) in &files {
            let path = directory.join(name);
            let is_planned =
                planned.iter().any(|planned| planned.name == name && planned.bytes == file.bytes);
            let is_whole = || file.is_whole(&path);
            if !is_planned || !is_whole().map_err(|source| ConvertError::Io { path: path.clone(), source })? {
                return Err(JournalError::Damaged { path }.into());
            }
        }
        let is_half = |job: &Job| {
            job.scales().is_some_and(|scales| files.contains_key(scales) != files.contains_key(job.data))
        };
        if let Some(job) = plan.jobs.iter().find(|job| is_half(job)) {
            return Err(JournalError::Damaged { path: directory.join(job.data) }.into());
        }
        Ok(TableWriter { plan, directory, disk: journal.disk().clone(), files })
    }

    /// The files that are complete.
    pub(crate) fn files(&self) -> &BTreeMap<String, WrittenFile> {
        &self.files
    }

    /// The table that is made from this tensor, if there is one.
    pub(crate) fn job(&self, tensor: &str) -> Option<&'p Job> {
        self.plan.jobs.iter().find(|job| job.tensor == tensor)
    }

    /// Begins a table.
    pub(crate) fn begin(&self, job: &Job) -> Result<TableOutput, ConvertError> {
        let data = Output::create(&self.disk, self.directory, job.data)?;
        let create = |name| Output::create(&self.disk, self.directory, name);
        let scales = job.scales().map(create).transpose()?;
        Ok(TableOutput { data, scales })
    }

    /// Ends a table, all of whose rows are written.
    pub(crate) fn end(&mut self, output: TableOutput) -> Result<(), ConvertError> {
        for output in std::iter::once(output.data).chain(output.scales) {
            let (name, written) = output.finish()?;
            self.files.insert(name, written);
        }
        Ok(())
    }

    /// Makes the missing tables.
    ///
    /// # Errors
    /// As [`write`].
    pub(crate) fn finish(
        mut self,
        source: &dyn Source,
        checkpoint: &Checkpoint,
        threads: usize,
        progress: &dyn Progress,
        journal: &mut Journal,
    ) -> Result<WrittenTables, ConvertError> {
        let plan = self.plan;
        progress.resume(journal.done.table_bytes);
        let left: Vec<&Job> = plan.jobs.iter().filter(|job| !self.files.contains_key(job.data)).collect();
        let tensors: Result<Vec<_>, _> = left.iter().map(|job| checkpoint.require(job.role)).collect();
        source.will_read_in_order(&tensors?);
        for job in left {
            let mut output = self.begin(job)?;
            write_job(source, checkpoint, job, &mut output, threads, progress)?;
            self.end(output)?;
            self.note(job, checkpoint, journal)?;
        }
        let mut meta = Output::create(&self.disk, self.directory, META)?;
        meta.put(plan.meta.as_bytes())?;
        self.files.extend([meta.finish()?]);
        let mut checksums = journal.checksums();
        checksums.retain(|tensor, _| plan.jobs.iter().any(|job| job.tensor == *tensor));
        Ok(WrittenTables { files: self.files, checksums })
    }
}

impl TableWriter<'_> {
    /// Records that a table is complete.
    fn note(&self, job: &Job, checkpoint: &Checkpoint, journal: &mut Journal) -> Result<(), ConvertError> {
        let names = std::iter::once(job.data).chain(job.scales());
        let files = names.filter_map(|name| self.files.get_key_value(name));
        let tensor = checkpoint.require(job.role)?;
        let entry = Entry::Table {
            name: tensor.name.clone(),
            bytes: tensor.byte_len(),
            files: files.map(|(name, file)| (name.clone(), *file)).collect(),
        };
        Ok(journal.record(&entry)?)
    }
}

/// The unfinished files of one table.
#[derive(Debug)]
pub(crate) struct TableOutput {
    data: Output,
    scales: Option<Output>,
}

impl TableOutput {
    /// Appends rows.
    pub(crate) fn put(&mut self, rows: &TableRows) -> Result<(), ConvertError> {
        self.data.put(&rows.bytes)?;
        if let Some(scales) = &mut self.scales {
            scales.put(bytemuck::cast_slice(&rows.scales))?;
        }
        Ok(())
    }
}

/// Rows of a table.
#[derive(Debug, Default)]
pub(crate) struct TableRows {
    /// Codes, or numbers.
    pub(crate) bytes: Vec<u8>,
    /// Scales of the rows, if it has codes.
    pub(crate) scales: Vec<f32>,
}

/// Writes all files of a plan into a folder, which is empty or that of the journal.
///
/// # Errors
/// If the checkpoint cannot be read, holds an element that is not finite, the folder cannot be written, or it is cancelled.
pub fn write(
    source: &dyn Source,
    checkpoint: &Checkpoint,
    plan: &TablesPlan,
    directory: &Path,
    threads: usize,
    progress: &dyn Progress,
    journal: &mut Journal,
) -> Result<WrittenTables, ConvertError> {
    let source = SummedSource::new(source);
    journal.set_checksums(source.checksums.clone());
    TableWriter::new(plan, directory, journal)?.finish(&source, checkpoint, threads, progress, journal)
}

fn write_job(
    source: &dyn Source,
    checkpoint: &Checkpoint,
    job: &Job,
    output: &mut TableOutput,
    threads: usize,
    progress: &dyn Progress,
) -> Result<(), ConvertError> {
    let tensor = checkpoint.require(job.role)?;
    progress.begin(&tensor.name);
    source.will_read(tensor);
    let mut reading = Reading::new(source, tensor);
    let rows_a_piece = (PIECE / job.width).clamp(1, job.rows.max(1));
    let (inputs, outputs) = (Pool::<bf16>::new(), Pool::<u8>::new());
    let produce = |piece: usize| {
        let first = piece as u64 * rows_a_piece;
        let elements = (rows_a_piece.min(job.rows - first) * job.width) as usize;
        let mut weights = inputs.take(elements);
        source.read_weights(tensor, first * job.width, &mut weights)?;
        let made = job.convert(&weights, &outputs).map_err(|error| {
            let source = error.shifted((first * job.width) as usize);
            ConvertError::Element { tensor: tensor.name.clone(), source }
        })?;
        inputs.give(weights);
        Ok((made, bytes_of(elements as u64)))
    };
    let pieces = job.rows.div_ceil(rows_a_piece) as usize;
    for_each_in_order(pieces, threads, threads * 2, produce, |_, (rows, read)| {
        if progress.cancelled() {
            return Err(ConvertError::Interrupted);
        }
        output.put(&rows)?;
        progress.advance(read);
        reading.advance(read);
        outputs.give(rows.bytes);
        Ok(())
    })
}

impl Job {
    /// The table's rows that are made from these rows of the tensor.
    ///
    /// # Errors
    /// If an element is not finite.
    pub(crate) fn convert(&self, weights: &[bf16], outputs: &Pool<u8>) -> Result<TableRows, QuantizeError> {
        if self.treatment == TableTreatment::F32 {
            let mut bytes = outputs.take(weights.len() * 4);
            for (at, (weight, out)) in weights.iter().zip(bytes.chunks_exact_mut(4)).enumerate() {
                if !weight.is_finite() {
                    return Err(QuantizeError::NotFinite { element: at });
                }
                out.copy_from_slice(&weight.to_f32().to_le_bytes());
            }
            return Ok(TableRows { bytes, scales: Vec::new() });
        }
        let width = self.width as usize;
        let (mut bytes, mut scales) = (outputs.take(weights.len()), vec![0.0; weights.len() / width]);
        quantize_rows(weights, width, &mut bytes, &mut scales)?;
        Ok(TableRows { bytes, scales })
    }
}
