//! The order of work: which blob reads its tensor, and what else is made of it then.

use half::bf16;

use crate::decoder::{BlobContent, Part};
use crate::error::ConvertError;
use crate::journal::Done;
use crate::plan::{Encoding, PlanError, PlannedBlob};
use crate::stock::StockTable;
use crate::tables::{Job, TableWriter};
use checkpoint::source::TensorEntry;
use checkpoint::{Checkpoint, Role};

/// Elements that a worker takes at a time, at most, if a row has no more.
const PIECE: usize = 1 << 20;

/// Where a blob's bytes come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'p> {
    /// The tensor is read for it, and stored like this.
    Tensor(Encoding),
    /// They were made when the tensor was read for another blob.
    Spool,
    /// They came out of the pass over the codes in front of them.
    Scales,
    /// The per-layer table that was spread before.
    Stock(&'p StockTable),
}

/// A stretch of one blob: whole rows, and so whole blocks.
pub(super) struct Piece<'p> {
    /// Number of the blob.
    pub(super) at: usize,
    pub(super) blob: &'p PlannedBlob,
    pub(super) tensor: &'p TensorEntry,
    pub(super) origin: Origin<'p>,
    /// First element, and number of elements.
    pub(super) start: usize,
    pub(super) count: usize,
    /// Whether the blob begins, and whether it ends, with this piece.
    pub(super) first: bool,
    pub(super) last: bool,
}

/// All pieces in the order of the file, and what is shared among blobs and tables.
pub(super) struct Course<'p> {
    blobs: &'p [PlannedBlob],
    pub(super) pieces: Vec<Piece<'p>>,
    /// For each blob: blobs further back that are made of the same tensor.
    later: Vec<Vec<usize>>,
    /// How each of those is stored.
    later_encodings: Vec<Vec<Encoding>>,
    /// For each blob: the table that is made of the same tensor.
    tables: Vec<Option<&'p Job>>,
}

impl<'p> Course<'p> {
    pub(super) fn new(
        blobs: &'p [PlannedBlob],
        checkpoint: &'p Checkpoint,
        tables: Option<&TableWriter<'p>>,
        stock: Option<&'p StockTable>,
    ) -> Result<Self, ConvertError> {
        let mut course = Course {
            blobs,
            pieces: Vec::new(),
            later: vec![Vec::new(); blobs.len()],
            later_encodings: vec![Vec::new(); blobs.len()],
            tables: vec![None; blobs.len()],
        };
        for (at, blob) in blobs.iter().enumerate() {
            let role = role_of(blob.content);
            let origin = match kind_of(blob.content) {
                Kind::Scales => Origin::Scales,
                Kind::Stock => Origin::Stock(stock.ok_or_else(|| no_table(blob))?),
                Kind::Read => {
                    let encoding = encoding_of(blob)?;
                    match first_reader(&blobs[..at], blob) {
                        Some(reader) => {
                            course.later[reader].push(at);
                            course.later_encodings[reader].push(encoding);
                            Origin::Spool
                        }
                        None => {
                            course.tables[at] = tables.and_then(|tables| tables.job(role));
                            Origin::Tensor(encoding)
                        }
                    }
                }
            };
            course.add_pieces(at, checkpoint.require(role)?, origin);
        }
        Ok(course)
    }

    fn add_pieces(&mut self, at: usize, tensor: &'p TensorEntry, origin: Origin<'p>) {
        let blob = &self.blobs[at];
        let elements: usize = blob.shape.iter().map(|extent| *extent as usize).product();
        let row = blob.shape.last().map_or(1, |extent| *extent as usize).max(1);
        let step =
            if matches!(origin, Origin::Scales) { elements.max(1) } else { (PIECE / row).max(1) * row };
        for start in (0..elements).step_by(step) {
            let count = step.min(elements - start);
            let (first, last) = (start == 0, start + count == elements);
            self.pieces.push(Piece { at, blob, tensor, origin, start, count, first, last });
        }
    }

