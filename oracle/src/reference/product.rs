//! Products with the transpose of a matrix that comes in parts.

use std::marker::PhantomData;

use candle_core::{CpuStorage, Result, Storage, Tensor, bail};
use gemm::{Parallelism, gemm};

/// `x [n, k]` times the transpose of a matrix `[m, k]`, into `[n, m]`: any threads may add the columns of different rows of the matrix.
pub(super) struct Product<'p> {
    x: &'p [f32],
    width: usize,
    out: *mut f32,
    columns: usize,
    _out: PhantomData<&'p mut [f32]>,
}

// SAFETY: `out` is only written, through `columns`, and calls that run at the same time get different columns.
unsafe impl Sync for Product<'_> {}

impl<'p> Product<'p> {
    /// `x` has rows of `width` numbers, `out` as many rows of `columns` numbers.
    pub(super) fn new(x: &'p [f32], width: usize, out: &'p mut [f32], columns: usize) -> Self {
        assert_eq!(
            x.len().checked_div(width),
            out.len().checked_div(columns),
            "rows of x and of the product"
        );
        Product { x, width, out: out.as_mut_ptr(), columns, _out: PhantomData }
    }

    /// Computes the columns from `first` on, with some rows of the matrix. Calls that run at the same time must not overlap.
    pub(super) fn columns(&self, first: usize, rows: &[f32]) {
        let (n, k) = (self.x.len() / self.width, self.width);
        let count = rows.len() / k;
        assert!(first + count <= self.columns, "columns of the product");
        // SAFETY: `x` is `[n, k]` and `rows` is `[count, k]`, both row-major; `out` is `[n, columns]`, and columns
        // `first..first + count` of it exist, and no other thread writes them.
        unsafe {
            gemm(
                n,
                count,
                k,
                self.out.add(first),
                1,
                self.columns as isize,
                false,
                self.x.as_ptr(),
                1,
                k as isize,
                rows.as_ptr(),
                k as isize,
                1,
                0.0_f32,
                1.0_f32,
                false,
                false,
                false,
                Parallelism::None,
            );
        }
    }
}

/// Calls `f` with the numbers of a tensor, row-major.
pub(super) fn slice<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(CpuStorage::F32(values)) => {
            let first = layout.start_offset();
            Ok(f(&values[first..first + layout.shape().elem_count()]))
        }
        _ => bail!("a tensor of another type than f32"),
    }
}
