//! Two files byte by byte, on all cores.

use std::path::Path;

use anyhow::Context;
use rayon::prelude::*;
use serde::Serialize;

/// Bytes that are compared at a time.
pub(super) const CHUNK: u64 = 1 << 20;

/// Two files that are not equal.
#[derive(Debug, Serialize)]
pub struct ByteDifference {
    /// Size of the left file.
    pub left_bytes: u64,
    /// Size of the right file.
    pub right_bytes: u64,
    /// First byte that differs, or the end of the shorter file.
    pub first: u64,
}

/// Compares two files; `None` if they are equal.
pub(super) fn compare(left: &Path, right: &Path) -> anyhow::Result<Option<ByteDifference>> {
    let open = |path: &Path| paths::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (ours, theirs) = (open(left)?, open(right)?);
    if ours.is_same(&theirs)? {
        return Ok(None);
    }
    let (left_bytes, right_bytes) = (ours.length(), theirs.length());
    let common = left_bytes.min(right_bytes);
    let read = |out: &mut [u8], other: &mut [u8], offset: u64| -> anyhow::Result<()> {
        ours.read_exact_at(out, offset).with_context(|| format!("cannot read {}", left.display()))?;
        theirs.read_exact_at(other, offset).with_context(|| format!("cannot read {}", right.display()))
    };
    let first = first_difference(common, &read)?;
    let longer = (left_bytes != right_bytes).then_some(common);
    Ok(first.or(longer).map(|first| ByteDifference { left_bytes, right_bytes, first }))
}

/// First of `length` bytes in which two sources differ. `read` fills a piece of each from an offset.
pub(super) fn first_difference(
    length: u64,
    read: &(impl Fn(&mut [u8], &mut [u8], u64) -> anyhow::Result<()> + Sync),
) -> anyhow::Result<Option<u64>> {
    let chunks = length.div_ceil(CHUNK);
    let compared = (0..chunks).into_par_iter().map_init(
        || (vec![0; CHUNK as usize], vec![0; CHUNK as usize]),
        |(ours, theirs), chunk| {
            let offset = chunk * CHUNK;
            let size = (length - offset).min(CHUNK) as usize;
            let (ours, theirs) = (&mut ours[..size], &mut theirs[..size]);
            read(ours, theirs, offset)?;
            if ours == theirs {
                return Ok(None);
            }
            let at = ours.iter().zip(theirs.iter()).position(|(a, b)| a != b);
            Ok(at.map(|at| offset + at as u64))
        },
    );
    compared.find_map_first(Result::transpose).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn the_first_of_many_differences_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        let mut bytes = vec![7; 3 * CHUNK as usize + 5];
        let left = file(scratch.path(), "a", &bytes);
        assert!(compare(&left, &file(scratch.path(), "b", &bytes)).unwrap().is_none());
        assert!(compare(&left, &left).unwrap().is_none());
        let longer = compare(&left, &file(scratch.path(), "c", &[&bytes[..], &[1]].concat())).unwrap();
        assert_eq!(longer.unwrap().first, bytes.len() as u64);
        let last = bytes.len() - 1;
        bytes[last] = 8;
        assert_eq!(compare(&left, &file(scratch.path(), "d", &bytes)).unwrap().unwrap().first, last as u64);
        bytes[CHUNK as usize] = 8;
        assert_eq!(compare(&left, &file(scratch.path(), "e", &bytes)).unwrap().unwrap().first, CHUNK);
    }
}
