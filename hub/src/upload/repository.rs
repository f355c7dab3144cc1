//! What a repository holds at a commit, and a new repository.

use hf_hub::RepoTypeModel;
use serde::Deserialize;
use text::names;

use super::PublishTarget;
use crate::answer::quoted;
use crate::client::{About, Client, origin};
use crate::digest::RemoteDigest;
use crate::error::Error;
use crate::library;
use crate::snapshot::{MAX_FILES, RepositoryId, escape};

/// Most pages of a listing. The Hub puts a thousand files on one.
const MAX_PAGES: usize = 10_000;

/// The head of a branch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The commit.
    pub commit: String,
    /// Whether the repository is visible to its owner only.
    pub private: bool,
}

impl Head {
    /// Asks for the head of a branch.
    ///
    /// # Errors
    /// If there is no such repository or branch, or the Hub does not answer.
    pub fn read(client: &Client, id: &RepositoryId, revision: &str) -> Result<Self, Error> {
        let about = About { id: id.as_str(), revision, file: "" };
        let (owner, name) = id.parts();
        let info = library::ask(client, about, |library| async move {
            library.model(owner, name).info().revision(revision).send().await
        })?;
        match info.sha.filter(|sha| names::is_commit(sha)) {
            Some(commit) => Ok(Head { commit, private: info.private == Some(true) }),
            None => {
                let what = format!("the sha of {revision} of {id} is not a commit");
                Err(Error::protocol(&client.settings().endpoint, &what))
            }
        }
    }
}

/// A file of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteEntry {
    /// Path within the repository.
    pub path: String,
    /// Number of bytes.
    pub size: u64,
    /// The digest that the Hub states.
    pub digest: RemoteDigest,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: String,
    size: u64,
    lfs: Option<Large>,
}

#[derive(Deserialize)]
struct Large {
    oid: String,
}

/// Asks for all files of a branch or commit, page after page.
pub(super) fn entries(client: &Client, id: &RepositoryId, revision: &str) -> Result<Vec<RemoteEntry>, Error> {
    let endpoint = &client.settings().endpoint;
    let about = About { id: id.as_str(), revision, file: "" };
    let odd = |what: String| Error::protocol(endpoint, &what);
    let revision = escape(revision).replace('/', "%2F");
    let mut next = Some(format!("{endpoint}/api/models/{id}/tree/{revision}?recursive=true&expand=false"));
    let mut entries = Vec::new();
    let mut pages = 0;
    while let Some(url) = next {
        let (page, following) = client.get_page::<Vec<Listed>>(&url, about)?;
        for file in page.into_iter().filter(|listed| listed.kind == "file") {
            let digits = file.lfs.map_or(file.oid, |large| large.oid);
            if names::path(&file.path).is_err() {
                let path = quoted(&file.path);
                return Err(odd(format!("tree: not a path within a repository: {path:?}")));
            }
            let digest = RemoteDigest::from_etag(&digits)
                .ok_or_else(|| odd(format!("tree: {} has no digest", file.path)))?;
            entries.push(RemoteEntry { path: file.path, size: file.size, digest });
        }
        if following.as_ref().is_some_and(|following| *following == url || origin(following) != origin(&url))
        {
            return Err(odd("the pages of a tree lead elsewhere".to_owned()));
        }
        pages += 1;
        if entries.len() > MAX_FILES || pages > MAX_PAGES {
            return Err(odd(format!("tree: it lists more than {MAX_FILES} files or {MAX_PAGES} pages")));
        }
        next = following;
    }
    Ok(entries)
}

/// Makes the repository. If somebody else made it in the meantime, that is fine.
pub(super) fn create(client: &Client, target: &PublishTarget<'_>) -> Result<(), Error> {
    let made = library::ask(client, target.about(""), |library| async move {
        let create = library.create_repository().repo_id(target.id.as_str()).repo_type(RepoTypeModel);
        create.private(target.private).send().await.map(drop)
    });
    match made {
        Err(Error::Refused { status: 409, .. }) => Ok(()),
        made => made,
    }
}
