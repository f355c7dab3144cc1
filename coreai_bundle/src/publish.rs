//! A release tree as a repository of the Hub. Publishing needs the feature `xet`; comparing does not.

use std::path::Path;

use anyhow::{anyhow, bail};
use hub::upload::{self, Comparison, LocalFile, PublishTarget, Published};
use hub::{Client, Settings};
use packer::TOOL;
use packer::check::{self, CheckError, Options};
use packer::manifest::{self, Manifest};
use packer::template::Renderer;
use progress::Progress;

use crate::release::defects_in_words;

/// Refuses an archive, which cannot be published.
///
/// # Errors
/// If `folder` is one.
pub fn refuse_archive(folder: &Path) -> anyhow::Result<()> {
    if paths::archive_of(folder).is_some() {
        bail!(
            "{} is an archive: publish the folder of the release that it was packed from",
            folder.display()
        );
    }
    Ok(())
}

/// A client that only compares, which needs no token for a public repository; nothing if the network must not be used.
///
/// # Errors
/// If the settings cannot be used.
pub fn reader(cancelled: fn() -> bool) -> anyhow::Result<Option<Client>> {
    let settings = Settings { cancelled, ..Settings::from_environment() };
    if settings.offline { Ok(None) } else { Ok(Some(Client::new(settings)?)) }
}

/// A client that may publish.
///
/// # Errors
/// If `HF_HUB_OFFLINE` is set, if there is no token, or if the feature `xet` is off.
pub fn client(cancelled: fn() -> bool) -> anyhow::Result<Client> {
    let Some(client) = reader(cancelled)? else {
        bail!("HF_HUB_OFFLINE is set, and publishing needs the network: unset it");
    };
    // Checked first, because computing the digests of a whole release takes long.
    upload::can_publish(&client)?;
    Ok(client)
}

/// A release without defects.
#[derive(Debug)]
pub struct Checked {
    /// All its files.
    pub files: Vec<LocalFile>,
    /// First line of a commit that publishes it, unless another one is given.
    pub message: String,
}

impl Checked {
    /// Checks a release tree.
    ///
    /// # Errors
    /// If it is not one, has defects, or cannot be read.
    pub fn new(folder: &Path, render: Renderer<'_>) -> anyhow::Result<Self> {
        refuse_archive(folder)?;
        let no_release =
            || anyhow!("{} is not a release tree: make one with `coreai-bundle release`", folder.display());
        let report = check::check(folder, &Options::new(render)).map_err(|error| match error {
            CheckError::Unrecognized { .. } => no_release(),
            other => other.into(),
        })?;
        if report.target != packer::contents::FolderKind::Release {
            return Err(no_release());
        }
        if report.has_defects() {
            let (shown, defects) = (folder.display(), defects_in_words(&report));
            bail!("{shown} cannot be published: it has {defects}\nrun `coreai-bundle check {shown}`");
        }
        let manifest = Manifest::read(folder)?;
        let mut files = Vec::with_capacity(manifest.files.len() + 1);
        for file in &manifest.files {
            // The check has just compared this digest.
            files.push(LocalFile::new(&file.path, &folder.join(&file.path), Some(&file.sha256.to_string()))?);
        }
        files.push(LocalFile::new(manifest::FILE_NAME, &folder.join(manifest::FILE_NAME), None)?);
        Ok(Checked { files, message: format!("Publish {} with {TOOL}", manifest.name) })
    }

    /// Compares the release with what the repository holds.
    ///
    /// # Errors
    /// If the Hub refuses or does not answer, or publishing would not do what was asked for.
    pub fn compare(&self, client: &Client, target: &PublishTarget<'_>) -> anyhow::Result<Comparison> {
        let comparison = upload::compare(client, target, &self.files)?;
        let (id, endpoint) = (target.id, client.settings().public_endpoint());
        match &comparison.head {
            Some(head) if target.private && !head.private => bail!(
                "{id} exists and is public: make it private at {endpoint}/{id}/settings first, or publish without --private"
            ),
            None if target.revision != "main" => bail!(
                "there is no repository {id} yet, and a new one has the branch main only: publish without --revision"
            ),
            None if target.pull_request => bail!(
                "there is no repository {id} that a pull request could be opened in: check the name, or publish without --pr"
            ),
            _ => Ok(comparison),
        }
    }

    /// Sends what is new or changed.
    ///
    /// # Errors
    /// If the Hub refuses or does not answer, a file cannot be read, or the run is cancelled.
    pub fn send(
        &self,
        client: &Client,
        target: &PublishTarget<'_>,
        comparison: &Comparison,
        progress: &dyn Progress,
    ) -> anyhow::Result<Published> {
        progress.expect(comparison.differing(&self.files).map(|file| file.size).sum());
        let published = upload::publish(client, target, &self.files, comparison, progress);
        progress.finish();
        Ok(published?)
    }
}
