//! Splits the work on a result among threads.
//!
//! A parallel iterator is compiled to a lot of code for each closure that it is given, so most ops share the one here.

use rayon::prelude::*;

/// Least elements that are worth a thread, which takes some ten microseconds to wake. An element takes about one nanosecond.
pub(crate) const TOGETHER: usize = 1 << 15;

/// Work on one piece of a result, given its number and its elements.
pub(crate) type Work<'w, T> = dyn Fn(usize, &mut [T]) -> Result<(), String> + Sync + 'w;

/// Works on pieces of `length` elements, the last of which may be shorter. They are split among threads only if each gets at least
/// `least_together` of them.
///
/// # Errors
/// If the work on a piece failed: one of its errors.
pub(crate) fn in_pieces<T: Send>(
    items: &mut [T],
    length: usize,
    least_together: usize,
    work: &Work<'_, T>,
) -> Result<(), String> {
    let pieces = items.par_chunks_mut(length.max(1)).enumerate().with_min_len(least_together);
    pieces.try_for_each(|(at, piece)| work(at, piece))
}
