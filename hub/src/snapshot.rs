//! A repository at one commit.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use text::names;

use crate::answer::quoted;
use crate::client::{About, Client};
use crate::error::Error;
use crate::file::RemoteFile;

/// Characters of a path that are not escaped.
const PATH: AsciiSet = NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Largest number of files in a repository. The Hub recommends to stay below this.
pub(crate) const MAX_FILES: usize = 100_000;

/// `owner/name`, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepositoryId(String);

impl RepositoryId {
    /// Checks a name: two parts of letters, digits, `-`, `_` and `.`, neither of them leading anywhere.
    ///
    /// # Errors
    /// [`Error::BadName`].
    pub fn new(id: &str) -> Result<Self, Error> {
        let is_part = |part: &str| {
            let plain = part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            plain
                && !part.is_empty()
                && part.len() <= 96
                && !part.starts_with(['.', '-'])
                && !part.contains("..")
        };
        match id.split_once('/') {
            Some((owner, name)) if is_part(owner) && is_part(name) && !id.contains("--") => {
                Ok(RepositoryId(id.to_owned()))
            }
            _ => Err(Error::BadName { id: id.to_owned() }),
        }
    }

    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Owner and name.
    pub(crate) fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or_default()
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A repository at one commit, whatever its branches do in the meantime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The repository.
    pub id: RepositoryId,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
    /// Paths of all files, sorted.
    pub files: Vec<String>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

impl Snapshot {
    /// Asks which commit a branch, tag or commit resolves to, and what it holds.
    ///
    /// # Errors
    /// If there is no such repository or revision, or the Hub does not answer.
    pub fn resolve(client: &Client, id: &RepositoryId, revision: &str) -> Result<Self, Error> {
        let about = About { id: id.as_str(), revision, file: "" };
        let revision = escape(revision).replace('/', "%2F");
        let path = format!("/api/models/{id}/revision/{revision}");
        let info: Info = client.get_json(&path, about)?;
        let endpoint = &client.settings().endpoint;
        if !names::is_commit(&info.sha) {
            return Err(Error::protocol(endpoint, &format!("{path}: its sha is not a commit")));
        }
        if info.siblings.len() > MAX_FILES {
            let what = format!("{path}: it lists {} files, more than {MAX_FILES}", info.siblings.len());
            return Err(Error::protocol(endpoint, &what));
        }
        if let Some(odd) = info.siblings.iter().find(|sibling| names::path(&sibling.rfilename).is_err()) {
            let what = format!("{path}: not a path within a repository: {:?}", quoted(&odd.rfilename));
            return Err(Error::protocol(endpoint, &what));
        }
        let mut files: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        files.sort();
        Ok(Snapshot { id: id.clone(), commit: info.sha, files })
    }

    /// Asks for the facts about a file.
    ///
    /// # Errors
    /// As [`RemoteFile::look_up`].
    pub fn file(&self, client: &Client, path: &str) -> Result<RemoteFile, Error> {
        RemoteFile::look_up(client, &self.id, &self.commit, path)
    }

    /// Whether a file of that path exists.
    pub fn holds(&self, path: &str) -> bool {
        self.files.binary_search_by(|file| file.as_str().cmp(path)).is_ok()
    }
}

/// A path as it appears in an address.
pub(crate) fn escape(path: &str) -> String {
    utf8_percent_encode(path, &PATH).to_string()
}

#[cfg(test)]
mod tests {
    use super::{RepositoryId, escape};

    #[test]
    fn names_lead_nowhere() {
        for good in ["google/gemma-4-E4B-it", "a/b", "A_1/b.c"] {
            assert_eq!(RepositoryId::new(good).unwrap().as_str(), good);
        }
        for bad in ["gemma", "a/b/c", "../b", "a/..", "a/.b", "a//b", "a/", "/a", "a/b c", "a/b--c", ""] {
            assert!(RepositoryId::new(bad).is_err(), "{bad}");
        }
        assert_eq!(escape("a b/c#d"), "a%20b/c%23d");
    }
}
