//! Splits the work on a result among threads.
//!
//! Parallel iterators compile to much code for each closure they are given, so all ops share the few here.

use rayon::prelude::*;

/// Least elements that are worth a thread.
pub(crate) const TOGETHER: usize = 1 << 12;

/// Work on one piece of a result: which it is, and its elements.
pub(crate) type Work<'w, T> = dyn Fn(usize, &mut [T]) -> Result<(), String> + Sync + 'w;

/// Works on pieces of `length` elements, the last of which may be shorter; one thread takes at least `least` of them.
///
/// # Errors
/// If the work on a piece failed: one of its errors.
pub(crate) fn in_pieces<T: Send>(
    items: &mut [T],
    length: usize,
    least: usize,
    work: &Work<'_, T>,
) -> Result<(), String> {
    let pieces = items.par_chunks_mut(length.max(1)).enumerate().with_min_len(least);
    pieces.try_for_each(|(at, piece)| work(at, piece))
}

/// Works on rows of `length` elements.
///
/// # Errors
/// As [`in_pieces`].
pub(crate) fn in_rows<T: Send>(items: &mut [T], length: usize, work: &Work<'_, T>) -> Result<(), String> {
    in_pieces(items, length, TOGETHER.div_ceil(length.max(1)), work)
}
