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
    /// If it is none.
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
            _ => Err(Error::Other(format!(
                "{id:?} is not a repository: give owner/name, as in google/gemma-4-E2B-it"
            ))),
        }
    }

    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
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
    /// Whether the repository is visible to its owner only.
    pub private: bool,
    /// Paths of all files, sorted.
    pub files: Vec<String>,
}

#[derive(Deserialize)]
struct Info {
    sha: String,
    #[serde(default)]
    private: bool,
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
        let url = client.api(id, "revision", revision);
        let (info, _): (Info, _) = client.get_page(&url, about)?;
        let path = &url[client.settings().endpoint.len()..];
        let odd = |what: String| Err(Error::protocol(&url, &format!("{path}: {what}")));
        if !names::is_commit(&info.sha) {
            return odd("its sha is not a commit".to_owned());
        }
        if info.siblings.len() > MAX_FILES {
            return odd(format!("it lists {} files, more than {MAX_FILES}", info.siblings.len()));
        }
        if let Some(bad) = info.siblings.iter().find(|sibling| names::path(&sibling.rfilename).is_err()) {
            return odd(format!("not a path within a repository: {:?}", quoted(&bad.rfilename)));
        }
        let mut files: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        files.sort();
        Ok(Snapshot { id: id.clone(), commit: info.sha, private: info.private, files })
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
