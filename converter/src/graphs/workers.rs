//! What the workers do: read a piece of a tensor, and make everything that is made from it.

use half::{bf16, f16};
use quantizer::{QuantizeError, RuleSample, Statistics};

use super::schedule::{Piece, Schedule, Step, Work};
use crate::buffers::Pool;
use crate::error::ConvertError;
use crate::recipe::Treatment;
use crate::stock::StockTable;
use crate::tables::TableRows;
use checkpoint::source::Source;

/// A blob's bytes for a piece.
#[derive(Default)]
pub(super) struct Product {
    pub(super) bytes: Vec<u8>,
    pub(super) scales: Vec<f16>,
    pub(super) statistics: Option<Statistics>,
}

/// Everything that was made from a piece.
#[derive(Default)]
pub(super) struct Made {
    /// For the blob whose turn it is.
    pub(super) now: Product,
    /// For the later blobs, in the order of [`Step::later`].
    pub(super) later: Vec<Product>,
    /// For the table.
    pub(super) rows: Option<TableRows>,
}

/// What the workers share.
pub(super) struct Workers<'s> {
    source: &'s dyn Source,
    schedule: &'s Schedule<'s>,
    inputs: Pool<bf16>,
    outputs: Pool<u8>,
    scales: Pool<f16>,
}

impl<'s> Workers<'s> {
    pub(super) fn new(source: &'s dyn Source, schedule: &'s Schedule<'s>) -> Self {
        Workers { source, schedule, inputs: Pool::new(), outputs: Pool::new(), scales: Pool::new() }
    }

    pub(super) fn make(&self, piece: &Piece) -> Result<Made, ConvertError> {
        let step = self.schedule.step(piece);
        match step.work {
            Work::Read(treatment) => self.convert(piece, step, treatment),
            Work::Table(table) => self.copy_table(piece, step, table),
            Work::Scales | Work::Unspool => Ok(Made::default()),
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

    fn copy_table(&self, piece: &Piece, step: &Step<'_>, table: &StockTable) -> Result<Made, ConvertError> {
        let bytes_of = |elements: usize| step.blob.bytes_of(elements as u64);
        let mut bytes = self.outputs.take(bytes_of(piece.count) as usize);
        table.read(step.blob.content, bytes_of(piece.start), &mut bytes)?;
        Ok(Made { now: Product { bytes, ..Product::default() }, ..Made::default() })
    }

    fn convert(&self, piece: &Piece, step: &Step<'_>, treatment: Treatment) -> Result<Made, ConvertError> {
        if piece.first {
            self.source.will_read(step.tensor);
        }
        let mut weights = self.inputs.take(piece.count);
        self.source.read_weights(step.tensor, piece.start as u64, &mut weights)?;
        let made = self.make_all(step, treatment, &weights).map_err(|error| ConvertError::Element {
            tensor: step.tensor.name.clone(),
            source: error.shifted(piece.start),
        })?;
        self.inputs.give(weights);
        Ok(made)
    }

    fn make_all(
        &self,
        step: &Step<'_>,
        treatment: Treatment,
        weights: &[bf16],
    ) -> Result<Made, QuantizeError> {
        let now = self.treat(treatment, weights)?;
        let later = step.later.iter().map(|(_, treatment)| self.treat(*treatment, weights));
        let later = later.collect::<Result<_, _>>()?;
        let rows = step.table.map(|job| job.convert(weights, &self.outputs)).transpose()?;
        Ok(Made { now, later, rows })
    }

    fn treat(&self, treatment: Treatment, weights: &[bf16]) -> Result<Product, QuantizeError> {
        let count = weights.len();
        match treatment {
            Treatment::Int4(rule) => {
                let (mut bytes, mut scales) =
                    (self.outputs.take(count / 2), self.scales.take(count / quantizer::BLOCK));
                let mut statistics = quantizer::quantize_int4(rule, weights, &mut bytes, &mut scales)?;
                statistics.sample = RuleSample::of(weights);
                Ok(Product { bytes, scales, statistics: Some(statistics) })
            }
            Treatment::Int8 => {
                let (mut bytes, mut scales) =
                    (self.outputs.take(count), self.scales.take(count / quantizer::BLOCK));
                let codes = bytemuck::cast_slice_mut(&mut bytes);
                let statistics = quantizer::quantize_int8(weights, codes, &mut scales)?;
                Ok(Product { bytes, scales, statistics: Some(statistics) })
            }
            Treatment::F16 => {
                // Rounded through f16 scratch that becomes bytes.
                let mut halves = self.scales.take(count);
                quantizer::to_f16(weights, &mut halves)?;
                let mut bytes = self.outputs.take(count * size_of::<f16>());
                bytes.copy_from_slice(bytemuck::cast_slice(&halves));
                self.scales.give(halves);
                Ok(Product { bytes, ..Product::default() })
            }
        }
    }
}
