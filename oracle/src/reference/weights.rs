//! Weights of a checkpoint as f32, a part at a time.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use checkpoint::source::{Source, TensorEntry};
use checkpoint::{Checkpoint, Role};
use half::bf16;
use progress::{Progress, Silent};
use rayon::prelude::*;

use super::error::ReferenceError;
use super::product::{Product, slice};

/// Weights that one thread has as f32 at a time for few positions: 8 MiB.
const AT_ONCE: usize = 1 << 21;
/// The same for many positions.
const AT_ONCE_FOR_MANY: usize = 1 << 22;
/// Positions from which on the kernels of `gemm` add in an order that depends on the width of a matrix alone, and no longer on its
/// height (0.19, `gemm_basic_generic`). Then parts may depend on the number of threads.
const MANY: usize = 65;

/// Tensors in memory, as they are stored.
pub(super) type Loaded = BTreeMap<Role, Vec<bf16>>;

/// Reads a checkpoint's weights. Besides what is loaded, nothing larger than a norm or a few rows of a matrix is ever held.
#[derive(Clone)]
pub(super) struct Weights<'s> {
    source: &'s dyn Source,
    checkpoint: Arc<Checkpoint>,
    loaded: Arc<Loaded>,
    /// Says whether to stop; nothing is reported to it here.
    progress: &'s dyn Progress,
}

impl<'s> Weights<'s> {
    pub(super) fn new(source: &'s dyn Source, checkpoint: Checkpoint) -> Self {
        let (checkpoint, loaded) = (Arc::new(checkpoint), Arc::new(Loaded::new()));
        Weights { source, checkpoint, loaded, progress: &Silent }
    }

    /// The same, but every product ends soon after `progress` says so.
    pub(super) fn watched<'w>(&self, progress: &'w dyn Progress) -> Weights<'w>
    where
        's: 'w,
    {
        Weights { progress, ..self.clone() }
    }

    /// The same, with these tensors in memory.
    pub(super) fn with(&self, loaded: Loaded) -> Self {
        Weights { loaded: Arc::new(loaded), ..self.clone() }
    }

    /// All tensors of a layer.
    pub(super) fn load(&self, layer: usize) -> Result<Loaded, ReferenceError> {
        let of_layer = |(role, _): &(Role, &TensorEntry)| matches!(role, Role::Layer(at, _) if *at == layer);
        let mut loaded = Loaded::new();
        for (role, entry) in self.checkpoint.iter().filter(of_layer) {
            let mut weights = bytemuck::zeroed_vec::<bf16>(entry.shape.iter().product());
            self.source.will_read(entry);
            for (part, first) in weights.chunks_mut(AT_ONCE).zip((0..).step_by(AT_ONCE)) {
                self.check()?;
                self.source.read_weights(entry, first, part)?;
            }
            loaded.insert(role, weights);
        }
        Ok(loaded)
    }

    /// Whether the work should stop now, as an error.
    fn check(&self) -> Result<(), ReferenceError> {
        if self.progress.cancelled() { Err(ReferenceError::Stopped) } else { Ok(()) }
    }

    /// Some elements of a tensor. Every bf16 number is an f32 number.
    fn elements(&self, role: Role, range: Range<usize>) -> Result<Vec<f32>, ReferenceError> {
        if let Some(weights) = self.loaded.get(&role).and_then(|weights| weights.get(range.clone())) {
            return Ok(widened(weights));
        }
        let mut weights = bytemuck::zeroed_vec(range.len());
        self.source.read_weights(self.checkpoint.require(role)?, range.start as u64, &mut weights)?;
        Ok(widened(&weights))
    }

    /// A whole vector, such as a norm's weight.
    pub(super) fn vector(&self, role: Role) -> Result<Tensor, ReferenceError> {
        let count = self.checkpoint.require(role)?.shape.iter().product();
        Ok(Tensor::from_vec(self.elements(role, 0..count)?, count, &Device::Cpu)?)
    }

    /// Some rows of a matrix, `[rows.len(), width]`.
    pub(super) fn rows(&self, role: Role, rows: &[u32]) -> Result<Tensor, ReferenceError> {
        let (height, width) = matrix(self.checkpoint.require(role)?);
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in rows {
            let at = *row as usize;
            if at >= height {
                return Err(ReferenceError::Token { token: *row, vocab: height });
            }
            values.extend(self.elements(role, at * width..(at + 1) * width)?);
        }
        Ok(Tensor::from_vec(values, (rows.len(), width), &Device::Cpu)?)
    }

    /// `x [n, k]` times the transpose of a matrix `[m, k]`, as `[n, m]`, row-major.
    ///
    /// Some rows of the matrix at a time become f32 and are multiplied, each part on one thread: threads that share a part would wait for
    /// each other. For many positions, all threads get parts of the same size. Of more than a few rows, a result depends neither on them nor
    /// on what else is in `x`.
    pub(super) fn product(&self, x: &Tensor, role: Role) -> Result<Vec<f32>, ReferenceError> {
        let entry = self.checkpoint.require(role)?;
        let (height, width) = matrix(entry);
        let rows = rows_at_once(x.dim(0)?, height, width);
        let firsts: Vec<usize> = (0..height).step_by(rows).collect();
        if !self.loaded.contains_key(&role) {
            self.source.will_read(entry);
        }
        let mut product = vec![0.0; x.dim(0)? * height];
        slice(x, |x| {
            let product = Product::new(x, width, &mut product, height);
            firsts.into_par_iter().try_for_each(|first| -> Result<(), ReferenceError> {
                self.check()?;
                let rows = rows.min(height - first);
                let weights = self.elements(role, first * width..(first + rows) * width)?;
                product.columns(first, &weights);
                Ok(())
            })
        })??;
        Ok(product)
    }

    /// [`Weights::product`] as a tensor.
    pub(super) fn project(&self, x: &Tensor, role: Role) -> Result<Tensor, ReferenceError> {
        let n = x.dim(0)?;
        let product = self.product(x, role)?;
        let height = product.len() / n.max(1);
        Ok(Tensor::from_vec(product, (n, height), &Device::Cpu)?)
    }
}

impl fmt::Debug for Weights<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Weights").field("source", &self.source).finish_non_exhaustive()
    }
}

/// Rows of a matrix `[height, width]` that are multiplied together with `n` positions.
fn rows_at_once(n: usize, height: usize, width: usize) -> usize {
    if n < MANY {
        return (AT_ONCE / width.max(1)).clamp(1, height.max(1));
    }
    let threads = rayon::current_num_threads();
    let parts = threads * (height * width).div_ceil(threads * AT_ONCE_FOR_MANY);
    height.div_ceil(parts.max(1)).max(1)
}

/// What `half` does, apart from its care for signaling NaN.
fn widened(weights: &[bf16]) -> Vec<f32> {
    weights.iter().map(|weight| f32::from_bits(u32::from(weight.to_bits()) << 16)).collect()
}

/// Rows and columns; the shapes were checked against the configuration.
fn matrix(entry: &TensorEntry) -> (usize, usize) {
    let width = entry.shape.last().copied().unwrap_or(0);
    (entry.shape.iter().product::<usize>().checked_div(width).unwrap_or(0), width)
}
