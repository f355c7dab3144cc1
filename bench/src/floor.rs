//! The floor: plain reads of the same inputs, plain writes of as many bytes, and a sync.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use checkpoint::source::{LocalSource, Source, TensorEntry};

/// Bytes copied at a time.
const STEP: usize = 4 << 20;

/// Whether the input's pages are in memory when a run begins.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    Warm,
    Cold,
}

impl Cache {
    /// Those that can be arranged on this system.
    pub(crate) const ALL: &[Cache] =
        if cfg!(target_os = "linux") { &[Cache::Warm, Cache::Cold] } else { &[Cache::Warm] };

    pub(crate) fn name(self) -> &'static str {
        match self {
            Cache::Warm => "warm",
            Cache::Cold => "cold",
        }
    }

    /// Loads the files of a folder into the page cache, or drops them from it.
    pub(crate) fn prepare(self, folder: &Path) -> Result<()> {
        for path in files(folder)? {
            let file = File::open(&path)?;
            match self {
                Cache::Warm => drop(std::io::copy(&mut &file, &mut std::io::sink())?),
                Cache::Cold => {
                    file.sync_all()?;
                    #[cfg(target_os = "linux")]
                    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
                }
            }
        }
        Ok(())
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

/// Reads these tensors front to back and writes this many bytes to a file, which is then removed.
pub(crate) fn copy(source: &LocalSource, tensors: &[&TensorEntry], bytes: u64, target: &Path) -> Result<()> {
    let mut file = File::create(target).with_context(|| format!("cannot write {}", target.display()))?;
    let (mut buffer, mut left) = (vec![0; STEP], bytes);
    for tensor in tensors {
        for start in (0..tensor.byte_len()).step_by(STEP) {
            let piece = &mut buffer[..STEP.min((tensor.byte_len() - start) as usize)];
            source.read_at(tensor, start, piece)?;
            left -= put(&mut file, piece, left)?;
        }
    }
    while left > 0 {
        left -= put(&mut file, &buffer, left)?;
    }
    file.sync_all()?;
    Ok(fs::remove_file(target)?)
}

/// Writes at most `left` bytes.
fn put(file: &mut File, bytes: &[u8], left: u64) -> Result<u64> {
    let bytes = &bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
    file.write_all(bytes)?;
    Ok(bytes.len() as u64)
}
