//! Fills the cache: with whole files, checked against the Hub's digests, continuing where an earlier run stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use progress::Progress;
use text::names;

use crate::cache::Cache;
use crate::client::Client;
use crate::digest::RemoteDigest;
use crate::error::Error;
use crate::file::RemoteFile;
use crate::snapshot::Snapshot;

/// Number of connections that fetch one file together.
const CONNECTIONS: usize = 4;
/// Bytes of one request.
const PART: u64 = 8 << 20;

/// Downloads files of a snapshot into the cache, except for those that are there already, and returns the snapshot's folder. `revision` is what
/// was asked for; later, without a network, it resolves to the same commit.
///
/// # Errors
/// If the Hub refuses or does not answer, a file arrives damaged, or the disk refuses. What has arrived stays, and the
/// next download continues it.
pub fn download(
    client: &Client,
    snapshot: &Snapshot,
    revision: &str,
    files: &[String],
    progress: &dyn Progress,
) -> Result<PathBuf, Error> {
    let cache = Cache::new(&client.settings().cache, &snapshot.id);
    cache.tag()?;
    let mut missing = Vec::new();
    for path in files {
        names::path(path).map_err(|error| {
            Error::protocol(&client.settings().endpoint, &format!("{path}: {}", error.why))
        })?;
        if cache.snapshot_path(&snapshot.commit).join(path).exists() {
            continue;
        }
        let file = snapshot.file(client, path)?;
        let digest = file.known_digest(client)?.clone();
        missing.push((file, digest));
    }
    if !missing.is_empty() {
        let bytes: u64 = missing.iter().map(|(file, _)| file.size).sum();
        let (id, folder) = (&snapshot.id, client.settings().cache.display());
        progress.note(&format!("fetching {id} into {folder}: {:.2} GB", bytes as f64 / 1e9));
    }
    for (file, digest) in missing {
        let blob = cache.blob(digest.as_str());
        let _lock = cache.lock(digest.as_str(), client.settings().cancelled)?;
        if !blob.exists() {
            fetch(client, &file, &digest, &blob, progress)?;
        }
        cache.link(&snapshot.commit, file.path(), digest.as_str())?;
    }
    cache.set_commit_of(revision, &snapshot.commit)?;
    Ok(cache.snapshot_path(&snapshot.commit))
}

/// Compares files of a snapshot with the digests that the Hub states: those in `folder`, or those on the Hub, which are fetched whole and
/// not kept.
///
/// # Errors
/// If one differs or has no digest, cannot be read, or the Hub does not answer.
pub fn verify(
    client: &Client,
    snapshot: &Snapshot,
    files: &[String],
    folder: Option<&Path>,
    progress: &dyn Progress,
) -> Result<(), Error> {
    for path in files {
        let file = snapshot.file(client, path)?;
        let digest = file.known_digest(client)?;
        let mut hasher = digest.hasher(file.size);
        progress.begin(path);
        progress.expect(file.size);
        match folder.map(|folder| folder.join(path)) {
            Some(path) => {
                let mut here = File::open(&path).map_err(Error::io("open", &path))?;
                let read = hasher.update_from(&mut here).map_err(Error::io("read", &path))?;
                progress.advance(read);
            }
            None => parts(client, &file, 0, |bytes| {
                hasher.update(&bytes);
                progress.advance(bytes.len() as u64);
                Ok(())
            })?,
        }
        let actual = hasher.finish();
        if actual != *digest {
            let (expected, actual) = (digest.as_str(), actual.as_str());
            return Err(Error::Other(format!(
                "{path} is not what the Hub says: its digest is {actual}, not {expected}; do not use it, and download it again"
            )));
        }
    }
    Ok(())
}

/// Fetches a blob. A partial one has the blob's name with `.incomplete`, as other clients do it.
fn fetch(
    client: &Client,
    file: &RemoteFile,
    digest: &RemoteDigest,
    blob: &Path,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut name = blob.as_os_str().to_owned();
    name.push(".incomplete");
    let partial = PathBuf::from(name);
    if let Some(parent) = partial.parent() {
        fs::create_dir_all(parent).map_err(Error::io("make", parent))?;
    }
    let mut out = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&partial)
        .map_err(Error::io("write", &partial))?;
    let mut hasher = digest.hasher(file.size);
    let mut here = hasher.update_from(&mut BufReader::new(&out)).map_err(Error::io("read", &partial))?;
    if here > file.size {
        // This is not the beginning of the file.
        out = File::create(&partial).map_err(Error::io("write", &partial))?;
        (hasher, here) = (digest.hasher(file.size), 0);
    }
    progress.begin(file.path());
    progress.expect(file.size);
    progress.resume(here);
    parts(client, file, here, |bytes| {
        out.write_all(&bytes).map_err(Error::io("write", &partial))?;
        hasher.update(&bytes);
        progress.advance(bytes.len() as u64);
        Ok(())
    })?;
    if let Err(error) = file.check(digest, &hasher.finish()) {
        fs::remove_file(&partial).map_err(Error::io("remove", &partial))?;
        return Err(error);
    }
    out.sync_all().map_err(Error::io("sync", &partial))?;
    fs::rename(&partial, blob).map_err(Error::io("write", blob))
}

/// Passes on a file's bytes from `start` on in order, fetched over several connections.
fn parts(
    client: &Client,
    file: &RemoteFile,
    start: u64,
    mut put: impl FnMut(Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let count = usize::try_from((file.size - start).div_ceil(PART)).unwrap_or(usize::MAX);
    let read = |part: usize| {
        let first = start + part as u64 * PART;
        let mut bytes = vec![0; PART.min(file.size - first) as usize];
        file.read_at(client, first, &mut bytes).map(|()| bytes)
    };
    let read = &read;
    std::thread::scope(|scope| {
        let lines: Vec<_> = (0..CONNECTIONS.min(count))
            .map(|line| {
                let (give, take) = mpsc::sync_channel(1);
                // A receiver that stops because of an error drops the other end, which ends the thread.
                scope.spawn(move || {
                    (line..count)
                        .step_by(CONNECTIONS)
                        .try_for_each(|part| give.send(read(part)).map_err(drop))
                });
                take
            })
            .collect();
        for part in 0..count {
            let Ok(bytes) = lines[part % CONNECTIONS].recv() else { return Err(Error::Cancelled) };
            put(bytes?)?;
        }
        Ok(())
    })
}
