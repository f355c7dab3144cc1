//! A blob that is made before its turn: its bytes wait in a nameless temporary file, its scales in memory.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::sink::Matrix;
use super::workshop::Product;
use crate::error::ConvertError;

/// A blob that waits.
pub(super) struct Spool {
    file: File,
    directory: PathBuf,
    /// What is known of the matrix besides its codes.
    matrix: Matrix,
}

impl Spool {
    /// Begins in this folder.
    pub(super) fn new(directory: &Path) -> Result<Self, ConvertError> {
        let file = tempfile::tempfile_in(directory).map_err(|error| failure(directory, error))?;
        Ok(Spool { file, directory: directory.to_owned(), matrix: Matrix::default() })
    }

    /// Appends what was made of a piece.
    pub(super) fn append(&mut self, product: &Product) -> Result<(), ConvertError> {
        self.matrix.append(product);
        self.file.write_all(&product.bytes).map_err(|error| failure(&self.directory, error))
    }

    /// Ends the writing: what follows is read from the front.
    pub(super) fn rewind(&mut self) -> Result<Matrix, ConvertError> {
        self.file.rewind().map_err(|error| failure(&self.directory, error))?;
        Ok(std::mem::take(&mut self.matrix))
    }

    /// Reads the next bytes.
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<(), ConvertError> {
        self.file.read_exact(out).map_err(|error| failure(&self.directory, error))
    }
}

fn failure(directory: &Path, source: io::Error) -> ConvertError {
    ConvertError::Io { path: directory.to_owned(), source }
}
