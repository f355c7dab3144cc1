//! The order of work: which blob reads its tensor, and what else is made from it then.

use crate::blob::{Blob, Content};
use crate::error::ConvertError;
use crate::error::PlanError;
use crate::journal::Done;
use crate::recipe::Treatment;
use crate::stock::StockTable;
use crate::tables::{Job, TableWriter};
use checkpoint::Checkpoint;
use checkpoint::source::{TensorEntry, bytes_of};

/// Largest number of elements that a worker takes at a time, unless a row has more.
const PIECE: usize = 1 << 20;

/// How a blob gets its bytes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Work<'p> {
    /// The tensor is read for it.
    Read(Treatment),
    /// They wait in a temporary file, made when the tensor was read for another blob.
    Unspool,
    /// They result from the pass over the codes before them.
    Scales,
    /// They are read from the per-layer table that was spread before.
    Table(&'p StockTable),
}

/// A blob, and everything that happens when its turn comes.
pub(super) struct Step<'p> {
    pub(super) blob: &'p Blob,
    pub(super) tensor: &'p TensorEntry,
    pub(super) work: Work<'p>,
    /// Later blobs that are made from the tensor while it is read: their numbers, and how they are stored.
    pub(super) later: Vec<(usize, Treatment)>,
    /// The table that is made from it too.
    pub(super) table: Option<&'p Job>,
}

/// A part of one blob: whole rows, and so whole blocks.
pub(super) struct Piece {
    /// Number of the step.
    pub(super) step: usize,
    /// First element, and number of elements.
    pub(super) start: usize,
    pub(super) count: usize,
    /// Whether the blob begins, and whether it ends, with this piece.
    pub(super) first: bool,
    pub(super) last: bool,
}

/// All blobs in the order of the file, and the pieces that they are made in.
pub(super) struct Schedule<'p> {
    pub(super) steps: Vec<Step<'p>>,
    pub(super) pieces: Vec<Piece>,
}

impl<'p> Schedule<'p> {
    pub(super) fn new(
        blobs: &'p [Blob],
        checkpoint: &'p Checkpoint,
        tables: Option<&TableWriter<'p>>,
        stock: Option<&'p StockTable>,
    ) -> Result<Self, ConvertError> {
        let mut schedule = Schedule { steps: Vec::with_capacity(blobs.len()), pieces: Vec::new() };
        for (at, blob) in blobs.iter().enumerate() {
            let mut table = None;
            let work = match blob.content {
                Content::Scales(_) => Work::Scales,
                Content::TableCodes(_) | Content::TableScales => {
                    Work::Table(stock.ok_or_else(|| PlanError::NoTable { key: blob.key.clone() })?)
                }
                Content::Tensor(treatment) => match first_reader(&blobs[..at], blob) {
                    Some(reader) => {
                        schedule.steps[reader].later.push((at, treatment));
                        Work::Unspool
                    }
                    None => {
                        table = tables.and_then(|tables| tables.job(&blob.tensor));
                        Work::Read(treatment)
                    }
                },
            };
            let tensor = checkpoint.require(blob.role)?;
            schedule.add(Step { blob, tensor, work, later: Vec::new(), table });
        }
        Ok(schedule)
    }

    fn add(&mut self, step: Step<'p>) {
        let elements = step.blob.elements() as usize;
        let row = step.blob.shape.last().map_or(1, |extent| *extent as usize).max(1);
        let length =
            if matches!(step.work, Work::Scales) { elements.max(1) } else { (PIECE / row).max(1) * row };
        let number = self.steps.len();
        for start in (0..elements).step_by(length) {
            let count = length.min(elements - start);
            let (first, last) = (start == 0, start + count == elements);
            self.pieces.push(Piece { step: number, start, count, first, last });
        }
        self.steps.push(step);
    }

