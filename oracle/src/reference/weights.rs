//! Weights of a checkpoint as f32, a part at a time.

use candle_core::{Device, Tensor};
use checkpoint::source::{Source, TensorEntry};
use checkpoint::{Checkpoint, Role};
use half::bf16;
use rayon::prelude::*;

use super::error::ReferenceError;

/// Weights that one thread has as f32 at a time: 8 MiB.
const AT_ONCE: usize = 1 << 21;

/// Reads a checkpoint's weights. Nothing larger than a norm or a few rows of a matrix is ever held.
#[derive(Debug)]
pub(super) struct Weights<'s> {
    source: &'s dyn Source,
    checkpoint: Checkpoint,
}

impl<'s> Weights<'s> {
    pub(super) fn new(source: &'s dyn Source, checkpoint: Checkpoint) -> Self {
        Weights { source, checkpoint }
    }

    /// Elements `first..first + count` of a tensor. Every bf16 number is an f32 number.
    fn elements(&self, entry: &TensorEntry, first: usize, count: usize) -> Result<Vec<f32>, ReferenceError> {
        let mut weights = vec![bf16::ZERO; count];
        self.source.read_weights(entry, first as u64, &mut weights)?;
        // What `half` does, apart from its care for signaling NaN.
        Ok(weights.into_iter().map(|weight| f32::from_bits(u32::from(weight.to_bits()) << 16)).collect())
    }

    /// A whole vector, such as a norm's weight.
    pub(super) fn vector(&self, role: Role) -> Result<Tensor, ReferenceError> {
        let entry = self.checkpoint.require(role)?;
        let count = entry.shape.iter().product();
        Ok(Tensor::from_vec(self.elements(entry, 0, count)?, count, &Device::Cpu)?)
    }

    /// Some rows of a matrix, `[rows.len(), width]`.
    pub(super) fn rows(&self, role: Role, rows: &[u32]) -> Result<Tensor, ReferenceError> {
        let entry = self.checkpoint.require(role)?;
        let (height, width) = matrix(entry);
        let mut values = Vec::with_capacity(rows.len() * width);
        for row in rows {
            let at = *row as usize;
            if at >= height {
                return Err(ReferenceError::Token { token: *row, vocab: height });
            }
            values.extend(self.elements(entry, at * width, width)?);
        }
        Ok(Tensor::from_vec(values, (rows.len(), width), &Device::Cpu)?)
    }

    /// `x [n, k]` times the transpose of a matrix `[m, k]`: `[n, m]`. The matrix passes by, some rows at a time.
    pub(super) fn project(&self, x: &Tensor, role: Role) -> Result<Tensor, ReferenceError> {
        let entry = self.checkpoint.require(role)?;
        let (height, width) = matrix(entry);
        let x = x.contiguous()?;
        let rows = (AT_ONCE / width.max(1)).clamp(1, height.max(1));
        self.source.will_read(entry);
        let part = |first: usize| -> Result<Tensor, ReferenceError> {
            let rows = rows.min(height - first);
            let weights = self.elements(entry, first * width, rows * width)?;
            let weights = Tensor::from_vec(weights, (rows, width), &Device::Cpu)?;
            Ok(x.matmul(&weights.t()?)?)
        };
        let firsts: Vec<usize> = (0..height).step_by(rows).collect();
        let parts: Vec<Tensor> = firsts.into_par_iter().map(part).collect::<Result<_, _>>()?;
        Ok(Tensor::cat(&parts, 1)?)
    }
}

/// Rows and columns; the shapes were checked against the configuration.
fn matrix(entry: &TensorEntry) -> (usize, usize) {
    let width = entry.shape.last().copied().unwrap_or(0);
    (entry.shape.iter().product::<usize>().checked_div(width).unwrap_or(0), width)
}
