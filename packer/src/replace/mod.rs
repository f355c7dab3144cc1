//! Where outputs may go and what they may replace. Every command with outputs asks here; this is decided nowhere else.
//!
//! - An output must not be an input of the command, hold one, or lie inside one.
//! - A folder is replaced if its `manifest.json` is of this tool and of the output's kind, and lists every file in it.
//! - A file is replaced if it is a regular file that begins as this tool's files of that kind do ([`FileKind`]).
//! - Empty folders and files are replaced, since nothing is lost.
//!
//! Links, devices, pipes and sockets are never replaced ([`output::Guard`]).

mod file;
mod folder;
mod overlap;

pub use file::{FileKind, LOGITS_MAGIC};

use std::path::{Path, PathBuf};
use std::sync::Arc;

use output::{Guard, KeepExisting};

use crate::manifest::ManifestKind;

/// What the outputs of one run must not touch, and whether they may replace others.
#[derive(Clone, Debug)]
pub struct Outputs {
    inputs: Arc<[PathBuf]>,
    is_forced: bool,
}

impl Outputs {
    /// Outputs of a run that reads these inputs. Inputs that are not paths that exist, such as names of repositories, are ignored.
    pub fn new<P: Into<PathBuf>>(inputs: impl IntoIterator<Item = P>, is_forced: bool) -> Self {
        // What lies in an archive is read from the archive.
        let whole = |input: PathBuf| paths::archive_of(&input).unwrap_or(input);
        Outputs { inputs: inputs.into_iter().map(Into::into).map(whole).collect(), is_forced }
    }

    /// A folder with a manifest of this kind.
    pub fn folder(&self, kind: ManifestKind) -> Output {
        Output { outputs: self.clone(), kind: Kind::Folder(kind) }
    }

    /// A file.
    pub fn file(&self, kind: FileKind) -> Output {
        Output { outputs: self.clone(), kind: Kind::File(kind) }
    }

    /// A folder that is removed at the end of the run and replaces nothing.
    pub fn temporary(&self) -> Output {
        Output { outputs: self.clone(), kind: Kind::Temporary }
    }
}

/// One output: what a staged folder or file is made with.
#[derive(Clone, Debug)]
pub struct Output {
    outputs: Outputs,
    kind: Kind,
}

impl Output {
    /// The same for an output that is replaced without being asked, such as a report.
    pub fn always(mut self) -> Self {
        self.outputs.is_forced = true;
        self
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Folder(ManifestKind),
    File(FileKind),
    Temporary,
}

impl Guard for Output {
    fn may_write(&self, target: &Path) -> Result<(), String> {
        self.outputs.inputs.iter().try_for_each(|input| overlap::refuse(target, input))
    }

    fn may_replace(&self, found: &Path) -> Result<(), String> {
        match self.kind {
            Kind::Folder(kind) => folder::may_replace(found, kind),
            Kind::File(kind) => kind.may_replace(found),
            Kind::Temporary => KeepExisting.may_replace(found),
        }
    }

    fn is_forced(&self) -> bool {
        self.outputs.is_forced
    }
}

#[cfg(test)]
mod tests;
