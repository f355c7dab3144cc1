//! Sums of rows that are multiplied by a factor each: products with matrices whose rows are contiguous, and Apple's order of sums.
//!
//! Written once as plain loops; on x86-64 they are also compiled for AVX2. Each sum has its own order, so all versions give the
//! same bits.

use half::f16;

use super::halves::{round_to_half, to_single};

/// One row of values.
#[derive(Clone, Copy)]
pub(crate) enum Row<'w> {
    Half(&'w [f16]),
    Single(&'w [f32]),
}

/// Adds `factor` times a row of f16 or f32 to `sums`.
pub(crate) fn accumulate(row: Row<'_>, factor: f32, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { accumulate_avx2(row, factor, sums) };
    }
    accumulate_portable(row, factor, sums);
}

/// Adds `factor` times a row to `sums`, rounding every product and every sum to f16.
pub(crate) fn accumulate_rounded(row: &[f32], factor: f32, sums: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { accumulate_rounded_avx2(row, factor, sums) };
    }
    accumulate_rounded_portable(row, factor, sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn accumulate_rounded_avx2(row: &[f32], factor: f32, sums: &mut [f32]) {
    accumulate_rounded_portable(row, factor, sums);
}

#[inline(always)]
pub(super) fn accumulate_rounded_portable(row: &[f32], factor: f32, sums: &mut [f32]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        *sum = round_to_half(*sum + round_to_half(factor * value));
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn accumulate_avx2(row: Row<'_>, factor: f32, sums: &mut [f32]) {
    accumulate_portable(row, factor, sums);
}

#[inline(always)]
fn accumulate_portable(row: Row<'_>, factor: f32, sums: &mut [f32]) {
    match row {
        Row::Half(row) => {
            for (sum, half) in sums.iter_mut().zip(row) {
                *sum += factor * to_single(half.to_bits());
            }
        }
        Row::Single(row) => {
            for (sum, single) in sums.iter_mut().zip(row) {
                *sum += factor * single;
            }
        }
    }
}
