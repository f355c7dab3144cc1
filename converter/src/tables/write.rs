//! Writes a table folder, a few rows of a tensor at a time, on all cores.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aimodel::stream::{StreamedFile, WrittenFile};
use half::bf16;

use super::plan::{Job, TablesPlan};
use super::rows::quantize_rows;
use crate::buffers::Pool;
use crate::checkpoint::Checkpoint;
use crate::error::ConvertError;
use crate::observer::Observer;
use crate::ordered::for_each_in_order;
use crate::plan::Treatment;
use crate::quant::QuantizeError;
use crate::source::{Reading, Source};

/// Elements that a worker takes at a time, at least: whole rows.
const PIECE: u64 = 1 << 20;

/// The file with the tables' own facts.
const META: &str = "meta.json";

/// A table folder as written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WrittenTables {
    /// Files by name.
    pub files: BTreeMap<String, WrittenFile>,
}

/// A file under way.
struct Output {
    path: PathBuf,
    name: &'static str,
    file: StreamedFile,
}

impl Output {
    fn create(directory: &Path, name: &'static str) -> Result<Self, ConvertError> {
        let path = directory.join(name);
        let file = StreamedFile::create(&path);
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

/// Writes all files of a plan into an empty folder.
///
/// # Errors
/// If the checkpoint cannot be read, holds an element that is not finite, the folder cannot be written, or the observer ends
/// the run.
pub fn write(
    source: &dyn Source,
    checkpoint: &Checkpoint,
    plan: &TablesPlan,
    directory: &Path,
    threads: usize,
    observer: &dyn Observer,
) -> Result<WrittenTables, ConvertError> {
    let tensors: Result<Vec<_>, _> = plan.jobs.iter().map(|job| checkpoint.require(job.role)).collect();
    source.will_read_in_order(&tensors?);
    let mut files = BTreeMap::new();
    for job in &plan.jobs {
        files.extend(write_job(source, checkpoint, job, directory, threads, observer)?);
    }
    let mut meta = Output::create(directory, META)?;
    meta.put(plan.meta.as_bytes())?;
    files.extend([meta.finish()?]);
    Ok(WrittenTables { files })
}

fn write_job(
    source: &dyn Source,
    checkpoint: &Checkpoint,
    job: &Job,
    directory: &Path,
    threads: usize,
    observer: &dyn Observer,
) -> Result<Vec<(String, WrittenFile)>, ConvertError> {
    let tensor = checkpoint.require(job.role)?;
    observer.tensor(&tensor.name);
    source.will_read(tensor);
    let mut reading = Reading::new(source, tensor);
    let mut data = Output::create(directory, job.data)?;
    let mut scales = job.scales.map(|name| Output::create(directory, name)).transpose()?;
    let rows_a_piece = (PIECE / job.width).clamp(1, job.rows.max(1));
    let (inputs, outputs) = (Pool::<bf16>::new(), Pool::<u8>::new());
    let produce = |piece: usize| {
        let first = piece as u64 * rows_a_piece;
        let elements = (rows_a_piece.min(job.rows - first) * job.width) as usize;
        let mut weights = inputs.take(elements);
        source.read_at(tensor, first * job.width * 2, bytemuck::cast_slice_mut(&mut weights))?;
        let made = convert(job, &weights, &outputs).map_err(|error| {
            let source = error.shifted((first * job.width) as usize);
            ConvertError::Element { tensor: tensor.name.clone(), source }
        });
        inputs.give(weights);
        made
    };
    let pieces = job.rows.div_ceil(rows_a_piece) as usize;
    for_each_in_order(pieces, threads, threads * 2, produce, |_, (bytes, row_scales)| {
        if observer.cancelled() {
            return Err(ConvertError::Interrupted);
        }
        data.put(&bytes)?;
        if let Some(scales) = &mut scales {
            scales.put(bytemuck::cast_slice(&row_scales))?;
        }
        let read = if job.treatment == Treatment::F32 { bytes.len() / 2 } else { bytes.len() * 2 } as u64;
        observer.advance(read);
        reading.advance(read);
        outputs.give(bytes);
        Ok(())
    })?;
    std::iter::once(data).chain(scales).map(Output::finish).collect()
}

/// A piece's bytes, and its row scales.
fn convert(job: &Job, weights: &[bf16], outputs: &Pool<u8>) -> Result<(Vec<u8>, Vec<f32>), QuantizeError> {
    if job.treatment == Treatment::F32 {
        let mut bytes = outputs.take(weights.len() * 4);
        for (at, (weight, out)) in weights.iter().zip(bytes.chunks_exact_mut(4)).enumerate() {
            if !weight.is_finite() {
                return Err(QuantizeError::NotFinite { element: at });
            }
            out.copy_from_slice(&weight.to_f32().to_le_bytes());
        }
        return Ok((bytes, Vec::new()));
    }
    let width = job.width as usize;
    let (mut codes, mut scales) = (outputs.take(weights.len()), vec![0.0; weights.len() / width]);
    quantize_rows(weights, width, &mut codes, &mut scales)?;
    Ok((codes, scales))
}
