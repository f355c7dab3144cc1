//! Writes graphs: every blob of the plan, streamed through the quantizers on all cores, to one or several packages at once.

use std::path::{Path, PathBuf};

use aimodel::package::{PackageMetadata, PackageWriter, WrittenPackage};
use half::{bf16, f16};

use crate::buffers::Pool;
use crate::checkpoint::{Checkpoint, Role};
use crate::decoder::{BlobContent, Part, WeightFormat};
use crate::error::ConvertError;
use crate::figures::{Figures, TensorFigures};
use crate::observer::Observer;
use crate::ordered::for_each_in_order;
use crate::plan::{GraphPlan, PlannedBlob, Treatment};
use crate::quant::{self, QuantizeError, Statistics};
use crate::source::{Source, TensorEntry};
use crate::stock::StockTable;

/// Elements that a worker takes at a time. A multiple of the block, so that blocks never span two pieces.
const PIECE: usize = 1 << 20;

/// Where a graph goes.
#[derive(Debug)]
pub struct Destination<'p> {
    /// What to write.
    pub plan: &'p GraphPlan,
    /// Package directory to make.
    pub directory: PathBuf,
}

/// What was written.
#[derive(Debug)]
pub struct WrittenGraphs {
    /// Packages, in the order of the destinations.
    pub packages: Vec<WrittenPackage>,
    /// What quantization did to the weights.
    pub figures: Figures,
}

/// A stretch of one blob.
struct Piece<'p> {
    blob: &'p PlannedBlob,
    tensor: &'p TensorEntry,
    start: usize,
    count: usize,
    /// Whether the blob begins, and whether it ends, with this piece.
    first: bool,
    last: bool,
}

/// What a worker makes of a piece.
#[derive(Default)]
struct Made {
    bytes: Vec<u8>,
    scales: Vec<f16>,
    statistics: Option<Statistics>,
}

/// Writes packages whose plans hold the same blobs in the same order, from one pass over the checkpoint.
///
/// # Errors
/// If the checkpoint cannot be read, holds an element that cannot be converted, a package cannot be written, or the observer
/// ends the run. The package directories are then incomplete.
pub fn write(
    source: &dyn Source,
    checkpoint: &Checkpoint,
    destinations: &[Destination<'_>],
    metadata: &PackageMetadata,
    stock: Option<&StockTable>,
    threads: usize,
    observer: &dyn Observer,
) -> Result<WrittenGraphs, ConvertError> {
    let Some(first) = destinations.first() else {
        return Ok(WrittenGraphs { packages: Vec::new(), figures: Figures::default() });
    };
    let pieces = pieces(&first.plan.blobs, checkpoint)?;
    source.will_read_in_order(&reads(&pieces));
    let workshop = Workshop { source, stock, inputs: Pool::new(), outputs: Pool::new(), scales: Pool::new() };
    let mut sink = Sink::create(destinations, observer)?;
    for_each_in_order(
        pieces.len(),
        threads,
        threads * 2,
        |at| workshop.make(&pieces[at]),
        |at, made| {
            let made = sink.take(&pieces[at], made)?;
            workshop.outputs.give(made.bytes);
            workshop.scales.give(made.scales);
            Ok(())
        },
    )?;
    sink.finish(metadata)
}

fn pieces<'p>(blobs: &'p [PlannedBlob], checkpoint: &'p Checkpoint) -> Result<Vec<Piece<'p>>, ConvertError> {
    let mut pieces = Vec::new();
    for blob in blobs {
        let tensor = checkpoint.require(role_of(blob.content))?;
        let elements: usize = blob.shape.iter().map(|extent| *extent as usize).product();
        // Scales come out of the pass over the codes in front of them: one piece, nothing to read.
        let is_scales = matches!(blob.content, BlobContent::Quantized { part: Part::Scales, .. });
        let step = if is_scales { elements } else { PIECE };
        for start in (0..elements).step_by(step) {
            let count = step.min(elements - start);
            pieces.push(Piece {
                blob,
                tensor,
                start,
                count,
                first: start == 0,
                last: start + count == elements,
            });
        }
    }
    Ok(pieces)
}

/// The tensors that the pieces are made of, in order.
fn reads<'p>(pieces: &[Piece<'p>]) -> Vec<&'p TensorEntry> {
    let is_read =
        |content| matches!(content, BlobContent::Whole(_) | BlobContent::Quantized { part: Part::Codes, .. });
    pieces
        .iter()
        .filter(|piece| piece.first && is_read(piece.blob.content))
        .map(|piece| piece.tensor)
        .collect()
}

fn role_of(content: BlobContent) -> Role {
    match content {
        BlobContent::Whole(role) | BlobContent::Quantized { role, .. } => role,
        BlobContent::PerLayerCodes { .. } | BlobContent::PerLayerScales => Role::EmbedTokensPerLayer,
    }
}

/// What the workers share.
struct Workshop<'s> {
    source: &'s dyn Source,
    stock: Option<&'s StockTable>,
    inputs: Pool<bf16>,
    outputs: Pool<u8>,
    scales: Pool<f16>,
}

