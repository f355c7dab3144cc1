//! Files that are mapped, whole or where they lie in an archive.

use std::io;

use memmap2::{Mmap, MmapOptions};
use paths::FileRange;

/// Maps a file to be read.
pub(crate) fn map_range(range: &FileRange) -> io::Result<Mmap> {
    let length = usize::try_from(range.length()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    // SAFETY: the map is only read; packages, tables and archives are replaced by rename, never rewritten in place.
    unsafe { MmapOptions::new().offset(range.start()).len(length).map(range.file()) }
}
