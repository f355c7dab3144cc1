//! Takes what the workers made, in order, and brings it to packages, tables and spools.

use std::collections::BTreeMap;
use std::path::Path;

use aimodel::package::{PackageMetadata, PackageWriter};
use half::{bf16, f16};

use super::course::{Course, Origin, Piece};
use super::spool::Spool;
use super::workshop::{Made, Product};
use super::{Destination, GraphPass, WrittenGraphs};
use crate::decoder::WeightFormat;
use crate::error::ConvertError;
use crate::figures::{Figures, TensorFigures};
use crate::plan::{PlannedBlob, Treatment};
use crate::quant::Statistics;
use crate::source::Reading;
use crate::tables::{TableOutput, TableWriter};

/// Bytes that go from a spool to the packages at a time.
const COPIED: usize = 1 << 20;

/// What is known of a matrix besides its codes: its scales, which stand behind them, and what quantization did.
#[derive(Default)]
pub(super) struct Matrix {
    scales: Vec<f16>,
    statistics: Option<Statistics>,
}

impl Matrix {
    /// Adds what was made of a piece.
    pub(super) fn append(&mut self, product: &Product) {
        self.scales.extend_from_slice(&product.scales);
        let Some(statistics) = &product.statistics else { return };
        match &mut self.statistics {
            Some(sum) => sum.merge(statistics),
            None => self.statistics = Some(statistics.clone()),
        }
    }
}

/// Everything that is being written.
pub(super) struct Sink<'d> {
    pass: &'d GraphPass<'d>,
    course: &'d Course<'d>,
    writers: Vec<PackageWriter<'d>>,
    /// The tensor that is being read.
    reading: Option<Reading<'d>>,
    /// The matrix whose codes are being written.
    matrix: Matrix,
    /// Blobs whose turn has not come, by number.
    spools: BTreeMap<usize, Spool>,
    /// The table that is being written beside the blob.
    table: Option<TableOutput>,
    figures: Figures,
}

impl<'d> Sink<'d> {
    pub(super) fn create(
        pass: &'d GraphPass<'d>,
        destinations: &'d [Destination<'_>],
        course: &'d Course<'d>,
    ) -> Result<Self, ConvertError> {
        let writers = destinations.iter().map(|destination| {
            PackageWriter::create(Path::new(&destination.directory), &destination.plan.layout)
        });
        Ok(Sink {
            pass,
            course,
            writers: writers.collect::<Result<_, _>>()?,
            reading: None,
            matrix: Matrix::default(),
            spools: BTreeMap::new(),
            table: None,
            figures: Figures::default(),
        })
    }

    /// Writes what was made of a piece, and gives the buffers back.
    pub(super) fn take(
        &mut self,
        piece: &Piece<'d>,
        made: Made,
        tables: Option<&mut TableWriter<'_>>,
    ) -> Result<Made, ConvertError> {
        if self.pass.observer.cancelled() {
            return Err(ConvertError::Interrupted);
        }
        if piece.first {
            self.pass.observer.tensor(&piece.tensor.name);
        }
        match piece.origin {
            Origin::Tensor => self.take_read(piece, &made, tables)?,
            Origin::Spool => self.take_spooled(piece)?,
            Origin::Stock => {
                self.put(&made.now.bytes)?;
                self.pass.observer.advance((piece.count * size_of::<bf16>()) as u64);
            }
            Origin::Scales => {
                let matrix = std::mem::take(&mut self.matrix);
                self.put(bytemuck::cast_slice(&matrix.scales))?;
            }
        }
        Ok(made)
    }

    fn take_read(
        &mut self,
        piece: &Piece<'d>,
        made: &Made,
        tables: Option<&mut TableWriter<'_>>,
    ) -> Result<(), ConvertError> {
        if piece.first {
            self.begin(piece, tables.as_deref())?;
        }
        self.put(&made.now.bytes)?;
        self.matrix.append(&made.now);
        for (at, product) in self.course.later(piece.at).iter().zip(&made.later) {
            if let Some(spool) = self.spools.get_mut(at) {
                spool.append(product)?;
            }
        }
        if let (Some(table), Some(rows)) = (&mut self.table, &made.rows) {
            table.put(rows)?;
        }
        let bytes = (piece.count * size_of::<bf16>()) as u64;
        self.pass.observer.advance(bytes);
        if let Some(reading) = &mut self.reading {
            reading.advance(bytes);
        }
        if piece.last {
            self.report(piece);
            if let (Some(tables), Some(table)) = (tables, self.table.take()) {
                tables.end(table)?;
            }
        }
        Ok(())
    }

    /// A tensor is read: opens what else is made of it.
    fn begin(&mut self, piece: &Piece<'d>, tables: Option<&TableWriter<'_>>) -> Result<(), ConvertError> {
        self.reading = Some(Reading::new(self.pass.source, piece.tensor));
        for at in self.course.later(piece.at) {
            self.spools.insert(*at, Spool::new(self.pass.scratch)?);
        }
        if let (Some(tables), Some(job)) = (tables, self.course.table(piece.at)) {
            self.table = Some(tables.begin(job)?);
        }
        Ok(())
    }

    fn take_spooled(&mut self, piece: &Piece<'_>) -> Result<(), ConvertError> {
        let Some(mut spool) = self.spools.remove(&piece.at) else { return Ok(()) };
        if piece.first {
            self.matrix = spool.rewind()?;
        }
        let mut left = piece.blob.treatment.bytes(piece.count);
        let mut buffer = vec![0; left.min(COPIED)];
        while left > 0 {
            let bytes = &mut buffer[..left.min(COPIED)];
            spool.read(bytes)?;
            self.put(bytes)?;
            left -= bytes.len();
        }
        if piece.last {
            self.report(piece);
        } else {
            self.spools.insert(piece.at, spool);
        }
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        self.writers.iter_mut().try_for_each(|writer| writer.write(bytes)).map_err(ConvertError::from)
    }

    /// Adds the figures of a matrix whose codes are whole.
    fn report(&mut self, piece: &Piece<'_>) {
        let Some(statistics) = self.matrix.statistics.take() else { return };
        let format = match piece.blob.treatment {
            Treatment::Int8 => WeightFormat::Int8,
            _ => WeightFormat::Int4,
        };
        let PlannedBlob { key, shape, .. } = piece.blob;
        let name = key.trim_end_matches("/codes").to_owned();
        let (tensor, shape) = (piece.tensor.name.clone(), shape.clone());
        self.figures.tensors.push(TensorFigures { name, tensor, shape, format, statistics });
    }

    pub(super) fn finish(self, metadata: &PackageMetadata) -> Result<WrittenGraphs, ConvertError> {
        let packages =
            self.writers.into_iter().map(|writer| writer.finish(metadata)).collect::<Result<_, _>>()?;
        Ok(WrittenGraphs { packages, figures: self.figures })
    }
}