impl Workshop<'_> {
    fn make(&self, piece: &Piece<'_>) -> Result<Made, ConvertError> {
        match piece.blob.content {
            BlobContent::Quantized { part: Part::Scales, .. } => Ok(Made::default()),
            BlobContent::PerLayerCodes { .. } | BlobContent::PerLayerScales => self.copy_stock(piece),
            BlobContent::Whole(_) | BlobContent::Quantized { part: Part::Codes, .. } => self.convert(piece),
        }
    }

    fn copy_stock(&self, piece: &Piece<'_>) -> Result<Made, ConvertError> {
        let width = piece.blob.element.inline_bytes() as usize;
        let mut bytes = self.outputs.take(piece.count * width);
        if let Some(stock) = self.stock {
            stock.read(piece.blob.content, (piece.start * width) as u64, &mut bytes)?;
        }
        Ok(Made { bytes, ..Made::default() })
    }

    fn convert(&self, piece: &Piece<'_>) -> Result<Made, ConvertError> {
        if piece.first {
            self.source.will_read(piece.tensor);
        }
        let mut weights = self.inputs.take(piece.count);
        let offset = piece.start as u64 * size_of::<bf16>() as u64;
        self.source.read_at(piece.tensor, offset, bytemuck::cast_slice_mut(&mut weights))?;
        let made = self.quantize(piece.blob.treatment, &weights).map_err(|error| ConvertError::Element {
            tensor: piece.tensor.name.clone(),
            source: error.shifted(piece.start),
        })?;
        self.inputs.give(weights);
        Ok(made)
    }

    fn quantize(&self, treatment: Treatment, weights: &[bf16]) -> Result<Made, QuantizeError> {
        let count = weights.len();
        match treatment {
            Treatment::Int4(rule) => {
                let (mut bytes, mut scales) =
                    (self.outputs.take(count / 2), self.scales.take(count / quant::BLOCK));
                let statistics = quant::quantize_int4_serial(rule, weights, &mut bytes, &mut scales)?;
                Ok(Made { bytes, scales, statistics: Some(statistics) })
            }
            Treatment::Int8 => {
                let (mut bytes, mut scales) =
                    (self.outputs.take(count), self.scales.take(count / quant::BLOCK));
                let codes = bytemuck::cast_slice_mut(&mut bytes);
                let statistics = quant::quantize_int8_serial(weights, codes, &mut scales)?;
                Ok(Made { bytes, scales, statistics: Some(statistics) })
            }
            Treatment::F16 | Treatment::F32 | Treatment::RowInt8 => {
                // Rounded through f16 scratch that becomes bytes; no other treatment reaches a graph's own tensors.
                let mut halves = self.scales.take(count);
                quant::to_f16_serial(weights, &mut halves)?;
                let mut bytes = self.outputs.take(count * size_of::<f16>());
                bytes.copy_from_slice(bytemuck::cast_slice(&halves));
                self.scales.give(halves);
                Ok(Made { bytes, ..Made::default() })
            }
        }
    }
}

/// Takes results in order and appends them to every package.
struct Sink<'d> {
    writers: Vec<PackageWriter<'d>>,
    observer: &'d dyn Observer,
    /// Scales of the matrix whose codes are being written.
    scales: Vec<f16>,
    statistics: Option<Statistics>,
    figures: Figures,
}

impl<'d> Sink<'d> {
    fn create(destinations: &'d [Destination<'_>], observer: &'d dyn Observer) -> Result<Self, ConvertError> {
        let writers = destinations.iter().map(|destination| {
            PackageWriter::create(Path::new(&destination.directory), &destination.plan.layout)
        });
        let writers = writers.collect::<Result<_, _>>()?;
        Ok(Sink { writers, observer, scales: Vec::new(), statistics: None, figures: Figures::default() })
    }

    fn take(&mut self, piece: &Piece<'_>, made: Made) -> Result<Made, ConvertError> {
        if self.observer.cancelled() {
            return Err(ConvertError::Interrupted);
        }
        if piece.first {
            self.observer.tensor(&piece.tensor.name);
        }
        if matches!(piece.blob.content, BlobContent::Quantized { part: Part::Scales, .. }) {
            let scales = std::mem::take(&mut self.scales);
            self.put(bytemuck::cast_slice(&scales))?;
            self.scales = scales;
            self.scales.clear();
            return Ok(made);
        }
        self.put(&made.bytes)?;
        self.scales.extend_from_slice(&made.scales);
        if let Some(statistics) = &made.statistics {
            self.count(piece, statistics);
        }
        self.observer.advance((piece.count * size_of::<bf16>()) as u64);
        Ok(made)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        self.writers.iter_mut().try_for_each(|writer| writer.write(bytes)).map_err(ConvertError::from)
    }

    /// Adds a piece's figures to its tensor's, and the tensor's to the report when it is whole.
    fn count(&mut self, piece: &Piece<'_>, statistics: &Statistics) {
        let sum = match self.statistics.take() {
            Some(mut sum) => {
                sum.merge(statistics);
                sum
            }
            None => statistics.clone(),
        };
        if piece.last {
            let format = match piece.blob.treatment {
                Treatment::Int8 => WeightFormat::Int8,
                _ => WeightFormat::Int4,
            };
            let name = piece.blob.key.trim_end_matches("/codes").to_owned();
            let (tensor, shape) = (piece.tensor.name.clone(), piece.blob.shape.clone());
            self.figures.tensors.push(TensorFigures { name, tensor, shape, format, statistics: sum });
        } else {
            self.statistics = Some(sum);
        }
    }

    fn finish(self, metadata: &PackageMetadata) -> Result<WrittenGraphs, ConvertError> {
        let packages =
            self.writers.into_iter().map(|writer| writer.finish(metadata)).collect::<Result<_, _>>()?;
        Ok(WrittenGraphs { packages, figures: self.figures })
    }
}
