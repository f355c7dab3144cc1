//! Where a checkpoint is: a folder, or a repository of the Hub.

use std::path::Path;

use anyhow::{Context, bail};
use checkpoint::source::{HubCheckpoint, LocalSource, Source, open_repository};
use hub::Settings;
use progress::Progress;

use crate::source::SourceSpec;

/// How a repository of the Hub is read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Access {
    /// Whether to download the repository into the cache that Hub clients share, instead of reading it without keeping it.
    pub download: bool,
    /// Whether to compare the weights with the digests that the Hub states first.
    pub verify: bool,
}

impl Access {
    /// For a checkpoint that is read many times: a repository is downloaded into the cache first.
    pub fn kept(source: &SourceSpec) -> Self {
        Access { download: source.path().is_none(), verify: false }
    }
}

/// An opened checkpoint, and what it is called.
pub struct Opened {
    /// Its tensors and files.
    pub source: Box<dyn Source>,
    /// Name of the repository, or of the folder: outputs are named after it.
    pub name: String,
}

/// Opens sources, with progress and cancellation.
#[derive(Clone, Copy)]
pub struct Opener<'a> {
    /// Whether to stop now. A function, because the client's threads call it too.
    pub cancelled: fn() -> bool,
    /// Receives the progress of downloads.
    pub progress: &'a dyn Progress,
}

impl Opener<'_> {
    /// Opens a folder or a repository.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(&self, source: &SourceSpec, access: Access) -> anyhow::Result<Opened> {
        let (id, revision) = match source {
            SourceSpec::Local(path) if access.download || access.verify => {
                bail!(
                    "{} is a folder: --download and --verify are for repositories of the Hub",
                    path.display()
                )
            }
            SourceSpec::Local(path) => return open_folder(path),
            SourceSpec::Repository { id, revision } => (id, revision.as_deref().unwrap_or("main")),
        };
        let settings = Settings { cancelled: self.cancelled, ..Settings::from_environment() };
        let repository = HubCheckpoint {
            id,
            revision,
            download: access.download,
            verify: access.verify,
            progress: self.progress,
        };
        let opened = open_repository(settings, &repository);
        self.progress.finish();
        Ok(Opened { source: opened?, name: id.clone() })
    }
}

fn open_folder(path: &Path) -> anyhow::Result<Opened> {
    let opened = LocalSource::open(path)?;
    let name = match &opened.identity().repository {
        Some(repository) => repository.clone(),
        None => folder_name(path)?,
    };
    Ok(Opened { source: Box::new(opened), name })
}

/// The folder's own name, even if it was given as `.`.
pub(crate) fn folder_name(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
    Ok(whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}
