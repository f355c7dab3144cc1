//! What differs between files here and a branch there.

use std::collections::BTreeMap;

use super::PublishTarget;
use super::local::LocalFile;
use super::repository::{RemoteEntry, entries};
use crate::client::Client;
use crate::digest::RemoteDigest;
use crate::error::Error;
use crate::snapshot::Snapshot;

/// How a local file compares to the Hub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// The Hub has none of that name.
    New,
    /// The Hub has another one.
    Changed,
    /// The Hub has the same bytes.
    Equal,
}

/// What a branch holds, compared with what is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The head of the branch; None if the repository does not exist, or is not visible to this token.
    pub head: Option<Snapshot>,
    /// One for each file, in their order.
    pub states: Vec<FileState>,
    /// Files on the Hub that are not here; they stay.
    pub only_there: Vec<RemoteEntry>,
}

impl Comparison {
    /// Those of the compared files that are new or changed.
    pub fn differing<'f>(&'f self, files: &'f [LocalFile]) -> impl Iterator<Item = &'f LocalFile> {
        files.iter().zip(&self.states).filter(|(_, state)| **state != FileState::Equal).map(|(file, _)| file)
    }
}

/// Compares files with what a branch holds.
///
/// # Errors
/// If a file cannot be read, there is a repository without that branch, or the Hub does not answer.
pub fn compare(
    client: &Client,
    target: &PublishTarget<'_>,
    files: &[LocalFile],
) -> Result<Comparison, Error> {
    let head = match Snapshot::resolve(client, target.id, target.revision) {
        Ok(head) => head,
        Err(Error::NotFound(_)) => {
            return Ok(Comparison {
                head: None,
                states: vec![FileState::New; files.len()],
                only_there: Vec::new(),
            });
        }
        Err(error) => return Err(error),
    };
    let mut there = by_path(entries(client, target.id, &head.commit)?);
    let mut states = Vec::with_capacity(files.len());
    for file in files {
        states.push(match there.remove(&file.path) {
            None => FileState::New,
            Some(entry) if is_same(file, &entry)? => FileState::Equal,
            Some(_) => FileState::Changed,
        });
    }
    Ok(Comparison { head: Some(head), states, only_there: there.into_values().collect() })
}

/// Compares every file with what a commit holds.
///
/// # Errors
/// If the Hub does not answer, or a file differs.
pub(super) fn verify<'f>(
    client: &Client,
    target: &PublishTarget<'_>,
    revision: &str,
    files: impl IntoIterator<Item = &'f LocalFile>,
) -> Result<(), Error> {
    let there = by_path(entries(client, target.id, revision)?);
    for file in files {
        let entry = there.get(&file.path);
        if entry.map(|entry| is_same(file, entry)).transpose()? == Some(true) {
            continue;
        }
        let expected = entry.map(|entry| file.digest_like(&entry.digest)).transpose()?;
        let expected = expected.as_ref().map_or(file.sha256(), RemoteDigest::as_str);
        let actual = entry.map_or("nothing", |entry| entry.digest.as_str());
        return Err(Error::Other(format!(
            "{} is not on the Hub as it is here: the Hub says {actual} for it, not {expected}; publish again, and if that does \
             not help, report it to the Hub",
            file.path
        )));
    }
    Ok(())
}

fn by_path(entries: Vec<RemoteEntry>) -> BTreeMap<String, RemoteEntry> {
    entries.into_iter().map(|entry| (entry.path.clone(), entry)).collect()
}

fn is_same(file: &LocalFile, entry: &RemoteEntry) -> Result<bool, Error> {
    Ok(file.size == entry.size && file.digest_like(&entry.digest)? == entry.digest)
}
