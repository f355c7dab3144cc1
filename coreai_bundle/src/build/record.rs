//! What a build has finished, in a file beside its outputs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use output::{Digest, WrittenFile};
use packer::TOOL;
use packer::manifest;
use packer::replace::{FileKind, Outputs};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use text::{names, small};

use super::RELEASE_FOLDER;
use crate::outputs::write_text;
use crate::stage::is_output;

/// The step that completes the manifests of bundles.
pub(super) const EVALUATION: &str = "evaluation";
/// The file.
const FILE_NAME: &str = "build.json";

/// Steps that are finished and the folders that they made. Nothing in it is trusted: a folder counts as made only if it holds what its
/// manifest lists, and the manifest is the one that was noted.
#[derive(Debug, Default)]
pub(super) struct Record {
    folder: PathBuf,
    content: Content,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    tool: String,
    /// By step: the digest of everything that its outputs depend on.
    steps: BTreeMap<String, Digest>,
    /// By folder: the step that made it, and its manifest.
    folders: BTreeMap<String, Made>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Made {
    step: String,
    manifest: WrittenFile,
}

/// The digest of everything that a step's outputs depend on.
pub(super) fn key_of(inputs: &Value) -> Digest {
    Digest::of_bytes(format!("{TOOL}\n{inputs}").as_bytes())
}

impl Record {
    /// The record in a folder; an empty one if there is none, or it is of another version or damaged: then everything is made again.
    pub(super) fn read(folder: &Path) -> Self {
        let bytes = small::read(&folder.join(FILE_NAME), small::JSON).unwrap_or_default();
        let content = serde_json::from_slice::<Content>(&bytes).ok();
        let is_sound = |content: &Content| {
            content.tool == TOOL && content.folders.keys().all(|name| names::component(name).is_ok())
        };
        Record { folder: folder.to_owned(), content: content.filter(is_sound).unwrap_or_default() }
    }

    /// Whether a folder of this name was made by a build here, so that another build may replace it.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.content.folders.contains_key(name)
    }

    /// The folders of a step, if it was done with the same inputs and they are whole.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub(super) fn finished(&self, step: &str, key: &Digest) -> anyhow::Result<Option<Vec<String>>> {
        if self.content.steps.get(step) != Some(key) {
            return Ok(None);
        }
        let mut found = Vec::new();
        for (name, made) in self.content.folders.iter().filter(|(_, made)| made.step == step) {
            let folder = self.folder.join(name);
            if !folder.is_dir() || !is_output(&folder, &made.manifest)? {
                return Ok(None);
            }
            found.push(name.clone());
        }
        Ok(Some(found))
    }

    /// Notes that a step is done, and which folders it made.
    ///
    /// # Errors
    /// If a manifest cannot be read, or the record cannot be written.
    pub(super) fn finish(&mut self, step: &str, key: Digest, folders: &[String]) -> anyhow::Result<()> {
        self.content.folders.retain(|_, made| made.step != step);
        for name in folders {
            let manifest = self.manifest_of(name)?;
            self.content.folders.insert(name.clone(), Made { step: step.to_owned(), manifest });
        }
        self.content.steps.insert(step.to_owned(), key);
        if step != RELEASE_FOLDER {
            // New bundles have not been evaluated.
            self.content.steps.remove(EVALUATION);
        }
        self.write()
    }

    /// Notes that the manifests of folders were completed after the steps that made them, by a step without folders of its own.
    ///
    /// # Errors
    /// As [`Self::finish`].
    pub(super) fn complete(&mut self, step: &str, key: Digest, folders: &[String]) -> anyhow::Result<()> {
        for name in folders {
            let manifest = self.manifest_of(name)?;
            if let Some(made) = self.content.folders.get_mut(name) {
                made.manifest = manifest;
            }
        }
        self.content.steps.insert(step.to_owned(), key);
        self.write()
    }

    fn manifest_of(&self, name: &str) -> anyhow::Result<WrittenFile> {
        let path = self.folder.join(name).join(manifest::FILE_NAME);
        WrittenFile::of(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn write(&mut self) -> anyhow::Result<()> {
        TOOL.clone_into(&mut self.content.tool);
        let text = serde_json::to_string_pretty(&self.content)? + "\n";
        let output = Outputs::new(Vec::<PathBuf>::new(), true).file(FileKind::BuildRecord);
        write_text(&self.folder.join(FILE_NAME), output, &text)
    }
}
