//! One commit of everything that differs.

use serde::Deserialize;
use serde_json::{Value, json};
use text::names;

use super::local::LocalFile;
use super::{PublishTarget, compare};
use crate::client::Client;
use crate::error::Error;
use crate::retry::Failure;
use crate::snapshot::Snapshot;

/// A commit that was made.
pub(super) struct Committed {
    pub(super) commit: String,
    /// The name under which its tree can be requested.
    pub(super) reference: String,
    pub(super) pull_request: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answered {
    commit_oid: String,
    pull_request_url: Option<String>,
}

/// Commits files on top of `head`: large ones, which the storage holds, and small ones.
///
/// # Errors
/// If the Hub refuses, somebody else committed in the meantime, or no answer arrived and it is not known what happened.
pub(super) fn commit(
    client: &Client,
    target: &PublishTarget<'_>,
    head: &Snapshot,
    large: &[&LocalFile],
    inline: &[&LocalFile],
) -> Result<Committed, Error> {
    let url = target.api(client, "commit");
    let body = lines(target, head, large, inline)?;
    let mut attempts = client.attempts();
    // Whether an earlier attempt may have succeeded.
    let mut in_doubt = false;
    loop {
        let failure = match once(client, target, &url, &body) {
            Ok(Some(answered)) => return committed(client, target, &url, answered),
            Ok(None) if in_doubt => return found(client, target, large.iter().chain(inline).copied()),
            Ok(None) => {
                return Err(Error::Moved { id: target.id.to_string(), revision: target.revision.to_owned() });
            }
            Err(failure) if !failure.passes => return Err(failure.error),
            Err(failure) => failure,
        };
        in_doubt |= !matches!(failure.error, Error::RateLimited { .. });
        // The same pull request must not be opened twice; on a branch, the parent prevents that.
        if in_doubt && target.pull_request {
            let endpoint = client.settings().public_endpoint();
            return Err(Error::Unsure { id: target.id.to_string(), endpoint });
        }
        attempts.failed(failure)?;
    }
}

/// Sends the commit once; nothing if the parent is no longer the head.
fn once(
    client: &Client,
    target: &PublishTarget<'_>,
    url: &str,
    body: &[u8],
) -> Result<Option<Answered>, Failure> {
    match client.post(url, &[("Content-Type", "application/x-ndjson")], body, target.about("")) {
        Ok(text) => Ok(Some(client.json(url, &text)?)),
        Err(Failure { error: Error::Refused { status: 409 | 412, .. }, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn committed(
    client: &Client,
    target: &PublishTarget<'_>,
    url: &str,
    answered: Answered,
) -> Result<Committed, Error> {
    let Answered { commit_oid: commit, pull_request_url } = answered;
    if !names::is_commit(&commit) {
        return Err(Error::protocol(url, "the commit that it made has no name of a commit"));
    }
    let Some(address) = pull_request_url else {
        return Ok(Committed { reference: commit.clone(), commit, pull_request: None });
    };
    let number = address.rsplit('/').next().and_then(|number| number.parse::<u64>().ok());
    let number =
        number.ok_or_else(|| Error::protocol(url, "the pull request that it opened has no number"))?;
    let pull_request = format!("{}/{}/discussions/{number}", client.settings().public_endpoint(), target.id);
    Ok(Committed { commit, reference: format!("refs/pr/{number}"), pull_request: Some(pull_request) })
}

/// The commit whose answer was lost: the head, if it holds what was sent.
fn found<'f>(
    client: &Client,
    target: &PublishTarget<'_>,
    files: impl Iterator<Item = &'f LocalFile>,
) -> Result<Committed, Error> {
    let head = Snapshot::resolve(client, target.id, target.revision)?;
    compare::verify(client, target, &head.commit, files)?;
    Ok(Committed { reference: head.commit.clone(), commit: head.commit, pull_request: None })
}

/// The commit as lines of JSON.
fn lines(
    target: &PublishTarget<'_>,
    head: &Snapshot,
    large: &[&LocalFile],
    inline: &[&LocalFile],
) -> Result<Vec<u8>, Error> {
    let header = json!({ "summary": target.message, "description": "", "parentCommit": head.commit });
    let mut lines = line("header", header);
    for file in large {
        let value = json!({ "path": file.path, "algo": "sha256", "oid": file.sha256(), "size": file.size });
        lines.extend(line("lfsFile", value));
    }
    for file in inline {
        let value = json!({ "path": file.path, "encoding": "base64", "content": file.content()? });
        lines.extend(line("file", value));
    }
    Ok(lines)
}

fn line(key: &str, value: Value) -> Vec<u8> {
    let mut line = json!({ "key": key, "value": value }).to_string().into_bytes();
    line.push(b'\n');
    line
}
