//! One commit of everything that differs.

use serde::Deserialize;
use serde_json::{Value, json};
use text::names;

use super::local::LocalFile;
use super::repository::Head;
use super::{PublishTarget, compare};
use crate::client::{Client, Failure};
use crate::error::Error;

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

/// Commits files on top of `head`; each comes with whether it is a large one that the storage holds.
///
/// # Errors
/// If the Hub refuses, somebody else committed in the meantime, or no answer arrived and it is not known what happened.
pub(super) fn commit(
    client: &Client,
    target: &PublishTarget<'_>,
    head: &Head,
    additions: &[(&LocalFile, bool)],
) -> Result<Committed, Error> {
    let mut url = target.api(client, "commit");
    if target.pull_request {
        url.push_str("?create_pr=1");
    }
    let body = lines(target, head, additions)?;
    let mut attempts = client.attempts();
    // Whether an earlier attempt may have succeeded.
    let mut in_doubt = false;
    loop {
        let passing = match once(client, target, &url, &body) {
            Ok(Some(answered)) => return committed(client, target, &url, answered),
            Ok(None) if in_doubt => return found(client, target, additions),
            Ok(None) => {
                return Err(Error::Moved { id: target.id.to_string(), revision: target.revision.to_owned() });
            }
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(passing)) => passing,
        };
        in_doubt |= !matches!(passing.error, Error::RateLimited { .. });
        // The same pull request must not be opened twice; on a branch, the parent prevents that.
        if in_doubt && target.pull_request {
            let endpoint = client.settings().public_endpoint();
            return Err(Error::Unsure { id: target.id.to_string(), endpoint });
        }
        attempts.failed(passing)?;
    }
}

/// Sends the commit once; nothing if the parent is no longer the head.
fn once(
    client: &Client,
    target: &PublishTarget<'_>,
    url: &str,
    body: &[u8],
) -> Result<Option<Answered>, Failure> {
    let answer = client.ask("POST", url, &[("Content-Type", "application/x-ndjson")], body)?;
    match answer.status {
        200..=299 => {
            let text = client.text(url, answer)?;
            client.json(url, &text).map(Some).map_err(Failure::Final)
        }
        409 | 412 => Ok(None),
        _ => Err(client.refusal(url, answer, target.about(""))),
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
fn found(
    client: &Client,
    target: &PublishTarget<'_>,
    additions: &[(&LocalFile, bool)],
) -> Result<Committed, Error> {
    let head = Head::read(client, target.id, target.revision)?;
    let files: Vec<LocalFile> = additions.iter().map(|(file, _)| (*file).clone()).collect();
    compare::verify(client, target, &head.commit, &files)?;
    Ok(Committed { reference: head.commit.clone(), commit: head.commit, pull_request: None })
}

/// The commit as lines of JSON.
fn lines(
    target: &PublishTarget<'_>,
    head: &Head,
    additions: &[(&LocalFile, bool)],
) -> Result<Vec<u8>, Error> {
    let header = json!({ "summary": target.message, "description": "", "parentCommit": head.commit });
    let mut lines = line("header", header);
    for (file, is_large) in additions {
        lines.extend(if *is_large {
            let value =
                json!({ "path": file.path, "algo": "sha256", "oid": file.sha256(), "size": file.size });
            line("lfsFile", value)
        } else {
            let value = json!({ "path": file.path, "encoding": "base64", "content": file.content()? });
            line("file", value)
        });
    }
    Ok(lines)
}

fn line(key: &str, value: Value) -> Vec<u8> {
    let mut line = json!({ "key": key, "value": value }).to_string().into_bytes();
    line.push(b'\n');
    line
}
