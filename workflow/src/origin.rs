//! Where a checkpoint is: a folder, or a repository of the Hub.

use std::path::Path;

use anyhow::{Context, bail};
use checkpoint::source::{HubCheckpoint, LocalSource, Source, open_repository};
use hub::Settings;
use progress::Progress;

/// How a repository of the Hub is read.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Branch, tag or commit of the repository; `main` otherwise.
    pub revision: Option<String>,
    /// Whether to download the repository into the cache that Hub clients share, instead of reading it without keeping it.
    pub download: bool,
    /// Whether to compare the weights with the digests that the Hub states first.
    pub verify: bool,
}

impl Access {
    /// For a checkpoint that is read many times: a repository is downloaded into the cache first.
    pub fn kept(source: &str, revision: Option<&str>) -> Self {
        Access { revision: revision.map(str::to_owned), download: !Path::new(source).exists(), verify: false }
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
    /// Opens a folder, or a repository `owner/name` if there is no folder of that name.
    ///
    /// # Errors
    /// If there is neither, or it cannot be read.
    pub fn open(&self, source: &str, access: &Access) -> anyhow::Result<Opened> {
        let path = Path::new(source);
        if path.exists() {
            if access.revision.is_some() || access.download || access.verify {
                bail!(
                    "{source} is a folder: --revision, --download and --verify are for repositories of the Hub"
                );
            }
            return open_folder(path);
        }
        if !is_repository(source) {
            bail!("there is no folder {source:?}, and a repository of the Hub would be owner/name");
        }
        let settings = Settings { cancelled: self.cancelled, ..Settings::from_environment() };
        let repository = HubCheckpoint {
            id: source,
            revision: access.revision.as_deref().unwrap_or("main"),
            download: access.download,
            verify: access.verify,
            progress: self.progress,
        };
        let opened = open_repository(settings, &repository);
        self.progress.finish();
        Ok(Opened { source: opened?, name: source.to_owned() })
    }
}

/// Whether this looks like `owner/name`.
pub fn is_repository(source: &str) -> bool {
    source.split('/').count() == 2 && !source.starts_with(['.', '/', '~']) && !source.ends_with('/')
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
fn folder_name(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
    Ok(whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}
