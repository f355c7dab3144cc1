//! Large files on their way to the storage.
//!
//! Files that the storage holds are left out, the others go through Xet's own client.

use std::collections::HashSet;
use std::time::Duration;

use progress::Progress;
use serde::Deserialize;
use serde_json::{Value, json};
use xet::error::XetError;
use xet::xet_session::{
    DeduplicationMetrics, Sha256Policy, XetConfig, XetSession, XetSessionBuilder, XetUploadCommit,
};

use super::local::LocalFile;
use super::{ASKED_AT_ONCE, PublishTarget, Published};
use crate::answer::quoted;
use crate::client::{Client, host};
use crate::error::Error;
use crate::settings::Settings;

/// Media type of git's large file storage.
const MEDIA_TYPE: &str = "application/vnd.git-lfs+json";
const HEADERS: [(&str, &str); 2] = [("Content-Type", MEDIA_TYPE), ("Accept", MEDIA_TYPE)];
/// How often progress is reported.
const STEP: Duration = Duration::from_millis(100);
/// Blocks of up to 64 MB that are sent at the same time, and kept in memory for that.
const BLOCKS_AT_ONCE: usize = 8;

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

/// Access to the storage, for a while.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    access_token: String,
    /// Seconds since 1970.
    exp: u64,
    cas_url: String,
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

fn no_xet(client: &Client, file: &LocalFile) -> Error {
    let endpoint = client.settings().public_endpoint();
    Error::NoXet { endpoint, file: file.path.clone(), bytes: file.size }
}

/// Sends files, and counts them.
///
/// # Errors
/// If the Hub or the storage refuses or does not answer, a file cannot be read, or one has other bytes than its digest says.
pub(super) fn send(
    client: &Client,
    target: &PublishTarget<'_>,
    files: &[&LocalFile],
    progress: &dyn Progress,
    published: &mut Published,
) -> Result<(), Error> {
    let url = target.api(client, "xet-write-token");
    let access: Access = match client.get_page(&url, target.about("")) {
        Ok((access, _)) => access,
        Err(Error::Refused { status: 404, .. }) => return Err(no_xet(client, files[0])),
        Err(error) => return Err(error),
    };
    let session = session(client)?;
    let work = async {
        // A file finds the chunks of those before it, not of those beside it: the bundles of a release share their weights.
        for file in files {
            let builder = session.new_upload_commit()?.with_endpoint(access.cas_url.clone());
            let builder = builder.with_token_info(access.access_token.clone(), access.exp);
            let headers = client.token_header().into_iter().collect();
            let commit = builder.with_token_refresh_url(&url, headers).build().await?;
            let Some(metrics) = upload(&commit, file, progress).await? else {
                return Ok(Some(file.changed()));
            };
            published.known_bytes += metrics.deduped_bytes;
            published.transferred_bytes += metrics.total_bytes_uploaded;
        }
        Ok::<_, XetError>(None)
    };
    let ended = client.waiter.run(work).inspect_err(|_| {
        // What runs on is nothing that a user waits for.
        let _ = session.abort();
    })?;
    if let Some(error) = ended.map_err(|error| storage_error(host(&access.cas_url), &error))? {
        return Err(error);
    }
    published.sent = files.len();
    published.sent_bytes = files.iter().map(|file| file.size).sum();
    Ok(())
}

/// A session of Xet, which takes nothing from variables, sends no statistics and writes no log.
fn session(client: &Client) -> Result<XetSession, Error> {
    let handle = client.waiter.handle().map_err(|error| Error::no_client(&error.to_string()))?;
    let settings = client.settings();
    let builder = XetSessionBuilder::new_with_config(config(settings)).with_cache_dir(&settings.xet_cache);
    let built = builder.with_tokio_handle(handle.clone()).build();
    built.map_err(|error| Error::no_client(&error.to_string()))
}

/// Hands a file over, and reports until all of it is there; nothing if other bytes arrived than were announced.
async fn upload(
    commit: &XetUploadCommit,
    file: &LocalFile,
    progress: &dyn Progress,
) -> Result<Option<DeduplicationMetrics>, XetError> {
    progress.begin(&file.path);
    let task = commit.upload_from_path(file.source.clone(), Sha256Policy::Compute).await?.task_id();
    let mut reported = 0;
    let mut report = |reached: u64| {
        if let Some(more @ 1..) = reached.checked_sub(reported) {
            progress.advance(more);
            reported = reached;
        }
    };
    let finished = commit.commit();
    tokio::pin!(finished);
    let done = loop {
        match tokio::time::timeout(STEP, &mut finished).await {
            Ok(done) => break done?,
            Err(_) => report(commit.progress().total_bytes_completed),
        }
    };
    report(file.size);
    let sent = done.uploads.get(&task).map(|sent| &sent.xet_info);
    let is_whole =
        sent.is_some_and(|sent| sent.sha256() == Some(file.sha256()) && sent.file_size() == Some(file.size));
    Ok(is_whole.then_some(done.dedup_metrics))
}

/// Xet's errors in words of this client: its own quote addresses that are signed.
fn storage_error(host: String, error: &XetError) -> Error {
    let reason = match error {
        XetError::UserCancelled(_) | XetError::KeyboardInterrupt | XetError::Cancelled(_) => {
            return Error::Cancelled;
        }
        XetError::RateLimited(_) => {
            return Error::RateLimited { host, retry_after: None, has_token: true };
        }
        XetError::Network(_) => "the connection keeps breaking",
        XetError::ServerError(_) => "it has problems",
        XetError::Timeout(_) => "it does not answer in time",
        XetError::Authentication(_) => "it refuses the access that the Hub gave",
        XetError::NotFound(_) => "it does not find what it was sent",
        XetError::DataIntegrity(_) => "its answer is damaged",
        XetError::Io(_) => "a file here cannot be read, or the cache cannot be written",
        _ => "Xet ended with an error of its own",
    };
    Error::Storage { host, reason: reason.to_owned() }
}

/// Xet's own defaults, not those of variables, within this client's bounds.
fn config(settings: &Settings) -> XetConfig {
    let mut config = XetConfig::default();
    config.telemetry.enabled = false;
    config.client.retry_max_attempts = settings.policy.attempts as usize;
    config.client.retry_base_delay = settings.policy.first_pause;
    config.client.connect_timeout = settings.limits.connect;
    config.client.read_timeout = settings.limits.answer;
    config.client.ac_max_upload_concurrency = BLOCKS_AT_ONCE;
    // Each block that was sent is remembered at once, so that an upload that is cut off continues after it.
    config.data.session_xorb_metadata_flush_max_count = 1;
    config
}
