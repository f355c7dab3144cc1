//! `SOURCE`: where a checkpoint is.

use std::path::Path;

use anyhow::{Context, bail};
use converter::source::LocalSource;

/// An opened checkpoint, and what it is called.
pub(crate) struct Origin {
    /// Its tensors and files.
    pub(crate) source: LocalSource,
    /// Name of the repository, or of the folder: outputs are named after it.
    pub(crate) name: String,
}

/// Opens a folder. `owner/name` that is no folder gets an answer of its own.
pub(crate) fn open(source: &str) -> anyhow::Result<Origin> {
    let path = Path::new(source);
    if !path.exists() {
        let is_repository = source.split('/').count() == 2 && !source.starts_with(['.', '/', '~']);
        if is_repository {
            bail!(
                "there is no folder {source:?}, and reading from the Hub is not part of this version; \
                 download the repository (`hf download {source} --local-dir DIR`) and give its folder"
            );
        }
        bail!("there is no folder {source:?}");
    }
    let opened = LocalSource::open(path)?;
    let name = match &converter::source::Source::identity(&opened).repository {
        Some(repository) => repository.clone(),
        None => folder_name(path)?,
    };
    Ok(Origin { source: opened, name })
}

/// The folder's own name, also when it was given as `.`.
fn folder_name(path: &Path) -> anyhow::Result<String> {
    let whole = path.canonicalize().with_context(|| format!("cannot resolve {}", path.display()))?;
    Ok(whole.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default())
}
