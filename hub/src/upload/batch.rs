//! Which large files the storage lacks.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};

use super::local::LocalFile;
use super::{ASKED_AT_ONCE, PublishTarget};
use crate::answer::quoted;
use crate::client::{Client, host};
use crate::error::Error;

/// Media type of git's large file storage.
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
const HEADERS: [(&str, &str); 2] = [("Content-Type", MEDIA_TYPE), ("Accept", MEDIA_TYPE)];

#[derive(Deserialize)]
struct Batch {
    transfer: Option<String>,
    objects: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    oid: String,
    actions: Option<Value>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    message: String,
}

/// Those files that the storage does not hold.
///
/// # Errors
/// If the Hub refuses one, does not answer, or offers no Xet.
pub(super) fn missing<'f>(
    client: &Client,
    target: &PublishTarget<'_>,
    files: &[&'f LocalFile],
) -> Result<Vec<&'f LocalFile>, Error> {
    let mut missing = Vec::new();
    for files in files.chunks(ASKED_AT_ONCE) {
        let lacking = ask(client, target, files)?;
        missing.extend(files.iter().filter(|file| lacking.contains(file.sha256())));
    }
    Ok(missing)
}

/// Asks about files by their digests; returns those of the missing ones.
fn ask(client: &Client, target: &PublishTarget<'_>, files: &[&LocalFile]) -> Result<HashSet<String>, Error> {
    let endpoint = &client.settings().endpoint;
    let url = format!("{endpoint}/{}.git/info/lfs/objects/batch", target.id);
    let objects: Vec<Value> =
        files.iter().map(|file| json!({ "oid": file.sha256(), "size": file.size })).collect();
    let body = json!({
        "operation": "upload",
        "transfers": ["basic", "multipart", "xet"],
        "hash_algo": "sha256",
        "ref": { "name": target.revision },
        "objects": objects,
    });
    let body = body.to_string();
    let text = client.patiently(|| client.post(&url, &HEADERS, body.as_bytes(), target.about("")))?;
    let batch: Batch = client.json(&url, &text)?;
    let mut lacking = HashSet::new();
    for file in files {
        let object = batch.objects.iter().find(|object| object.oid == file.sha256());
        let Some(object) = object else {
            return Err(Error::protocol(endpoint, &format!("{}: the batch does not name it", file.path)));
        };
        if let Some(Refusal { code, message }) = &object.error {
            let (host, message) = (host(&url), quoted(message));
            return Err(Error::Refused { host, what: file.path.clone(), status: *code, message });
        }
        if object.actions.is_none() {
            continue;
        }
        if batch.transfer.as_deref() != Some("xet") {
            return Err(no_xet(client, file));
        }
        lacking.insert(object.oid.clone());
    }
    Ok(lacking)
}

pub(super) fn no_xet(client: &Client, file: &LocalFile) -> Error {
    let endpoint = client.settings().public_endpoint();
    Error::NoXet { endpoint, file: file.path.clone(), bytes: file.size }
}
