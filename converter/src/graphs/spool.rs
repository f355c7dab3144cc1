//! A blob that is made before its turn: its bytes wait in a temporary file, followed by its scales.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

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

/// Bytes of scales that are copied at a time.
const COPIED: usize = 1 << 20;

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
        let folder = self.path.parent().unwrap_or(Path::new("."));
        self.matrix.append(product, folder).map_err(failure(&self.path))?;
        self.file.write(&product.bytes).map_err(failure(&self.path))
    }

    /// Ends the writing.
    pub(super) fn finish(mut self) -> Result<WaitingBlob, ConvertError> {
        let mut scales = self.matrix.take_scales().map_err(failure(&self.path))?;
        let mut buffer = vec![0; COPIED];
        loop {
            match scales.read(&mut buffer).map_err(failure(&self.path))? {
                0 => break,
                count => self.file.write(&buffer[..count]).map_err(failure(&self.path))?,
            }
        }
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

    /// Opens it for reading: `bytes` bytes of the blob, followed by its scales, which are read now. A temporary file would be made in
    /// this folder.
    pub(super) fn open(&self, bytes: u64, folder: &Path) -> Result<(File, Matrix), ConvertError> {
        let open = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(bytes))?;
            let matrix = Matrix::of_rest(&mut file, folder, self.record.statistics.clone())?;
            file.rewind()?;
            Ok((file, matrix))
        };
        open().map_err(failure(&self.path))
    }
}
