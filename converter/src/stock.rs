//! The per-layer table in the form that the stock graph holds: one `[V, ld]` of codes per layer.
//!
//! The table is read by rows that hold all layers, the graph wants layer after layer. So the codes are spread once into a
//! temporary file of the table's size, in the graph's order, which is removed with this value.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use half::bf16;
use output::{Disk, WrittenFile};
use progress::Progress;
use quantizer::quantize_rows;

use crate::blob::Content;
use crate::buffers::Pool;
use crate::error::{ConvertError, PlanError};
use crate::journal::{Entry, Journal, JournalError};
use crate::ordered::for_each_in_order;
use checkpoint::config::{DecoderConfig, PerLayer};
use checkpoint::source::{Reading, Source, bytes_of};
use checkpoint::{Checkpoint, Role};

/// Least number of elements that a worker takes at a time: whole rows.
const PIECE: usize = 1 << 22;

/// The temporary file.
const FILE: &str = "per-layer-table";

/// Codes layer after layer in a temporary file, and row scales.
#[derive(Debug)]
pub struct StockTable {
    spool: File,
    path: PathBuf,
    /// Name of the tensor.
    tensor: String,
    /// Bytes of one layer's codes.
    layer_bytes: u64,
    scales: Vec<f32>,
}

impl StockTable {
    /// Bytes of temporary space that the table takes, with its scales.
    pub fn spool_bytes(config: &DecoderConfig, per_layer: PerLayer) -> u64 {
        StockTable::code_bytes(config, per_layer) + (config.vocab * size_of::<f32>()) as u64
    }

    fn code_bytes(config: &DecoderConfig, per_layer: PerLayer) -> u64 {
        config.vocab as u64 * per_layer.total as u64
    }

    /// Quantizes the table of a checkpoint into a file in a folder, on a disk.
    ///
    /// # Errors
    /// If the table cannot be read, holds an element that is not finite, the file cannot be written, or it is cancelled.
    pub fn new(
        source: &dyn Source,
        config: &DecoderConfig,
        checkpoint: &Checkpoint,
        (disk, directory): (&Disk, &Path),
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<Self, ConvertError> {
        let path = directory.join(FILE);
        let io = |source| ConvertError::Io { path: path.clone(), source };
        let tensor = checkpoint.require(Role::EmbedTokensPerLayer)?;
        progress.begin(&tensor.name);
        source.will_read_in_order(&[tensor]);
        let PerLayer { width: layer_width, total: width } = config.per_layer.ok_or(PlanError::NoPerLayer)?;
        let layer_bytes = config.vocab as u64 * layer_width as u64;
        let spool =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path).map_err(io)?;
        let mut table = StockTable {
            spool,
            path: path.clone(),
            tensor: tensor.name.clone(),
            layer_bytes,
            scales: Vec::new(),
        };
        let rows_a_piece = (PIECE / width).clamp(1, config.vocab);
        let (inputs, outputs) = (Pool::<bf16>::new(), Pool::<u8>::new());
        let spread = &table;
        let produce = |piece: usize| {
            let first = piece * rows_a_piece;
            let rows = rows_a_piece.min(config.vocab - first);
            let mut weights = inputs.take(rows * width);
            source.read_weights(tensor, (first * width) as u64, &mut weights)?;
            let (mut codes, mut scales) = (outputs.take(rows * width), vec![0.0; rows]);
            quantize_rows(&weights, width, &mut codes, &mut scales).map_err(|error| {
                ConvertError::Element { tensor: tensor.name.clone(), source: error.shifted(first * width) }
            })?;
            inputs.give(weights);
            let mut columns = outputs.take(rows * layer_width);
            for layer in 0..config.layers.len() {
                take_columns(&codes, width, layer * layer_width, layer_width, &mut columns);
                let offset = layer as u64 * layer_bytes + (first * layer_width) as u64;
                let written = disk.write(&columns, |bytes| spread.spool.write_all_at(bytes, offset));
                written.map_err(io)?;
            }
            outputs.give(columns);
            outputs.give(codes);
            Ok((rows, scales))
        };
        let mut reading = Reading::new(source, tensor);
        let mut all_scales = Vec::with_capacity(config.vocab);
        let pieces = config.vocab.div_ceil(rows_a_piece);
        for_each_in_order(pieces, threads, threads * 2, produce, |_, (rows, scales)| {
            if progress.cancelled() {
                return Err(ConvertError::Interrupted);
            }
            all_scales.extend(scales);
            let bytes = bytes_of((rows * width) as u64);
            progress.advance(bytes);
            reading.advance(bytes);
            Ok(())
        })?;
        table.scales = all_scales;
        Ok(table)
    }

    /// The table that an interrupted run has left.
    pub(crate) fn resume(
        config: &DecoderConfig,
        directory: &Path,
        file: &WrittenFile,
    ) -> Result<Self, ConvertError> {
        let path = directory.join(FILE);
        let io = |source| ConvertError::Io { path: path.clone(), source };
        let per_layer = config.per_layer.ok_or(PlanError::NoPerLayer)?;
        if file.bytes != StockTable::spool_bytes(config, per_layer) || !file.is_whole(&path).map_err(io)? {
            return Err(JournalError::Damaged { path }.into());
        }
        let spool = File::open(&path).map_err(io)?;
        let mut scales = vec![0.0; config.vocab];
        let scales_bytes = bytemuck::cast_slice_mut(&mut scales);
        spool.read_exact_at(scales_bytes, StockTable::code_bytes(config, per_layer)).map_err(io)?;
        let layer_bytes = config.vocab as u64 * per_layer.width as u64;
        Ok(StockTable { spool, path, tensor: String::new(), layer_bytes, scales })
    }

    /// Records that the table is complete, with its scales after the codes.
    pub(crate) fn note(&self, journal: &mut Journal) -> Result<(), ConvertError> {
        if !journal.is_on() {
            return Ok(());
        }
        let io = |source| ConvertError::Io { path: self.path.clone(), source };
        let codes = self.spool.metadata().map_err(io)?.len();
        let scales = bytemuck::cast_slice(&self.scales);
        journal.disk().write(scales, |bytes| self.spool.write_all_at(bytes, codes)).map_err(io)?;
        let file = WrittenFile::of(&self.path).map_err(io)?;
        Ok(journal.record(&Entry::Stock { name: self.tensor.clone(), file })?)
    }

    /// Fills `out` with a blob's bytes from `offset` on.
    ///
    /// # Errors
    /// If the temporary file cannot be read, or the blob is not one of the table's.
    pub(crate) fn read(&self, content: Content, offset: u64, out: &mut [u8]) -> Result<(), ConvertError> {
        let io = |source| ConvertError::Io { path: self.path.clone(), source };
        match content {
            Content::TableCodes(layer) => {
                self.spool.read_exact_at(out, layer as u64 * self.layer_bytes + offset).map_err(io)
            }
            Content::TableScales => {
                let bytes: &[u8] = bytemuck::cast_slice(&self.scales);
                let start = offset as usize;
                let part = bytes.get(start..start + out.len());
                out.copy_from_slice(part.ok_or_else(|| io(io::ErrorKind::UnexpectedEof.into()))?);
                Ok(())
            }
            Content::Tensor(_) | Content::Scales(_) => Err(io(io::ErrorKind::InvalidInput.into())),
        }
    }
}

/// Copies columns `start..start + count` of every row of `width`.
fn take_columns(rows: &[u8], width: usize, start: usize, count: usize, out: &mut [u8]) {
    for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(count)) {
        out.copy_from_slice(&row[start..start + count]);
    }
}
