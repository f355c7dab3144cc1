//! The decoder in fp32, straight from a checkpoint's bf16 weights.
//!
//! [`Reference`] feeds one sequence: weights pass by, some rows of one matrix at a time, whatever the model's size. Many positions go
//! through together (teacher-forced), or one after the other; keys and values stay cached, so both can follow each other.
//! [`Reference::feed_windows`] and [`Reference::feed_together`] feed many short sequences together: each layer is read once for all of them,
//! ahead of time.

mod ahead;
mod decoder;
mod error;
mod ops;
mod product;
mod weights;

use std::ops::Range;

use candle_core::Tensor;
use checkpoint::config::DecoderConfig;
use checkpoint::source::Source;
use checkpoint::{Checkpoint, Role};
use progress::Progress;

pub use error::ReferenceError;

pub use decoder::Sequences;

use decoder::Decoder;
use weights::Weights;

/// Positions that are worth feeding together: weights are read once for all of them, and their activations are in memory.
pub const POSITIONS_AT_ONCE: usize = 4096;
/// Positions whose logits are in memory together, where they are handed over one by one.
const LOGITS_AT_ONCE: usize = 64;

/// How many sequences of these lengths, from the first one on, are fed together: at least one.
pub(crate) fn fed_together(lengths: impl Iterator<Item = usize>) -> usize {
    let mut positions = 0;
    let fits = |length: &usize| {
        positions += length;
        positions <= POSITIONS_AT_ONCE
    };
    lengths.take_while(fits).count().max(1)
}

/// Called with the residual stream after each layer: the layer, and f32 `[n, H]`, row-major.
pub type LayerObserver<'o> = &'o mut dyn FnMut(usize, &[f32]);

/// Called with each position's logits: the position among those given, and f32 `[V]`.
pub type LogitsObserver<'o> = &'o mut dyn FnMut(usize, &[f32]);

/// A checkpoint's decoder in the middle of a sequence.
#[derive(Debug)]
pub struct Reference<'s> {
    config: DecoderConfig,
    weights: Weights<'s>,
    sequence: Sequences,
}

impl<'s> Reference<'s> {
    /// Reads the configuration and finds the tensors; no weights yet.
    ///
    /// # Errors
    /// If the checkpoint is not one of this family's text decoders.
    pub fn open(source: &'s dyn Source) -> Result<Self, ReferenceError> {
        let config = DecoderConfig::read(source)?;
        let checkpoint = Checkpoint::new(&config, source.tensors())?;
        let sequence = Sequences::new(1, config.slots());
        Ok(Reference { config, weights: Weights::new(source, checkpoint), sequence })
    }

    /// The checkpoint's configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Some rows of a matrix, as f32, one after the other.
    ///
    /// # Errors
    /// If the checkpoint has no such matrix or row, or cannot be read.
    pub fn weight_rows(&self, role: Role, rows: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        Ok(self.weights.rows(role, rows)?.flatten_all()?.to_vec1::<f32>()?)
    }

    /// Number of tokens fed so far.
    pub fn positions(&self) -> usize {
        self.sequence.past()[0]
    }

    /// Forgets the sequence.
    pub fn reset(&mut self) {
        self.sequence = Sequences::new(1, self.config.slots());
    }

    /// Feeds tokens, all together; gives the normed result of the last layer for each.
    ///
    /// # Errors
    /// A token outside the vocabulary, or a checkpoint that cannot be read.
    pub fn feed(&mut self, tokens: &[u32], observer: LayerObserver<'_>) -> Result<Hidden, ReferenceError> {
        let decoder = Decoder { config: &self.config, weights: &self.weights };
        self.sequence.begin([tokens.len()]);
        let mut x = decoder.embed(tokens)?;
        let per_layer = decoder.per_layer_inputs(&x, tokens)?;
        for layer in &self.config.layers {
            x = decoder.layer(&x, per_layer.as_ref(), layer, &mut self.sequence)?;
            observer(layer.index, &x.flatten_all()?.to_vec1::<f32>()?);
        }
        self.sequence.end();
        Ok(Hidden(decoder.final_norm(&x)?))
    }

    /// Feeds windows together, each of them a sequence of its own; gives the normed results of the last layer, window after window. The
    /// sequence of [`Reference::feed`] is left as it is.
    ///
    /// Memory holds two layers as they are stored, and the activations of all positions. Progress is advanced by the number of layers
    /// times positions.
    ///
    /// # Errors
    /// As [`Reference::feed`], and [`ReferenceError::Stopped`] soon after `progress` is cancelled.
    pub fn feed_windows(
        &self,
        windows: &[&[u32]],
        progress: &dyn Progress,
    ) -> Result<Hidden, ReferenceError> {
        self.pass(&mut self.sequences(windows.len()), windows, false, progress)
    }

