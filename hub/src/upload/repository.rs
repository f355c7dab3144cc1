//! What a repository holds at a commit, and a new repository.

use serde::Deserialize;
use serde_json::json;
use text::names;

use super::{JSON, PublishTarget};
use crate::answer::quoted;
use crate::client::{About, Client, origin};
use crate::digest::RemoteDigest;
use crate::error::Error;
use crate::retry::Failure;
use crate::snapshot::{MAX_FILES, RepositoryId};

/// Most pages of a listing. The Hub puts a thousand files on one.
const MAX_PAGES: usize = 10_000;

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
    let about = About { id: id.as_str(), revision, file: "" };
    let odd = |what: String| Error::protocol(&client.settings().endpoint, &what);
    let mut next = Some(client.api(id, "tree", revision) + "?recursive=true&expand=false");
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
    let body = json!({ "type": "model", "organization": owner, "name": name, "private": target.private });
    let body = body.to_string();
    let made = client.patiently(|| {
        let made = client.post(&url, &JSON, body.as_bytes(), target.about(""));
        made.map_err(|failure| Failure { passes: failure.passes || is_busy(&failure.error), ..failure })
    });
    match made {
        Err(Error::Refused { status: 409, .. }) => Ok(()),
        made => made.map(drop),
    }
}

/// Whether the Hub makes another repository of the user, which it does one at a time.
fn is_busy(error: &Error) -> bool {
    match error {
        Error::Refused { status: 409, message, .. } => message.contains("in progress"),
        _ => false,
    }
}
