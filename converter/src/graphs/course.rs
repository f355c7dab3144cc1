//! The order of work: which blob reads its tensor, and what else is made of it then.

use half::bf16;

use crate::checkpoint::{Checkpoint, Role};
use crate::decoder::{BlobContent, Part};
use crate::error::ConvertError;
use crate::journal::Done;
use crate::plan::PlannedBlob;
use crate::source::TensorEntry;
use crate::tables::{Job, TableWriter};

/// Elements that a worker takes at a time, at most, if a row has no more.
const PIECE: usize = 1 << 20;

/// Where a blob's bytes come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// The tensor is read for it.
    Tensor,
    /// They were made when the tensor was read for another blob.
    Spool,
    /// They came out of the pass over the codes in front of them.
    Scales,
    /// The per-layer table that was spread before.
    Stock,
}

/// A stretch of one blob: whole rows, and so whole blocks.
pub(super) struct Piece<'p> {
    /// Number of the blob.
    pub(super) at: usize,
    pub(super) blob: &'p PlannedBlob,
    pub(super) tensor: &'p TensorEntry,
    pub(super) origin: Origin,
    /// First element, and number of elements.
    pub(super) start: usize,
    pub(super) count: usize,
    /// Whether the blob begins, and whether it ends, with this piece.
    pub(super) first: bool,
    pub(super) last: bool,
}

/// All pieces in the order of the file, and what is shared among blobs and tables.
pub(super) struct Course<'p> {
    pub(super) blobs: &'p [PlannedBlob],
    pub(super) pieces: Vec<Piece<'p>>,
    /// For each blob: blobs further back that are made of the same tensor.
    later: Vec<Vec<usize>>,
    /// For each blob: the table that is made of the same tensor.
    tables: Vec<Option<&'p Job>>,
}

impl<'p> Course<'p> {
    pub(super) fn new(
        blobs: &'p [PlannedBlob],
        checkpoint: &'p Checkpoint,
        tables: Option<&TableWriter<'p>>,
    ) -> Result<Self, ConvertError> {
        let mut course = Course {
            blobs,
            pieces: Vec::new(),
            later: vec![Vec::new(); blobs.len()],
            tables: vec![None; blobs.len()],
        };
        for (at, blob) in blobs.iter().enumerate() {
            let role = role_of(blob.content);
            let origin = match first_reader(&blobs[..at], blob) {
                Some(reader) => {
                    course.later[reader].push(at);
                    Origin::Spool
                }
                None => origin_of(blob.content),
            };
            if origin == Origin::Tensor {
                course.tables[at] = tables.and_then(|tables| tables.job(role));
            }
            course.add_pieces(at, checkpoint.require(role)?, origin);
        }
        Ok(course)
    }

    fn add_pieces(&mut self, at: usize, tensor: &'p TensorEntry, origin: Origin) {
        let blob = &self.blobs[at];
        let elements: usize = blob.shape.iter().map(|extent| *extent as usize).product();
        let row = blob.shape.last().map_or(1, |extent| *extent as usize).max(1);
        let step = if origin == Origin::Scales { elements.max(1) } else { (PIECE / row).max(1) * row };
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

    /// The table that is made of this blob's tensor.
    pub(super) fn table(&self, at: usize) -> Option<&'p Job> {
        self.tables[at]
    }
}

/// The tensors that are read for these pieces, in order.
pub(super) fn tensors_of<'p>(pieces: &[Piece<'p>]) -> Vec<&'p TensorEntry> {
    let reads = pieces.iter().filter(|piece| piece.first && piece.origin == Origin::Tensor);
    reads.map(|piece| piece.tensor).collect()
}

/// Bytes of the checkpoint that an observer hears of for these pieces.
pub(super) fn input_bytes(pieces: &[Piece<'_>]) -> u64 {
    let reads = pieces.iter().filter(|piece| matches!(piece.origin, Origin::Tensor | Origin::Stock));
    reads.map(|piece| (piece.count * size_of::<bf16>()) as u64).sum()
}

/// The blob for which this blob's tensor was read already.
fn first_reader(before: &[PlannedBlob], blob: &PlannedBlob) -> Option<usize> {
    if origin_of(blob.content) != Origin::Tensor {
        return None;
    }
    // By tensor, not by role: the tied head is the embedding in another role.
    before.iter().position(|other| origin_of(other.content) == Origin::Tensor && other.tensor == blob.tensor)
}

/// Bytes of blobs that wait in temporary files, with their scales.
pub(crate) fn spooled_bytes(blobs: &[PlannedBlob]) -> u64 {
    let is_spooled = |at: &usize| first_reader(&blobs[..*at], &blobs[*at]).is_some();
    (0..blobs.len()).filter(is_spooled).map(|at| bytes_with_scales(blobs, at)).sum()
}

/// Bytes of a blob and of the scales behind it.
fn bytes_with_scales(blobs: &[PlannedBlob], at: usize) -> u64 {
    let is_scales = |next: &&PlannedBlob| origin_of(next.content) == Origin::Scales;
    blobs[at].bytes + blobs.get(at + 1).filter(is_scales).map_or(0, |scales| scales.bytes)
}

/// The tensors that are read for these blobs, and how many bytes: as many times as they are read.
pub(crate) fn reads(blobs: &[PlannedBlob]) -> impl Iterator<Item = (Role, u64)> {
    let is_read = |at: &usize| {
        let origin = origin_of(blobs[*at].content);
        origin != Origin::Scales && first_reader(&blobs[..*at], &blobs[*at]).is_none()
    };
    let read = |at: usize| (role_of(blobs[at].content), 2 * blobs[at].shape.iter().product::<u64>());
    (0..blobs.len()).filter(is_read).map(read)
}

fn origin_of(content: BlobContent) -> Origin {
    match content {
        BlobContent::Quantized { part: Part::Scales, .. } => Origin::Scales,
        BlobContent::PerLayerCodes { .. } | BlobContent::PerLayerScales => Origin::Stock,
        BlobContent::Whole(_) | BlobContent::Quantized { part: Part::Codes, .. } => Origin::Tensor,
    }
}

fn role_of(content: BlobContent) -> Role {
    match content {
        BlobContent::Whole(role) | BlobContent::Quantized { role, .. } => role,
        BlobContent::PerLayerCodes { .. } | BlobContent::PerLayerScales => Role::EmbedTokensPerLayer,
    }
}