    /// The step of a piece.
    pub(super) fn step(&self, piece: &Piece) -> &Step<'p> {
        &self.steps[piece.step]
    }

    /// The pieces before a step, and those from it on.
    pub(super) fn split(&self, step: usize) -> (&[Piece], &[Piece]) {
        self.pieces.split_at(self.pieces.partition_point(|piece| piece.step < step))
    }

    /// Whether a run over these blobs, to this number of packages, can have finished this: every list has its length, and every
    /// blob that was made before its turn is waiting.
    pub(super) fn allows(&self, done: &Done, packages: usize) -> bool {
        let next = match (done.has_packages, done.next_blob) {
            (true, _) => self.steps.len(),
            (false, Some(next)) if next <= self.steps.len() => next,
            (false, None) => {
                return done.packages.is_empty() && done.statistics.is_empty() && done.spools.is_empty();
            }
            _ => return false,
        };
        let made = self.steps[..next].iter().flat_map(|step| &step.later).map(|(at, _)| *at);
        let mut waiting: Vec<usize> = made.filter(|at| *at >= next).collect();
        waiting.sort_unstable();
        let spools = done.spools.iter().map(|spool| (spool.blob, spool.file.bytes));
        let blob = |at: usize| self.steps.get(at).map(|step| step.blob);
        let matrices = self.steps[..next].iter().map(|step| step.blob).filter(|blob| blob.codes().is_some());
        done.packages.len() == packages
            && spools.eq(waiting.into_iter().map(|at| (at, waiting_bytes(blob(at), blob(at + 1)))))
            && done
                .statistics
                .iter()
                .map(|matrix| &*matrix.name)
                .eq(matrices.map(|blob| blob.role.short_name()))
    }

    /// The tensors that are read for these pieces, in order.
    pub(super) fn tensors(&self, pieces: &[Piece]) -> Vec<&'p TensorEntry> {
        let steps = pieces.iter().filter(|piece| piece.first).map(|piece| self.step(piece));
        steps.filter(|step| matches!(step.work, Work::Read(_))).map(|step| step.tensor).collect()
    }

    /// Bytes of the checkpoint that are reported for these pieces.
    pub(super) fn input_bytes(&self, pieces: &[Piece]) -> u64 {
        let is_read = |piece: &&Piece| matches!(self.step(piece).work, Work::Read(_) | Work::Table(_));
        pieces.iter().filter(is_read).map(|piece| bytes_of(piece.count as u64)).sum()
    }
}

/// The blob for which this blob's tensor was read already.
fn first_reader(before: &[Blob], blob: &Blob) -> Option<usize> {
    // By tensor, not by role: the tied head is the embedding in another role.
    let reads = |other: &Blob| matches!(other.content, Content::Tensor(_)) && other.tensor == blob.tensor;
    before.iter().position(reads)
}

/// Bytes of a blob that waits, with the scales that may follow it.
fn waiting_bytes(blob: Option<&Blob>, next: Option<&Blob>) -> u64 {
    let scales = next.filter(|next| matches!(next.content, Content::Scales(_)));
    blob.into_iter().chain(scales).map(Blob::bytes).sum()
}

/// Bytes of all blobs that wait in temporary files.
pub(crate) fn spooled_bytes(blobs: &[Blob]) -> u64 {
    let is_spooled = |at: &usize| {
        matches!(blobs[*at].content, Content::Tensor(_)) && first_reader(&blobs[..*at], &blobs[*at]).is_some()
    };
    (0..blobs.len()).filter(is_spooled).map(|at| waiting_bytes(blobs.get(at), blobs.get(at + 1))).sum()
}

/// The tensors that are read for these blobs, and how many bytes: counted as often as they are read.
pub(crate) fn reads(blobs: &[Blob]) -> impl Iterator<Item = (&str, u64)> {
    let is_read = |(at, blob): &(usize, &Blob)| match blob.content {
        Content::Tensor(_) => first_reader(&blobs[..*at], blob).is_none(),
        Content::TableCodes(_) | Content::TableScales => true,
        Content::Scales(_) => false,
    };
    blobs.iter().enumerate().filter(is_read).map(move |(_, blob)| (&*blob.tensor, bytes_of(blob.elements())))
}

#[cfg(test)]
mod tests {
    use super::Schedule;
    use crate::decoder::{Functions, GraphOptions, InlineTensors, Variant};
    use crate::error::ConvertError;
    use crate::error::PlanError;
    use crate::plan::GraphPlan;
    use crate::recipe::{Recipe, Treatment};
    use checkpoint::Checkpoint;
    use checkpoint::config::{CacheForm, DecoderConfig};
    use checkpoint::source::{LocalSource, Source};
    use quantizer::Int4Rule;

    #[test]
    fn a_stock_graph_without_its_table_is_refused() {
        let source = LocalSource::open(&fixtures::data::tiny_checkpoint()).unwrap();
        let config = DecoderConfig::read(&source).unwrap();
        let checkpoint = Checkpoint::new(&config, source.tensors()).unwrap();
        let recipe = Recipe::new(Treatment::Int4(Int4Rule::Lattice), Treatment::Int8);
        let inline = InlineTensors::new();
        let options = GraphOptions {
            variant: Variant::Stock,
            recipe,
            tied_head: true,
            functions: Functions::MAIN,
            caches: CacheForm::Padded,
        };
        let plan = GraphPlan::new(&config, &checkpoint, &options, &inline).unwrap();
        let error = Schedule::new(&plan.blobs, &checkpoint, None, None).err();
        let Some(ConvertError::Plan(PlanError::NoTable { key })) = error else { panic!("{error:?}") };
        assert!(key.starts_with("embed_tokens_per_layer.weight/"), "{key}");
    }
}
