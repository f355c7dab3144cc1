//! What a run has finished, in a file, so that it can be continued.
//!
//! The first line says what the run is about; each other line has results of one bundle, from one position on. A line is written when
//! its windows are complete. A last line without its end is dropped: the run was cut off while it was written.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ::oracle::eval::bundle::Found;
use ::oracle::eval::logits::Subject;
use anyhow::{Context, bail};
use output::Digest;
use packer::manifest;
use serde::{Deserialize, Serialize};
use text::small;

use crate::runnable::Runnable;

/// Most bytes of a state: 100 bytes for each of a million positions.
const MAX_BYTES: u64 = 128 << 20;
/// Most results of a line.
const RESULTS_OF_LINE: usize = 1024;

/// The first line.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The tool, whose sums may differ from those of another version.
    evaluation_by: String,
    checkpoint: String,
    tokens_sha256: Digest,
    window: usize,
    stride: usize,
}

/// Any other line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    bundle: String,
    first: usize,
    found: Vec<Found>,
}

/// The finished part of a run.
pub(super) struct State {
    file: Option<(PathBuf, File)>,
    results: BTreeMap<String, Vec<Found>>,
}

impl State {
    /// Reads the state of a run that was cut off, or begins one. Without a path nothing is kept.
    pub(super) fn open(path: Option<&Path>, subject: &Subject) -> anyhow::Result<State> {
        let mut state = State { file: None, results: BTreeMap::new() };
        let Some(path) = path else { return Ok(state) };
        let shape = subject.windows.shape();
        let header = serde_json::to_string(&Header {
            evaluation_by: packer::TOOL.to_owned(),
            checkpoint: subject.checkpoint.fingerprint.clone(),
            tokens_sha256: subject.windows.digest(),
            window: shape.window,
            stride: shape.stride,
        })?;
        let cannot = |what: &str| format!("cannot {what} {}", path.display());
        let text = match small::read_text(path, MAX_BYTES) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| cannot("read")),
        };
        let complete = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..complete].lines();
        match lines.next() {
            Some(first) if first != header => bail!(
                "{} is not the state of this evaluation: give the same text, windows and checkpoint, or another file",
                path.display()
            ),
            None if !text.is_empty() && !header.starts_with(&text) => {
                bail!("{} is not the state of an evaluation: give another file", path.display())
            }
            _ => {}
        }
        for (number, line) in lines.enumerate() {
            if state.take(line, subject.windows.positions()).is_none() {
                bail!(
                    "{}, line {}: it was changed; delete the file to start over",
                    path.display(),
                    number + 2
                );
            }
        }
        let mut file =
            OpenOptions::new().append(true).create(true).open(path).with_context(|| cannot("write"))?;
        file.set_len(complete as u64).with_context(|| cannot("write"))?;
        if complete == 0 {
            writeln!(file, "{header}").with_context(|| cannot("write"))?;
        }
        state.file = Some((path.to_owned(), file));
        Ok(state)
    }

    fn take(&mut self, line: &str, positions: usize) -> Option<()> {
        let line: Line = serde_json::from_str(line).ok()?;
        let results = self.results.entry(line.bundle).or_default();
        let valid = |found: &Found| found.is_none_or(|found| found.nll >= 0.0 && found.kl >= 0.0);
        let fits =
            line.first == results.len() && line.found.len() <= positions - results.len().min(positions);
        (fits && line.found.iter().all(valid)).then(|| results.extend(line.found))
    }

    /// Results of a bundle, from the first position on.
    pub(super) fn results(&self, key: &str) -> Vec<Found> {
        self.results.get(key).cloned().unwrap_or_default()
    }

    /// Keeps more results of a bundle.
    pub(super) fn add(&mut self, key: &str, first: usize, found: &[Found]) -> io::Result<()> {
        let Some((_, file)) = &mut self.file else { return Ok(()) };
        for (part, found) in found.chunks(RESULTS_OF_LINE).enumerate() {
            let first = first + part * RESULTS_OF_LINE;
            let line = Line { bundle: key.to_owned(), first, found: found.to_vec() };
            file.write_all((serde_json::to_string(&line)? + "\n").as_bytes())?;
        }
        Ok(())
    }

    /// Removes the file: the run has succeeded.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        match self.file {
            Some((path, _)) => {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))
            }
            None => Ok(()),
        }
    }
}

/// A bundle in this state, and how it is run. A bundle that was made again has another manifest.
pub(super) fn key(runnable: &Runnable, name: &str) -> anyhow::Result<String> {
    let path = runnable.bundle.join(manifest::FILE_NAME);
    let digest = match paths::read(&path, small::JSON) {
        Ok(bytes) => Digest::of_bytes(&bytes).to_string(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => "without a manifest".to_owned(),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    Ok(format!("{name}, {digest}, {:?}, {:?}", runnable.rounding, runnable.chunk))
}
