//! Checks and facts that all commands with outputs share.

use std::num::NonZeroUsize;
use std::path::Path;

use aimodel::staging::available_bytes;
use anyhow::{Context, bail};

use crate::digits;

/// Bytes kept free beside what is planned: metadata, tokenizer, manifest.
const SLACK: u64 = 64 << 20;

/// Refuses a run that the file system under `folder` has no room for.
pub(crate) fn check_space(folder: &Path, needed: u64) -> anyhow::Result<()> {
    let available = available_bytes(folder)?;
    let needed = needed.saturating_add(SLACK);
    if needed > available {
        bail!(
            "{}: {} are needed, {} are free; make room or give another folder with -o",
            folder.display(),
            digits::bytes(needed),
            digits::bytes(available)
        );
    }
    Ok(())
}

/// Threads to use: as typed, else as many as the machine has cores.
pub(crate) fn threads(typed: Option<NonZeroUsize>) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    typed.map_or_else(cores, NonZeroUsize::get)
}

/// Name and version of this program.
pub(crate) fn tool() -> String {
    format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

/// The time that outputs carry, as `YYYYMMDDTHHMMSSZ`: that of `SOURCE_DATE_EPOCH`, else the epoch, so that equal inputs make
/// equal bytes.
pub(crate) fn creation_date() -> anyhow::Result<String> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => {
            text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds"))?
        }
        Err(_) => 0,
    };
    let time = jiff::Timestamp::from_second(seconds)
        .with_context(|| format!("SOURCE_DATE_EPOCH is {seconds}, out of range"))?;
    Ok(time.strftime("%Y%m%dT%H%M%SZ").to_string())
}
