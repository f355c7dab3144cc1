//! A blob that is made before its turn: its bytes wait in a temporary file, followed by its scales.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::f16;
use output::{Disk, StreamedFile};

use super::matrix::Matrix;
use super::workers::Product;
use crate::error::ConvertError;
use crate::journal::{JournalError, SpoolRecord};

/// A blob that is being made.
pub(super) struct Spool {
    path: PathBuf,
    file: StreamedFile,
    blob: usize,
    /// What belongs to the matrix besides its codes.
    matrix: Matrix,
}

/// A blob that waits.
pub(super) struct WaitingBlob {
    path: PathBuf,
    record: SpoolRecord,
}

/// A blob whose turn has come.
pub(super) struct Unspooled {
    path: PathBuf,
    file: File,
}

fn path_of(directory: &Path, blob: usize) -> PathBuf {
    directory.join(format!("blob-{blob}"))
}

fn failure(path: &Path) -> impl FnOnce(io::Error) -> ConvertError {
    move |source| ConvertError::Io { path: path.to_owned(), source }
}

impl Spool {
    /// Begins in this folder.
    pub(super) fn new(disk: &Disk, directory: &Path, blob: usize) -> Result<Self, ConvertError> {
        let path = path_of(directory, blob);
        // An interrupted run may have left the beginning of one.
        let _ = fs::remove_file(&path);
        let file = StreamedFile::create_on(disk, &path).map_err(failure(&path))?;
        Ok(Spool { path, file, blob, matrix: Matrix::default() })
    }

    /// Appends the results for a piece.
    pub(super) fn append(&mut self, product: &Product) -> Result<(), ConvertError> {
        self.matrix.append(product);
        self.file.write(&product.bytes).map_err(failure(&self.path))
    }

    /// Ends the writing.
    pub(super) fn finish(mut self) -> Result<WaitingBlob, ConvertError> {
        self.file.write(bytemuck::cast_slice(&self.matrix.scales)).map_err(failure(&self.path))?;
        let file = self.file.finish().map_err(failure(&self.path))?;
        let record = SpoolRecord { blob: self.blob, file, statistics: self.matrix.statistics };
        Ok(WaitingBlob { path: self.path, record })
    }
}

impl WaitingBlob {
    /// One that an interrupted run has left.
    pub(super) fn resume(directory: &Path, record: &SpoolRecord) -> Result<Self, ConvertError> {
        let path = path_of(directory, record.blob);
        if !record.file.is_whole(&path).map_err(failure(&path))? {
            return Err(JournalError::Damaged { path }.into());
        }
        Ok(WaitingBlob { path, record: record.clone() })
    }

    /// Its entry in a journal.
    pub(super) fn record(&self) -> &SpoolRecord {
        &self.record
    }

    /// Opens it for reading: `bytes` bytes of the blob, followed by its scales, which are read now.
    pub(super) fn open(&self, bytes: u64) -> Result<(Unspooled, Matrix), ConvertError> {
        let mut file = File::open(&self.path).map_err(failure(&self.path))?;
        let count = self.record.file.bytes.saturating_sub(bytes) as usize / size_of::<f16>();
        let mut scales = vec![f16::ZERO; count];
        let read = file
            .seek(SeekFrom::Start(bytes))
            .and_then(|_| file.read_exact(bytemuck::cast_slice_mut(&mut scales)))
            .and_then(|()| file.rewind());
        read.map_err(failure(&self.path))?;
        let matrix = Matrix { scales, statistics: self.record.statistics.clone() };
        Ok((Unspooled { path: self.path.clone(), file }, matrix))
    }
}

impl Unspooled {
    /// Reads the next bytes.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<(), ConvertError> {
        self.file.read_exact(out).map_err(failure(&self.path))
    }
}
