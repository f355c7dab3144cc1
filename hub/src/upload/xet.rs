//! Large files on their way to the storage, through Xet's own client.

use std::time::Duration;

use progress::Progress;
use serde::Deserialize;
use xet::error::XetError;
use xet::xet_session::{
    DeduplicationMetrics, Sha256Policy, XetConfig, XetSession, XetSessionBuilder, XetUploadCommit,
};

use super::batch::no_xet;
use super::local::LocalFile;
use super::{PublishTarget, Published};
use crate::client::{Client, host};
use crate::error::Error;
use crate::settings::Settings;

/// How often progress is reported.
const STEP: Duration = Duration::from_millis(100);
/// Blocks of up to 64 MB that are sent at the same time, and kept in memory for that.
const BLOCKS_AT_ONCE: usize = 8;

/// Access to the storage, for a while.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    access_token: String,
    /// Seconds since 1970.
    exp: u64,
    cas_url: String,
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
