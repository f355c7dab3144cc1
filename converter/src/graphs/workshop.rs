//! What the workers do: read a piece of a tensor, and make everything of it that is to be made.

use half::{bf16, f16};

use super::course::{Course, Origin, Piece};
use crate::buffers::Pool;
use crate::error::ConvertError;
use crate::plan::Encoding;
use crate::quant::{self, QuantizeError, Statistics};
use crate::stock::StockTable;
use crate::tables::TableRows;
use checkpoint::source::Source;

/// A blob's bytes, made of a piece.
#[derive(Default)]
pub(super) struct Product {
    pub(super) bytes: Vec<u8>,
    pub(super) scales: Vec<f16>,
    pub(super) statistics: Option<Statistics>,
}

/// Everything that was made of a piece.
#[derive(Default)]
pub(super) struct Made {
    /// For the blob whose turn it is.
    pub(super) now: Product,
    /// For the blobs further back, in the order of [`Course::later`].
    pub(super) later: Vec<Product>,
    /// For the table.
    pub(super) rows: Option<TableRows>,
}

/// What the workers share.
pub(super) struct Workshop<'s> {
    source: &'s dyn Source,
    course: &'s Course<'s>,
    inputs: Pool<bf16>,
    outputs: Pool<u8>,
    scales: Pool<f16>,
}

impl<'s> Workshop<'s> {
    pub(super) fn new(source: &'s dyn Source, course: &'s Course<'s>) -> Self {
        Workshop { source, course, inputs: Pool::new(), outputs: Pool::new(), scales: Pool::new() }
    }

    pub(super) fn make(&self, piece: &Piece<'_>) -> Result<Made, ConvertError> {
        match piece.origin {
            Origin::Tensor(encoding) => self.convert(piece, encoding),
            Origin::Stock(table) => self.copy_stock(piece, table),
            Origin::Scales | Origin::Spool => Ok(Made::default()),
        }
    }

    /// Takes the buffers back.
    pub(super) fn give_back(&self, made: Made) {
        for product in std::iter::once(made.now).chain(made.later) {
            self.outputs.give(product.bytes);
            self.scales.give(product.scales);
        }
        if let Some(rows) = made.rows {
            self.outputs.give(rows.bytes);
        }
    }

    fn copy_stock(&self, piece: &Piece<'_>, table: &StockTable) -> Result<Made, ConvertError> {
        let width = piece.blob.element.inline_bytes() as usize;
        let mut bytes = self.outputs.take(piece.count * width);
        table.read(piece.blob.content, (piece.start * width) as u64, &mut bytes)?;
        Ok(Made { now: Product { bytes, ..Product::default() }, ..Made::default() })
    }

    fn convert(&self, piece: &Piece<'_>, encoding: Encoding) -> Result<Made, ConvertError> {
        if piece.first {
            self.source.will_read(piece.tensor);
        }
        let mut weights = self.inputs.take(piece.count);
        let offset = piece.start as u64 * size_of::<bf16>() as u64;
        self.source.read_at(piece.tensor, offset, bytemuck::cast_slice_mut(&mut weights))?;
        let made = self.make_all(piece, encoding, &weights).map_err(|error| ConvertError::Element {
            tensor: piece.tensor.name.clone(),
            source: error.shifted(piece.start),
        })?;
        self.inputs.give(weights);
        Ok(made)
    }

    fn make_all(
        &self,
        piece: &Piece<'_>,
        encoding: Encoding,
        weights: &[bf16],
    ) -> Result<Made, QuantizeError> {
        let now = self.encode(encoding, weights)?;
        let later = self.course.later_encodings(piece.at).iter();
        let later = later.map(|encoding| self.encode(*encoding, weights)).collect::<Result<_, _>>()?;
        let rows = self.course.table(piece.at).map(|job| job.convert(weights, &self.outputs)).transpose()?;
        Ok(Made { now, later, rows })
    }

    fn encode(&self, encoding: Encoding, weights: &[bf16]) -> Result<Product, QuantizeError> {
        let count = weights.len();
        match encoding {
            Encoding::Int4(rule) => {
                let (mut bytes, mut scales) =
                    (self.outputs.take(count / 2), self.scales.take(count / quant::BLOCK));
                let statistics = quant::quantize_int4_serial(rule, weights, &mut bytes, &mut scales)?;
                Ok(Product { bytes, scales, statistics: Some(statistics) })
            }
            Encoding::Int8 => {
                let (mut bytes, mut scales) =
                    (self.outputs.take(count), self.scales.take(count / quant::BLOCK));
                let codes = bytemuck::cast_slice_mut(&mut bytes);
                let statistics = quant::quantize_int8_serial(weights, codes, &mut scales)?;
                Ok(Product { bytes, scales, statistics: Some(statistics) })
            }
            Encoding::F16 => {
                // Rounded through f16 scratch that becomes bytes.
                let mut halves = self.scales.take(count);
                quant::to_f16_serial(weights, &mut halves)?;
                let mut bytes = self.outputs.take(count * size_of::<f16>());
                bytes.copy_from_slice(bytemuck::cast_slice(&halves));
                self.scales.give(halves);
                Ok(Product { bytes, ..Product::default() })
            }
        }
    }
}
