//! Whether a table folder was made from a checkpoint: sizes, and some of the rows.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::plan::{Job, TablesPlan};
use crate::buffers::Pool;
use crate::error::ConvertError;
use checkpoint::Checkpoint;
use checkpoint::source::Source;

/// Rows of each table that are compared, evenly spread. Trainings differ in nearly all of them.
const ROWS: u64 = 32;

/// What differs between a table folder and what a checkpoint's would be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TableDifference {
    /// A file is missing or has another size.
    Size {
        /// The file.
        file: PathBuf,
        /// Its size, if it is there.
        found: Option<u64>,
        /// That of the checkpoint's table.
        expected: u64,
    },
    /// A row is not the checkpoint's.
    Row {
        /// The file.
        file: PathBuf,
        /// The row.
        row: u64,
        /// Tensor of the checkpoint.
        tensor: String,
    },
}

/// Compares a folder of raw tables with a checkpoint; returns the first difference.
///
/// # Errors
/// If the checkpoint or the folder cannot be read.
pub fn difference(
    source: &dyn Source,
    checkpoint: &Checkpoint,
    plan: &TablesPlan,
    folder: &Path,
) -> Result<Option<TableDifference>, ConvertError> {
    for planned in plan.files() {
        let file = folder.join(planned.name);
        let found = file.metadata().ok().map(|metadata| metadata.len());
        if found != Some(planned.bytes) {
            return Ok(Some(TableDifference::Size { file, found, expected: planned.bytes }));
        }
    }
    for job in &plan.jobs {
        let found = differing_row(source, checkpoint, job, folder)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

fn differing_row(
    source: &dyn Source,
    checkpoint: &Checkpoint,
    job: &Job,
    folder: &Path,
) -> Result<Option<TableDifference>, ConvertError> {
    let tensor = checkpoint.require(job.role)?;
    let open = |name: &str| {
        let path = folder.join(name);
        File::open(&path).map(|file| (file, path.clone())).map_err(|source| ConvertError::Io { path, source })
    };
    let data = open(job.data)?;
    let scales = job.scales().map(open).transpose()?;
    let mut weights = bytemuck::zeroed_vec(job.width as usize);
    let outputs = Pool::new();
    let step = job.rows.div_ceil(ROWS).max(1);
    for row in (0..job.rows).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
        source.read_weights(tensor, row * job.width, &mut weights)?;
        let made = job.convert(&weights, &outputs).map_err(|error| ConvertError::Element {
            tensor: tensor.name.clone(),
            source: error.shifted((row * job.width) as usize),
        })?;
        let parts = [(Some(&data), &made.bytes[..]), (scales.as_ref(), bytemuck::cast_slice(&made.scales))];
        for ((file, path), expected) in parts.into_iter().filter_map(|(file, bytes)| Some((file?, bytes))) {
            let is_same = holds(file, row * expected.len() as u64, expected);
            if !is_same.map_err(|source| ConvertError::Io { path: path.clone(), source })? {
                let (file, tensor) = (path.clone(), tensor.name.clone());
                return Ok(Some(TableDifference::Row { file, row, tensor }));
            }
        }
        outputs.give(made.bytes);
    }
    Ok(None)
}

/// Whether a file holds these bytes at a place.
fn holds(file: &File, place: u64, expected: &[u8]) -> io::Result<bool> {
    let mut found = vec![0; expected.len()];
    file.read_exact_at(&mut found, place)?;
    Ok(found == expected)
}
