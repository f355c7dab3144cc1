//! From `owner/name` to a checkpoint: the cache if it has all of it, else the Hub.

use std::path::Path;
use std::sync::Arc;

use hub::cache::Cache;
use hub::{Client, Error, RepositoryId, Settings, Snapshot, download};
use progress::Progress;

use super::HubSource;
use crate::source::{LocalSource, SINGLE_FILE, Source, SourceError};

/// A repository to open.
pub struct HubCheckpoint<'a> {
    /// `owner/name`.
    pub id: &'a str,
    /// Branch, tag or commit.
    pub revision: &'a str,
    /// Whether to download the checkpoint into the cache instead of reading it from the Hub.
    pub download: bool,
    /// Whether to compare the weights with the digests that the Hub states before anything is made from them.
    pub verify: bool,
    /// Receives the progress of that, and what the user should know.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for HubCheckpoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubCheckpoint")
            .field("id", &self.id)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// Opens a checkpoint of the Hub. The revision is resolved once. A complete snapshot in the cache is used; without a network,
/// that of the commit to which the revision last resolved.
///
/// # Errors
/// If there is no such repository, revision or checkpoint, it may not be read, or neither Hub nor cache has it.
pub fn open_repository(
    settings: Settings,
    repository: &HubCheckpoint<'_>,
) -> Result<Box<dyn Source>, SourceError> {
    let id = RepositoryId::new(repository.id)?;
    let cache = Cache::new(&settings.cache, &id);
    let remembered = || cache.commit_of(repository.revision).and_then(|commit| cached(&cache, &commit));
    if settings.offline {
        if repository.verify {
            let text = "HF_HUB_OFFLINE is set, and --verify asks the Hub for digests: unset it, or leave out --verify";
            return Err(Error::Other(text.to_owned()).into());
        }
        let Some(source) = remembered() else {
            let (revision, cache) = (repository.revision, settings.cache.display());
            return Err(Error::Other(format!(
                "HF_HUB_OFFLINE is set, and {cache} does not hold all of {id} at {revision:?}: unset it, or download the \
                 repository once with --download while online"
            ))
            .into());
        };
        return Ok(Box::new(source));
    }
    let client = Arc::new(Client::new(settings)?);
    let snapshot = match Snapshot::resolve(&client, &id, repository.revision) {
        Ok(snapshot) => snapshot,
        Err(error) if error.is_unreachable() && !repository.verify => {
            let Some(source) = remembered() else { return Err(error.into()) };
            let commit = source.identity().revision.clone().unwrap_or_default();
            repository
                .progress
                .note(&format!("warning: {error}\nusing {id} from the cache, at commit {commit}"));
            return Ok(Box::new(source));
        }
        Err(error) => return Err(error.into()),
    };
    let files: Vec<String> = snapshot.files.iter().filter(|path| is_wanted(path)).cloned().collect();
    let whole = |folder: &Path| files.iter().all(|path| folder.join(path).exists());
    let mut folder = cache.snapshot(&snapshot.commit).filter(|folder| whole(folder));
    if folder.is_none() && repository.download {
        let wanted = repository.revision;
        folder = Some(download::download(&client, &snapshot, wanted, &files, repository.progress)?);
    }
    let Some(folder) = folder else {
        let mut source = HubSource::open(client, snapshot)?;
        if repository.verify {
            source.verify(repository.progress)?;
        }
        return Ok(Box::new(source));
    };
    let mut source = LocalSource::open(&folder)?;
    if repository.verify {
        let weights: Vec<String> = files.into_iter().filter(|path| is_weights(path)).collect();
        download::verify(&client, &snapshot, &weights, Some(&folder), repository.progress)?;
        source.set_verified();
    }
    Ok(Box::new(source))
}

/// A commit's folder in the cache, if everything that a conversion needs is in it.
fn cached(cache: &Cache, commit: &str) -> Option<LocalSource> {
    let source = LocalSource::open(&cache.snapshot(commit)?).ok()?;
    let has = |name: &str| source.file_names().iter().any(|file| file == name);
    (has("config.json") && has("tokenizer.json")).then_some(source)
}

/// Whether a file of a repository belongs to its checkpoint: weights by their usual names, and small files.
fn is_wanted(path: &str) -> bool {
    let is_small = [".json", ".jinja", ".model", ".txt", ".md"].iter().any(|ending| path.ends_with(ending));
    text::names::component(path).is_ok() && (is_small || is_weights(path) || path.starts_with("LICENSE"))
}

fn is_weights(path: &str) -> bool {
    path == SINGLE_FILE || path.starts_with("model-") && path.ends_with(".safetensors")
}

#[cfg(test)]
mod tests {
    use super::is_wanted;

    #[test]
    fn a_download_takes_the_checkpoint_and_nothing_else() {
        for path in
            ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "LICENSE", "README.md"]
        {
            assert!(is_wanted(path), "{path}");
        }
        for path in [
            "onnx/model.onnx",
            "pytorch_model.bin",
            "model.gguf",
            "adapter.safetensors",
            "original/config.json",
        ] {
            assert!(!is_wanted(path), "{path}");
        }
    }
}
