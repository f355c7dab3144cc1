//! What a repository holds at a commit, and a new repository.

use serde::Deserialize;
use serde_json::json;
use text::names;

use super::PublishTarget;
use crate::answer::quoted;
use crate::client::{About, Client, Failure, origin};
use crate::digest::RemoteDigest;
use crate::error::Error;
use crate::retry::Passing;
use crate::snapshot::{MAX_FILES, RepositoryId, escape};

/// Most pages of a listing. The Hub puts a thousand files on one.
const MAX_PAGES: usize = 10_000;

/// The head of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Head {
    /// The commit.
    #[serde(rename = "sha")]
    pub commit: String,
    /// Whether the repository is visible to its owner only.
    #[serde(default)]
    pub private: bool,
}

impl Head {
    /// Asks for the head of a branch.
    ///
    /// # Errors
    /// If there is no such repository or branch, or the Hub does not answer.
    pub fn read(client: &Client, id: &RepositoryId, revision: &str) -> Result<Self, Error> {
        let about = About { id: id.as_str(), revision, file: "" };
        let path = format!("/api/models/{id}/revision/{}", escape(revision).replace('/', "%2F"));
        let head: Head = client.get_json(&path, about)?;
        if names::is_commit(&head.commit) {
            return Ok(head);
        }
        Err(Error::protocol(&client.settings().endpoint, &format!("{path}: its sha is not a commit")))
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
    let url = format!("{}/api/repos/create", client.settings().endpoint);
    let (owner, name) = target.id.as_str().split_once('/').unwrap_or_default();
    let visibility = if target.private { "private" } else { "public" };
    let body = json!({ "type": "model", "organization": owner, "name": name, "visibility": visibility });
    let body = body.to_string();
    client.patiently(|| {
        let answer = client.ask("POST", &url, &[("Content-Type", "application/json")], body.as_bytes())?;
        let status = answer.status;
        if (200..=299).contains(&status) {
            return Ok(());
        }
        match client.refusal(&url, answer, target.about("")) {
            // The Hub makes one repository of a user at a time.
            Failure::Final(error) if status == 409 && error.to_string().contains("in progress") => {
                Err(Failure::Passing(Passing { error, retry_after: None }))
            }
            Failure::Final(_) if status == 409 => Ok(()),
            failure => Err(failure),
        }
    })
}
