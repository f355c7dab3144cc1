//! Matrix products: f32 accumulation, one rounding at the end.

use aimodel::Element;
use half::f16;
use rayon::prelude::*;

use crate::Rounding;
use crate::kernels::{Activations, GROUP, Row, Rows, accumulate, accumulate_rounded};
use crate::movement::{common_shape, stretch};
use crate::parallel::in_pieces;
use crate::tensor::{Tensor, count, dense_strides};
use crate::value::{Quantized, Value};

/// Multiplications that are worth a thread, which takes some ten microseconds to wake.
const PARALLEL: usize = 1 << 18;
/// Pieces of a product for each thread: enough for threads that are faster than others.
const PIECES: usize = 8;

/// `a` [.., m, k] times `b` [.., k, n]; batch axes broadcast.
pub(crate) fn matmul(a: &Tensor, b: &Value, rounding: Rounding) -> Result<Tensor, String> {
    if rounding == Rounding::EachStep && a.element() == Element::F16 {
        return by_steps(a, b.tensor()?.as_ref());
    }
    match b {
        Value::Quantized(weights) if weights.is_transposed() => by_weights(a, weights),
        other => by_tensor(a, other.tensor()?.as_ref()),
    }
}

/// The products of several tensors with the same weights [k, n], which are read once for all of them.
pub(crate) fn matmul_together(a: &[&Tensor], b: &Value, rounding: Rounding) -> Result<Vec<Tensor>, String> {
    let is_matrix = match b {
        Value::Quantized(_) => true,
        Value::Tensor(b) => b.rank() == 2,
        _ => false,
    };
    let [first, ..] = a else { return Ok(Vec::new()) };
    if !is_matrix || rounding == Rounding::EachStep || a.iter().any(|a| a.element() != first.element()) {
        return a.par_iter().map(|a| matmul(a, b, rounding)).collect();
    }
    let (_, _, k) = split(first)?;
    let rows = a.iter().map(|a| a.to_floats()).collect::<Result<Vec<_>, _>>()?.concat();
    let stacked = Tensor::from_floats(first.element(), &[rows.len() / k.max(1), k], rows)?;
    let product = matmul(&stacked, b, rounding)?;
    let (mut products, mut offset) = (Vec::with_capacity(a.len()), 0);
    for a in a {
        let mut shape = a.shape().to_vec();
        let (last, n) = (shape.last_mut().ok_or("a scalar")?, product.shape()[1]);
        if *last != k {
            return Err(format!("cannot multiply {:?} and {:?} together", first.shape(), a.shape()));
        }
        *last = n;
        let strides = dense_strides(&shape);
        products.push(product.view(shape, strides, offset));
        offset += a.elements() / k.max(1) * n;
    }
    Ok(products)
}

fn split(x: &Tensor) -> Result<(&[usize], usize, usize), String> {
    match x.shape() {
        [batch @ .., m, n] => Ok((batch, *m, *n)),
        shape => Err(format!("{shape:?} is not a matrix")),
    }
}

fn by_weights(a: &Tensor, weights: &Quantized) -> Result<Tensor, String> {
    let (_, _, k) = split(a)?;
    let [inner, n] = weights.shape();
    if inner != k || weights.element() != a.element() {
        return Err(format!("cannot multiply {:?} by weights [{inner}, {n}]", a.shape()));
    }
    let values = a.to_floats()?;
    let mut shape = a.shape().to_vec();
    *shape.last_mut().ok_or("a scalar")? = n;
    let mut product = vec![0.0; count(&shape)?];
    if k > 0 && n > 0 {
        match weights.kernel_rows() {
            Some(rows) => multiply(rows, &Activations::new(&values, k, rows), k, n, &mut product)?,
            None => multiply_dequantized(weights, &values, k, n, &mut product)?,
        }
    }
    Tensor::from_floats(a.element(), &shape, product)
}

/// Rows of `k` weights that one thread multiplies at a time with this many tokens, if there are `n` rows.
fn rows_at_once(n: usize, k: usize, tokens: usize) -> usize {
    let worthwhile = (PARALLEL / k.saturating_mul(tokens).max(1)).max(1);
    worthwhile.max(n / (PIECES * rayon::current_num_threads())).next_multiple_of(GROUP)
}

/// Splits a product [tokens, n] into pieces that threads fill: each has `height` columns of every token.
fn pieces(product: &mut [f32], n: usize, height: usize) -> Vec<Vec<&mut [f32]>> {
    let tokens = product.len() / n;
    let mut pieces: Vec<Vec<&mut [f32]>> =
        (0..n.div_ceil(height)).map(|_| Vec::with_capacity(tokens)).collect();
    for of_token in product.chunks_exact_mut(n) {
        pieces.iter_mut().zip(of_token.chunks_mut(height)).for_each(|(piece, part)| piece.push(part));
    }
    pieces
}

/// Multiplies rows [n, k] by the activations of tokens, into [tokens, n].
fn multiply(rows: Rows<'_>, x: &Activations, k: usize, n: usize, product: &mut [f32]) -> Result<(), String> {
    let height = rows_at_once(n, k, product.len() / n);
    in_pieces(&mut pieces(product, n, height), 1, 1, &|at, piece| {
        x.multiply_rows(rows, at * height, &mut piece[0]);
        Ok(())
    })
}