    /// Where the pieces of a blob begin.
    pub(super) fn first_piece(&self, blob: usize) -> usize {
        self.pieces.partition_point(|piece| piece.at < blob)
    }

    /// Whether a run over these blobs, to so many packages, can have finished this: every list has its length, and every blob that
    /// was made before its turn waits.
    pub(super) fn allows(&self, done: &Done, packages: usize) -> bool {
        let next = match (done.has_packages, done.next_blob) {
            (true, _) => self.blobs.len(),
            (false, Some(next)) if next <= self.blobs.len() => next,
            (false, None) => {
                return done.packages.is_empty() && done.figures.is_empty() && done.spools.is_empty();
            }
            _ => return false,
        };
        let mut waiting: Vec<usize> = self.later[..next].concat();
        waiting.retain(|at| *at >= next);
        waiting.sort_unstable();
        let spools = done.spools.iter().map(|spool| (spool.blob, spool.file.bytes));
        let matrices = self.blobs[..next].iter().filter_map(PlannedBlob::matrix);
        done.packages.len() == packages
            && spools.eq(waiting.into_iter().map(|at| (at, bytes_with_scales(self.blobs, at))))
            && done.figures.iter().map(|figures| &*figures.name).eq(matrices)
    }

    /// Blobs that are made of this blob's tensor and stand further back.
    pub(super) fn later(&self, at: usize) -> &[usize] {
        &self.later[at]
    }

    /// How each of those is stored.
    pub(super) fn later_encodings(&self, at: usize) -> &[Encoding] {
        &self.later_encodings[at]
    }

    /// The table that is made of this blob's tensor.
    pub(super) fn table(&self, at: usize) -> Option<&'p Job> {
        self.tables[at]
    }
}

/// The tensors that are read for these pieces, in order.
pub(super) fn tensors_of<'p>(pieces: &[Piece<'p>]) -> Vec<&'p TensorEntry> {
    let reads = pieces.iter().filter(|piece| piece.first && matches!(piece.origin, Origin::Tensor(_)));
    reads.map(|piece| piece.tensor).collect()
}

/// Bytes of the checkpoint that an observer hears of for these pieces.
pub(super) fn input_bytes(pieces: &[Piece<'_>]) -> u64 {
    let reads = pieces.iter().filter(|piece| matches!(piece.origin, Origin::Tensor(_) | Origin::Stock(_)));
    reads.map(|piece| (piece.count * size_of::<bf16>()) as u64).sum()
}

/// The blob for which this blob's tensor was read already.
fn first_reader(before: &[PlannedBlob], blob: &PlannedBlob) -> Option<usize> {
    if kind_of(blob.content) != Kind::Read {
        return None;
    }
    // By tensor, not by role: the tied head is the embedding in another role.
    before.iter().position(|other| kind_of(other.content) == Kind::Read && other.tensor == blob.tensor)
}

/// Bytes of blobs that wait in temporary files, with their scales.
pub(crate) fn spooled_bytes(blobs: &[PlannedBlob]) -> u64 {
    let is_spooled = |at: &usize| first_reader(&blobs[..*at], &blobs[*at]).is_some();
    (0..blobs.len()).filter(is_spooled).map(|at| bytes_with_scales(blobs, at)).sum()
}

/// Bytes of a blob and of the scales behind it.
fn bytes_with_scales(blobs: &[PlannedBlob], at: usize) -> u64 {
    let is_scales = |next: &&PlannedBlob| kind_of(next.content) == Kind::Scales;
    blobs[at].bytes + blobs.get(at + 1).filter(is_scales).map_or(0, |scales| scales.bytes)
}

/// The tensors that are read for these blobs, and how many bytes: as many times as they are read.
pub(crate) fn reads(blobs: &[PlannedBlob]) -> impl Iterator<Item = (Role, u64)> {
    let is_read = |at: &usize| {
        kind_of(blobs[*at].content) != Kind::Scales && first_reader(&blobs[..*at], &blobs[*at]).is_none()
    };
    let read = |at: usize| (role_of(blobs[at].content), 2 * blobs[at].shape.iter().product::<u64>());
    (0..blobs.len()).filter(is_read).map(read)
}

/// What a blob is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A tensor that is read.
    Read,
    /// The scales of the codes in front of it.
    Scales,
    /// The per-layer table.
    Stock,
}

