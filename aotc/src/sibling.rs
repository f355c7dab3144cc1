//! The sibling bundle `<name>_aotc_<arch>/`: the source bundle with the artifact instead of its graph.

use std::fs;
use std::path::{Path, PathBuf};

use output::StagedDirectory;
use packer::TOOL;
use packer::manifest::{self, CompiledFrom, FileRecord, Manifest, ManifestKind, Provenance};
use packer::metadata::{self, BundleMetadata, Compilation, MAIN_ASSET, PREFILL_FUNCTION};
use serde_json::{Value, json};

use crate::architecture::Architecture;
use crate::artifact::{self, Artifact};
use crate::compile::{CompileSettings, artifact_name};
use crate::error::Error;
use crate::prefill::LeftOut;
use crate::source::SourceBundle;

/// One artifact to make: decides where the sibling goes and whether an existing one is still up to date.
#[derive(Debug)]
pub(crate) struct SiblingSpec<'a> {
    pub(crate) source: &'a SourceBundle,
    pub(crate) architecture: &'a Architecture,
    pub(crate) settings: &'a CompileSettings,
    /// First line of `coreai-build --version`.
    pub(crate) compiler: &'a str,
    /// The function that is not compiled.
    pub(crate) left_out: Option<&'a LeftOut>,
    /// What to record as the date of the compilation.
    pub(crate) date: Option<&'a str>,
}

/// What is at a sibling's place already.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Existing {
    /// Nothing.
    Absent,
    /// A complete sibling made from this source with these settings and this compiler.
    UpToDate,
    /// A sibling of the same source bundle, made from other content, settings or compiler, or damaged.
    Outdated,
    /// Something that this stage did not write.
    Foreign,
}

/// The folder of the sibling in `output`.
pub(crate) fn target(source: &SourceBundle, architecture: &Architecture, output: Option<&Path>) -> PathBuf {
    let parent = output.or(source.path.parent()).unwrap_or(Path::new("/"));
    parent.join(sibling_name(&source.name, architecture))
}

fn sibling_name(name: &str, architecture: &Architecture) -> String {
    format!("{name}_aotc_{architecture}")
}

impl SiblingSpec<'_> {
    /// File name of the artifact.
    pub(crate) fn artifact_name(&self) -> String {
        artifact_name(&self.source.stem, self.architecture)
    }

    /// Examines what is at `target`.
    pub(crate) fn existing(&self, target: &Path) -> Existing {
        if fs::symlink_metadata(target).is_err() {
            return Existing::Absent;
        }
        let Ok(manifest) = Manifest::read(target) else { return Existing::Foreign };
        match &manifest.compiled_from {
            Some(from) if from.bundle == self.source.name => {
                if *from == self.compiled_from() && self.is_whole(target, &manifest) {
                    Existing::UpToDate
                } else {
                    Existing::Outdated
                }
            }
            _ => Existing::Foreign,
        }
    }

    fn is_whole(&self, target: &Path, manifest: &Manifest) -> bool {
        let Ok(files) = manifest::collect(target, &[]) else { return false };
        if files != manifest.files {
            return false;
        }
        let name = self.artifact_name();
        let inside = |file: FileRecord| {
            let path = file.path.strip_prefix(&name)?.strip_prefix('/')?.to_owned();
            Some(FileRecord { path, ..file })
        };
        let inside = files.into_iter().filter_map(inside).collect();
        artifact::verify_files(&target.join(&name), inside, self.architecture, None).is_ok()
    }

    fn compiled_from(&self) -> CompiledFrom {
        CompiledFrom {
            bundle: self.source.name.clone(),
            main_sha256: self.source.program_sha256,
            architecture: self.architecture.to_string(),
            toolchain: self.toolchain(),
        }
    }

    /// Everything else that decides what the sibling holds.
    fn toolchain(&self) -> Value {
        let mut toolchain = json!({
            "compiler": self.compiler,
            "options": self.settings.options(self.architecture),
            "source_sha256": self.source.digest,
        });
        if self.left_out.is_some() {
            toolchain["left_out"] = json!([PREFILL_FUNCTION]);
        }
        toolchain
    }

    /// Completes the sibling in `staged`, which holds the checked artifact already.
    pub(crate) fn assemble(&self, staged: &StagedDirectory, artifact: &Artifact) -> Result<Manifest, Error> {
        self.copy_rest(staged.path())?;
        self.metadata().write(staged.path())?;
        let name = sibling_name(&self.source.name, self.architecture);
        let known: Vec<FileRecord> = artifact
            .files
            .iter()
            .map(|file| FileRecord {
                path: format!("{}/{}", self.artifact_name(), file.path),
                ..file.clone()
            })
            .collect();
        manifest::seal(staged.path(), ManifestKind::Bundle, &name, self.provenance(), &known)
            .map_err(|e| Error::NotCompilable { path: self.source.path.clone(), reason: e.to_string() })
    }

    /// Copies what is neither graph nor rewritten. Copies, not links: editing a template in one bundle must not
    /// change another, and on the file systems of a Mac a copy takes no space.
    fn copy_rest(&self, root: &Path) -> Result<(), Error> {
        let rewritten = [metadata::FILE_NAME, manifest::FILE_NAME];
        for file in &self.source.files {
            if self.source.in_package(file) || rewritten.contains(&file.path.as_str()) {
                continue;
            }
            let (from, to) = (self.source.path.join(&file.path), root.join(&file.path));
            if let Some(folder) = to.parent() {
                fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
            }
            fs::copy(&from, &to).map_err(Error::io("copy to", &to))?;
        }
        Ok(())
    }

    fn metadata(&self) -> BundleMetadata {
        let mut metadata = self.source.metadata.clone();
        metadata.name = sibling_name(&self.source.name, self.architecture);
        metadata.assets.insert(MAIN_ASSET.to_owned(), self.artifact_name());
        if let Some(left_out) = self.left_out {
            left_out.describe(&mut metadata);
        }
        let before = metadata.compilation.take().unwrap_or_default();
        metadata.compilation = Some(Compilation {
            date: self.date.map(str::to_owned).or(before.date),
            targets: vec![self.architecture.to_string()],
            other: before.other,
        });
        metadata
    }

    /// What is recorded of the conversion, without functions that are not compiled.
    fn conversion(&self, of_source: &Value) -> Value {
        let mut conversion = of_source.clone();
        if let (Some(_), Some(entries)) = (self.left_out, conversion.as_object_mut()) {
            entries.shift_remove(manifest::FUNCTIONS);
        }
        conversion
    }

    fn provenance(&self) -> Provenance {
        let compiled_from = Some(self.compiled_from());
        match &self.source.manifest {
            Some(manifest) => Provenance {
                // The compiled graph has not run on a device yet.
                gate: serde_json::Value::Null,
                checksums: manifest.checksums.clone(),
                tool: TOOL.into(),
                source: manifest.source.clone(),
                conversion: self.conversion(&manifest.conversion),
                tables_digest: manifest.tables_digest,
                compiled_from,
                recipe: serde_json::Value::Null,
            },
            None => Provenance {
                tool: TOOL.into(),
                tables_digest: self.source.metadata.tables_digest(),
                compiled_from,
                ..Provenance::default()
            },
        }
    }
}