/// For weights without a kernel: dequantizes some rows at a time to f32.
fn multiply_dequantized(
    weights: &Quantized,
    values: &[f32],
    k: usize,
    n: usize,
    product: &mut [f32],
) -> Result<(), String> {
    // Few rows, as they take much memory as f32.
    let height = rows_at_once(0, k, 1);
    let x = Activations::new(values, k, Rows::Single { items: &[], stride: k });
    in_pieces(&mut pieces(product, n, height), 1, 1, &|at, piece| {
        let first = at * height;
        let items = weights.dequantized_rows(first, height.min(n - first))?;
        x.multiply_rows(Rows::Single { items: &items, stride: k }, 0, &mut piece[0]);
        Ok(())
    })
}

/// The product with every multiplication and every addition rounded to f16, in the order of `k`.
fn by_steps(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let ((a_batch, m, k), (b_batch, inner, n)) = (split(a)?, split(b)?);
    if inner != k || a.element() != b.element() {
        return Err(format!("cannot multiply {:?} by {:?}", a.shape(), b.shape()));
    }
    let batch = common_shape(a_batch, b_batch)?;
    let x = stretch(a, &[batch.as_slice(), &[m, k]].concat())?.to_floats()?;
    let y = stretch(b, &[batch.as_slice(), &[k, n]].concat())?.to_floats()?;
    let shape = [batch.as_slice(), &[m, n]].concat();
    let mut product = vec![0.0; count(&shape)?];
    in_pieces(&mut product, n, 1, &|row, out| {
        let matrix = &y[row / m * k * n..][..k * n];
        for (factor, weights) in x[row * k..][..k].iter().zip(matrix.chunks_exact(n)) {
            accumulate_rounded(weights, *factor, out);
        }
        Ok(())
    })?;
    Tensor::from_floats(a.element(), &shape, product)
}

fn by_tensor(a: &Tensor, b: &Tensor) -> Result<Tensor, String> {
    let ((a_batch, m, k), (b_batch, inner, n)) = (split(a)?, split(b)?);
    if inner != k || a.element() != b.element() {
        return Err(format!("cannot multiply {:?} by {:?}", a.shape(), b.shape()));
    }
    let batch = common_shape(a_batch, b_batch)?;
    let shape = [batch.as_slice(), &[m, n]].concat();
    let mut product = vec![0.0; count(&shape)?];
    if [m, k, n].contains(&0) || product.is_empty() {
        return Tensor::from_floats(a.element(), &shape, product);
    }
    let b = readable(b)?;
    let values = stretch(a, &[batch.as_slice(), &[m, k]].concat())?.to_floats()?;
    let matrices = Matrices { starts: starts(&b, &batch)?, b: &b, k, n };
    let least = PARALLEL.div_ceil(k.saturating_mul(n).saturating_mul(m));
    in_pieces(&mut product, m * n, least, &|at, out| {
        matrices.multiply(at, &values[at * m * k..][..m * k], out)
    })?;
    Tensor::from_floats(a.element(), &shape, product)
}

/// `b` as f16 or f32, with one of its last two axes contiguous.
fn readable(b: &Tensor) -> Result<Tensor, String> {
    let known = match b.element() {
        Element::F16 | Element::F32 => b.clone(),
        _ => Tensor::from_floats(Element::F32, b.shape(), b.to_floats()?)?,
    };
    let last = &known.strides()[known.rank() - 2..];
    if last.contains(&1) { Ok(known) } else { known.to_dense() }
}

/// First element of the matrix at each batch position.
fn starts(b: &Tensor, batch: &[usize]) -> Result<Vec<usize>, String> {
    let outer = b.rank() - 2;
    let matrices = b.view(b.shape()[..outer].to_vec(), b.strides()[..outer].to_vec(), b.offset());
    let mut starts = Vec::new();
    stretch(&matrices, batch)?
        .rows(&mut |start, length, stride| starts.extend((0..length).map(|at| start + at * stride)));
    Ok(starts)
}

/// Right-hand matrices [k, n] of a batch.
struct Matrices<'t> {
    starts: Vec<usize>,
    b: &'t Tensor,
    k: usize,
    n: usize,
}

impl Matrices<'_> {
    /// Multiplies rows `x` [m, k] by the matrix at a batch position.
    fn multiply(&self, at: usize, x: &[f32], out: &mut [f32]) -> Result<(), String> {
        let start = self.starts[at];
        let (down, across) = (self.b.strides()[self.b.rank() - 2], self.b.strides()[self.b.rank() - 1]);
        if down == 1 || self.k == 1 {
            let rows = match self.b.element() {
                Element::F16 => Rows::Half { items: &self.b.items::<f16>()?[start..], stride: across },
                _ => Rows::Single { items: &self.b.items::<f32>()?[start..], stride: across },
            };
            return multiply(rows, &Activations::new(x, self.k, rows), self.k, self.n, out);
        }
        in_pieces(out, self.n, PARALLEL.div_ceil(self.k * self.n), &|token, out| {
            self.sum_rows(start, down, &x[token * self.k..][..self.k], out)
        })
    }

    /// For matrices with contiguous rows: sums the rows, each multiplied by its activation.
    fn sum_rows(&self, start: usize, down: usize, x: &[f32], out: &mut [f32]) -> Result<(), String> {
        for (at, factor) in x.iter().enumerate() {
            let from = start + at * down;
            let row = match self.b.element() {
                Element::F16 => Row::Half(&self.b.items::<f16>()?[from..from + self.n]),
                _ => Row::Single(&self.b.items::<f32>()?[from..from + self.n]),
            };
            accumulate(row, *factor, out);
        }
        Ok(())
    }
}
