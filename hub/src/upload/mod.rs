//! Publishing: what is here is compared with what the Hub holds, what differs is sent, and one commit names it all.
//!
//! Large files go to the Hub's storage by Xet, which cuts them into chunks and sends those that it does not have; small ones go
//! with the commit. Files that the storage holds already are not read again, and chunks are not sent again, so an upload that was
//! cut off continues where it was. Afterwards the Hub is asked what it holds, and every digest is compared.

mod batch;
mod commit;
mod compare;
mod local;
mod repository;
#[cfg(feature = "xet")]
mod xet;

use progress::Progress;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use compare::{Comparison, FileState, compare};
pub use local::LocalFile;
pub use repository::RemoteEntry;

use crate::client::{About, Client, host};
use crate::error::Error;
use crate::snapshot::{RepositoryId, Snapshot};

/// Files above this many bytes are never part of a commit themselves, whatever the server says.
pub const LARGEST_INLINE: u64 = 10_000_000;

/// Files that one request asks about.
const ASKED_AT_ONCE: usize = 256;

/// Headers of a body in JSON.
const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// Where to publish, and as what.
#[derive(Clone, Copy, Debug)]
pub struct PublishTarget<'a> {
    /// The repository; created if it does not exist.
    pub id: &'a RepositoryId,
    /// The branch.
    pub revision: &'a str,
    /// A new repository is visible to its owner only.
    pub private: bool,
    /// Open a pull request, instead of changing the branch.
    pub pull_request: bool,
    /// First line of the commit's message.
    pub message: &'a str,
}

/// What was published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Published {
    /// The commit; nothing if there was nothing to change.
    pub commit: Option<String>,
    /// Address of the pull request, if one was opened.
    pub pull_request: Option<String>,
    /// Large files that were sent.
    pub sent: usize,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Those of them that were in chunks which the storage had.
    pub known_bytes: u64,
    /// What was transferred for the others, compressed, with the descriptions of the files.
    pub transferred_bytes: u64,
    /// Large files that the storage held already.
    pub held: usize,
    /// Small files, which went with the commit.
    pub inline: usize,
}

impl PublishTarget<'_> {
    pub(crate) fn about<'a>(&'a self, file: &'a str) -> About<'a> {
        About { id: self.id.as_str(), revision: self.revision, file }
    }

    /// Address of a part of the API that writes to the branch, or to a pull request for it.
    fn api(&self, client: &Client, part: &str) -> String {
        let url = client.api(self.id, part, self.revision);
        if self.pull_request { url + "?create_pr=1" } else { url }
    }
}

/// Sends what the comparison of the same files found to be new or changed, in one commit, and compares what the Hub has
/// afterwards with all of `files`. If nothing differs, nothing is sent and there is no commit.
///
/// # Errors
/// As [`can_publish`], and if the token may not write, the Hub refuses or does not answer, a file cannot be read or changes in the
/// meantime, somebody else commits in the meantime, or the Hub does not hold afterwards what was sent.
pub fn publish(
    client: &Client,
    target: &PublishTarget<'_>,
    files: &[LocalFile],
    comparison: &Comparison,
    progress: &dyn Progress,
) -> Result<Published, Error> {
    send(client, target, files, comparison, progress).map_err(|error| of_writing(client, target, error))
}

fn send(
    client: &Client,
    target: &PublishTarget<'_>,
    files: &[LocalFile],
    comparison: &Comparison,
    progress: &dyn Progress,
) -> Result<Published, Error> {
    can_publish(client)?;
    let head = match &comparison.head {
        Some(head) => head.clone(),
        None => {
            repository::create(client, target)?;
            Snapshot::resolve(client, target.id, target.revision)?
        }
    };
    let differing: Vec<&LocalFile> = comparison.differing(files).collect();
    if differing.is_empty() {
        return Ok(Published::default());
    }
    let (large, inline) = by_mode(client, target, differing)?;
    let mut published = Published { inline: inline.len(), ..Published::default() };
    let missing = batch::missing(client, target, &large)?;
    published.held = large.len() - missing.len();
    large.iter().filter(|file| !missing.contains(file)).for_each(|file| progress.resume(file.size));
    if !missing.is_empty() {
        #[cfg(not(feature = "xet"))]
        return Err(without_xet());
        #[cfg(feature = "xet")]
        xet::send(client, target, &missing, progress, &mut published)?;
    }
    let committed = commit::commit(client, target, &head, &large, &inline)?;
    compare::verify(client, target, &committed.reference, files)?;
    published.commit = Some(committed.commit);
    published.pull_request = committed.pull_request;
    Ok(published)
}

fn without_xet() -> Error {
    let reason = "this program was built without its feature `xet`, which publishing needs: build it with `--features xet`";
    Error::Other(reason.to_owned())
}

/// Returns an error unless this program has what publishing needs: the storage's client, and a token.
///
/// # Errors
/// If there is no token, or the feature `xet` is off.
pub fn can_publish(client: &Client) -> Result<(), Error> {
    if cfg!(not(feature = "xet")) {
        return Err(without_xet());
    }
    let settings = client.settings();
    if settings.token.is_some() {
        return Ok(());
    }
    Err(Error::Other(match settings.token_disabled {
        true => "HF_HUB_DISABLE_IMPLICIT_TOKEN is set, so no token is used, and publishing needs one: unset it and run again"
            .to_owned(),
        false => format!(
            "there is no token, and publishing needs one: make one with write access at {}/settings/tokens, then set HF_TOKEN or \
             run `hf auth login`",
            settings.public_endpoint()
        ),
    }))
}

/// A refusal by the Hub itself means that the token may not write.
fn of_writing(client: &Client, target: &PublishTarget<'_>, error: Error) -> Error {
    let settings = client.settings();
    match (error, &settings.token) {
        (Error::Refused { host: refusing, status: 401 | 403, message, .. }, Some(token))
            if refusing == host(&settings.endpoint) =>
        {
            Error::MayNotWrite {
                id: target.id.to_string(),
                endpoint: settings.public_endpoint(),
                origin: token.origin().to_owned(),
                message,
            }
        }
        (error, _) => error,
    }
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
}

/// Asks which files the Hub wants as large ones, and which as small ones. Files that are too large for a commit always are large.
fn by_mode<'f>(
    client: &Client,
    target: &PublishTarget<'_>,
    files: Vec<&'f LocalFile>,
) -> Result<(Vec<&'f LocalFile>, Vec<&'f LocalFile>), Error> {
    let url = target.api(client, "preupload");
    let (mut large, mut inline) = (Vec::new(), Vec::new());
    for files in files.chunks(ASKED_AT_ONCE) {
        let mut asked = Vec::with_capacity(files.len());
        for file in files {
            asked.push(json!({ "path": file.path, "size": file.size, "sample": file.sample()? }));
        }
        let body = json!({ "files": asked }).to_string();
        let text = client.patiently(|| client.post(&url, &JSON, body.as_bytes(), target.about("")))?;
        let modes: Modes = client.json(&url, &text)?;
        for &file in files {
            let mode = modes.files.iter().find(|mode| mode.path == file.path);
            match mode.map(|mode| mode.upload_mode.as_str()) {
                _ if file.size > LARGEST_INLINE => large.push(file),
                // A storage of chunks has no place for a file without any.
                _ if file.size == 0 => inline.push(file),
                Some("lfs") => large.push(file),
                Some("regular") => inline.push(file),
                other => {
                    return Err(Error::protocol(&url, &format!("preupload of {}: {other:?}", file.path)));
                }
            }
        }
    }
    Ok((large, inline))
}