    /// New sequences for [`Reference::feed_together`].
    pub fn sequences(&self, count: usize) -> Sequences {
        Sequences::new(count, self.config.slots())
    }

    /// Feeds the next tokens of each of some sequences together; gives the normed results of the last layer, sequence after sequence. Of few
    /// tokens, the last bits depend on how many there are: `gemm` 0.19 cuts small products differently. After an error, the sequences cannot be
    /// continued.
    ///
    /// # Errors
    /// As [`Reference::feed_windows`].
    pub fn feed_together(
        &self,
        sequences: &mut Sequences,
        tokens: &[&[u32]],
        progress: &dyn Progress,
    ) -> Result<Hidden, ReferenceError> {
        self.pass(sequences, tokens, true, progress)
    }

    /// Feeds tokens of sequences, which are then continued or not: then keys and values are forgotten when no layer needs them any more.
    fn pass(
        &self,
        sequences: &mut Sequences,
        tokens: &[&[u32]],
        are_continued: bool,
        progress: &dyn Progress,
    ) -> Result<Hidden, ReferenceError> {
        let weights = self.weights.watched(progress);
        let decoder = Decoder { config: &self.config, weights: &weights };
        sequences.begin(tokens.iter().map(|tokens| tokens.len()));
        let tokens = tokens.concat();
        let mut x = decoder.embed(&tokens)?;
        let per_layer = decoder.per_layer_inputs(&x, &tokens)?;
        ahead::for_each_layer(&weights, self.config.layers.len(), |index, weights| {
            let (decoder, layer) = (Decoder { weights, ..decoder }, &self.config.layers[index]);
            x = decoder.layer(&x, per_layer.as_ref(), layer, sequences)?;
            if !are_continued && self.config.layers[index + 1..].iter().all(|later| later.slot != layer.slot)
            {
                sequences.forget(layer.slot);
            }
            progress.advance(tokens.len() as u64);
            Ok(())
        })?;
        sequences.end();
        Ok(Hidden(decoder.final_norm(&x)?))
    }

    /// Gives the logits of each position, in order.
    ///
    /// # Errors
    /// If the head cannot be read, or `progress` is cancelled.
    pub fn logits(
        &self,
        hidden: &Hidden,
        progress: &dyn Progress,
        observer: LogitsObserver<'_>,
    ) -> Result<(), ReferenceError> {
        for first in (0..hidden.len()).step_by(LOGITS_AT_ONCE) {
            let part = first..hidden.len().min(first + LOGITS_AT_ONCE);
            let logits = self.logits_of(hidden, part, progress)?;
            logits.chunks(self.config.vocab).enumerate().for_each(|(at, row)| observer(first + at, row));
        }
        Ok(())
    }

    /// Logits f32 `[n, V]` of some positions. The whole head is read for them.
    ///
    /// # Errors
    /// If the head cannot be read, or `progress` is cancelled.
    pub fn logits_of(
        &self,
        hidden: &Hidden,
        positions: Range<usize>,
        progress: &dyn Progress,
    ) -> Result<Vec<f32>, ReferenceError> {
        let weights = self.weights.watched(progress);
        let part = hidden.0.narrow(0, positions.start, positions.len())?;
        Decoder { config: &self.config, weights: &weights }.logits(&part)
    }

    /// Feeds tokens and gives the logits after the last one, f32 `[V]`.
    ///
    /// # Errors
    /// As [`Reference::feed`]; no tokens are an error too.
    pub fn next(&mut self, tokens: &[u32]) -> Result<Vec<f32>, ReferenceError> {
        let hidden = self.feed(tokens, &mut |_, _| {})?;
        let last = tokens.len().saturating_sub(1);
        self.logits_of(&hidden, last..last + 1, &progress::Silent)
    }
}

/// Normed results of the last layer, `[n, H]`: what the head reads.
#[derive(Clone, Debug)]
pub struct Hidden(Tensor);

impl Hidden {
    /// Number of positions.
    pub fn len(&self) -> usize {
        self.0.dims().first().copied().unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those of some positions, in that order.
    ///
    /// # Errors
    /// If there is no such position.
    pub fn select(&self, positions: &[u32]) -> Result<Hidden, ReferenceError> {
        let positions = Tensor::new(positions, self.0.device())?;
        Ok(Hidden(self.0.index_select(&positions, 0)?))
    }
}
