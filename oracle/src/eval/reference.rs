//! The checkpoint's logits on a text.

use std::io::{self, Read, Seek, Write};

use progress::Progress;
use rayon::prelude::*;

use super::logits::{LogitsWriter, Record};
use super::windows::{Window, Windows};
use crate::reference::{Reference, ReferenceError};

/// Bytes of logits in memory, of at least one position.
const LOGITS_BYTES: usize = 256 << 20;

/// Why the checkpoint's logits cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// The checkpoint cannot be computed.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The file cannot be written.
    #[error("cannot write the logits: {0}")]
    Write(#[from] io::Error),
    /// The checkpoint says nothing.
    #[error("the checkpoint's logits at position {0} are infinite or NaN: are its weights damaged?")]
    NotFinite(usize),
}

/// Windows that are fed together: as many as fit into this many positions, at least one.
fn groups(windows: &Windows, positions: usize) -> Vec<Vec<Window>> {
    let per_group = (positions / windows.shape().window).max(1);
    let all: Vec<Window> = windows.iter().collect();
    all.chunks(per_group).map(<[Window]>::to_vec).collect()
}

/// Layers that take as long as the head.
fn head_layers(reference: &Reference<'_>) -> u64 {
    let config = reference.config();
    let widest = config.layers.iter().map(|layer| layer.intermediate).max().unwrap_or(1);
    (config.vocab / (3 * widest).max(1)).max(1) as u64
}

/// Appends the records of all positions to a file, those that it has excepted. Windows are fed together up to `at_once` positions
/// ([`POSITIONS_AT_ONCE`](crate::reference::POSITIONS_AT_ONCE)), which does not change the bits of the logits. The amount of progress is positions times layers.
///
/// # Errors
/// [`ComputeError`]; what was written until then stays.
pub fn compute<F: Read + Write + Seek>(
    reference: &Reference<'_>,
    windows: &Windows,
    at_once: usize,
    progress: &dyn Progress,
    writer: &mut LogitsWriter<F>,
) -> Result<(), ComputeError> {
    let groups = groups(windows, at_once);
    let (layers, head) = (reference.config().layers.len() as u64, head_layers(reference));
    let fed = |group: &[Window]| group.iter().map(|window| window.tokens.len() as u64).sum::<u64>();
    let scored = |group: &[Window]| group.iter().map(|window| window.targets.len()).sum::<usize>();
    let amount = |group: &Vec<Window>| fed(group) * layers + scored(group) as u64 * head;
    progress.expect(groups.iter().map(amount).sum());
    for group in &groups {
        let first = group[0].first;
        if first + scored(group) <= writer.written() {
            progress.resume(amount(group));
            continue;
        }
        let tokens: Vec<&[u32]> = group.iter().map(|window| window.tokens.as_slice()).collect();
        let hidden = reference.feed_windows(&tokens, progress)?;
        let (rows, targets) = scored_rows(group);
        let hidden = hidden.select(&rows)?;
        let vocab = reference.config().vocab;
        let rows = (LOGITS_BYTES / (4 * vocab)).max(1);
        for (part, targets) in targets.chunks(rows).enumerate() {
            let part = part * rows..part * rows + targets.len();
            if first + part.end > writer.written() {
                let logits = reference.logits_of(&hidden, part.clone(), progress)?;
                let records: Vec<Option<Record>> = logits
                    .par_chunks(vocab)
                    .zip(targets)
                    .map(|(row, target)| Record::new(row, *target))
                    .collect();
                for (position, record) in (first + part.start..).zip(records) {
                    let record = record.ok_or(ComputeError::NotFinite(position))?;
                    // What an interrupted run has written is there already.
                    if position >= writer.written() {
                        writer.add(&record)?;
                    }
                }
            }
            progress.advance(part.len() as u64 * head);
        }
    }
    progress.finish();
    Ok(())
}

/// The rows of scored positions among all positions of a group, and the tokens that follow them.
fn scored_rows(group: &[Window]) -> (Vec<u32>, Vec<u32>) {
    let (mut rows, mut targets, mut begin) = (Vec::new(), Vec::new(), 0);
    for window in group {
        let end = begin + window.tokens.len();
        rows.extend((begin + window.context..end).map(|row| row as u32));
        targets.extend(&window.targets);
        begin = end;
    }
    (rows, targets)
}