fn kind_of(content: BlobContent) -> Kind {
    match content {
        BlobContent::Quantized { part: Part::Scales, .. } => Kind::Scales,
        BlobContent::PerLayerCodes { .. } | BlobContent::PerLayerScales => Kind::Stock,
        BlobContent::Whole(_) | BlobContent::Quantized { part: Part::Codes, .. } => Kind::Read,
    }
}

fn encoding_of(blob: &PlannedBlob) -> Result<Encoding, PlanError> {
    let error = || PlanError::Blob { key: blob.key.clone(), treatment: blob.treatment.name() };
    blob.treatment.encoding().ok_or_else(error)
}

fn no_table(blob: &PlannedBlob) -> PlanError {
    PlanError::NoTable { key: blob.key.clone() }
}

fn role_of(content: BlobContent) -> Role {
    match content {
        BlobContent::Whole(role) | BlobContent::Quantized { role, .. } => role,
        BlobContent::PerLayerCodes { .. } | BlobContent::PerLayerScales => Role::EmbedTokensPerLayer,
    }
}

#[cfg(test)]
mod tests {
    use super::Course;
    use crate::decoder::{InlineTensors, Variant, WeightFormat};
    use crate::error::ConvertError;
    use crate::plan::{GraphPlan, PlanError, Treatment, WeightChoice};
    use crate::quant::Int4Rule;
    use checkpoint::Checkpoint;
    use checkpoint::config::DecoderConfig;
    use checkpoint::source::{LocalSource, Source};

    fn planned(variant: Variant) -> (GraphPlan, Checkpoint) {
        let source = LocalSource::open(&fixtures::data::tiny_checkpoint()).unwrap();
        let config = DecoderConfig::read(&source).unwrap();
        let checkpoint = Checkpoint::new(&config, source.tensors()).unwrap();
        let (weights, head) = (WeightFormat::Int4, WeightFormat::Int8);
        let choice = WeightChoice { weights, head, rule: Int4Rule::Lattice };
        let plan = GraphPlan::new(&config, &checkpoint, variant, choice, &InlineTensors::new()).unwrap();
        (plan, checkpoint)
    }

    #[test]
    fn a_treatment_that_only_tables_have_is_refused() {
        let (mut plan, checkpoint) = planned(Variant::Provider);
        assert!(Course::new(&plan.blobs, &checkpoint, None, None).is_ok());
        // The embedding is read first, the tied head is made of it in the same pass.
        let at = |key: &str| plan.blobs.iter().position(|blob| blob.key == key).unwrap();
        for at in [at("embed_tokens.weight"), at("lm_head.weight/codes")] {
            let planned = plan.blobs[at].treatment;
            for treatment in [Treatment::F32, Treatment::RowInt8] {
                plan.blobs[at].treatment = treatment;
                let error = Course::new(&plan.blobs, &checkpoint, None, None).err();
                let Some(ConvertError::Plan(PlanError::Blob { key, .. })) = error else {
                    panic!("{error:?}")
                };
                assert_eq!(key, plan.blobs[at].key);
            }
            plan.blobs[at].treatment = planned;
        }
    }

    #[test]
    fn a_stock_graph_without_its_table_is_refused() {
        let (plan, checkpoint) = planned(Variant::Stock);
        let error = Course::new(&plan.blobs, &checkpoint, None, None).err();
        let Some(ConvertError::Plan(PlanError::NoTable { key })) = error else { panic!("{error:?}") };
        assert!(key.starts_with("embed_tokens_per_layer.weight/"), "{key}");
    }
}
