//! A checkpoint of the Hub that is read without being kept.
//!
//! The revision is resolved once; from then on every request names the commit. Only headers and small files are fetched
//! when the checkpoint is opened; then exactly the tensors that are read, and prefetched if the reader announces what it will read.

mod open;
mod prefetch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use hub::{Client, RemoteFile, Snapshot, download};
use progress::Progress;

use self::prefetch::{Fetch, Prefetch, Stretch};
use super::fingerprint::fingerprint;
use super::{
    Fingerprint, Header, INDEX_FILE, Identity, MAX_INDEX_BYTES, MAX_SIDE_FILE_BYTES, SINGLE_FILE, ShardIndex,
    Source, SourceError, TensorEntry, header_len, is_plain_file_name, merge_shards, mistake, parse_header,
};

pub use open::{HubCheckpoint, open_repository};

/// Number of small reads that are worth doing at the same time.
const READERS: usize = 16;

/// A checkpoint of the Hub at one commit.
#[derive(Debug)]
pub struct HubSource {
    client: Arc<Client>,
    snapshot: Snapshot,
    identity: Identity,
    file_names: Vec<String>,
    tensors: Vec<TensorEntry>,
    /// Number of each file with weights, and the digest of its header.
    shards: BTreeMap<Arc<str>, (usize, [u8; 32])>,
    index_digest: Option<[u8; 32]>,
    /// Small files that were fetched: nothing is fetched twice.
    side_files: Mutex<BTreeMap<String, Vec<u8>>>,
    prefetch: Prefetch<RangeFetch>,
}

/// The prefetcher of the files with weights, by their numbers.
#[derive(Debug)]
struct RangeFetch {
    client: Arc<Client>,
    files: Vec<RemoteFile>,
}

impl Fetch for RangeFetch {
    type Error = hub::Error;

    fn fetch(&self, file: usize, start: u64, out: &mut [u8]) -> Result<(), hub::Error> {
        self.files[file].read_at(&self.client, start, out)
    }

    fn cancelled(&self) -> Option<hub::Error> {
        (self.client.settings().cancelled)().then_some(hub::Error::Cancelled)
    }
}

impl HubSource {
    /// Reads all headers of a snapshot, but no weights.
    ///
    /// # Errors
    /// If there is no checkpoint, a header or index of it is wrong, or the Hub refuses or does not answer.
    pub fn open(client: Arc<Client>, snapshot: Snapshot) -> Result<Self, SourceError> {
        let side_files = Mutex::default();
        let index = match fetch_small(&client, &snapshot, &side_files, INDEX_FILE, MAX_INDEX_BYTES)? {
            Some(json) => Some(ShardIndex::parse(&json)?),
            None if snapshot.holds(SINGLE_FILE) => None,
            None => {
                let place = Path::new(snapshot.id.as_str());
                let unknown = || SourceError::NoWeights { dir: place.to_owned() };
                return Err(mistake::of_names(place, &snapshot.files).map_or_else(unknown, SourceError::from));
            }
        };
        let names: Vec<Arc<str>> = match &index {
            Some(index) => index.shards().into_iter().map(Arc::from).collect(),
            None => vec![Arc::from(SINGLE_FILE)],
        };
        let (mut files, mut headers) = (Vec::with_capacity(names.len()), Vec::with_capacity(names.len()));
        for name in &names {
            if !snapshot.holds(name) {
                return Err(SourceError::ShardAbsent {
                    index: INDEX_FILE.to_owned(),
                    shard: name.to_string(),
                });
            }
            let file = snapshot.file(&client, name)?;
            headers.push(fetch_header(&client, &file, name)?);
            files.push(file);
        }
        let numbers =
            headers.iter().enumerate().map(|(at, header)| (Arc::clone(&header.file), (at, header.digest)));
        Ok(HubSource {
            identity: Identity {
                repository: Some(snapshot.id.to_string()),
                revision: Some(snapshot.commit.clone()),
                verified: Some(false),
            },
            file_names: snapshot.files.iter().filter(|path| is_plain_file_name(path)).cloned().collect(),
            tensors: merge_shards(&headers, index.as_ref())?,
            shards: numbers.collect(),
            index_digest: index.map(|index| index.digest()),
            side_files,
            prefetch: Prefetch::new(RangeFetch { client: Arc::clone(&client), files }),
            client,
            snapshot,
        })
    }

    /// Fetches all files with weights once, without keeping them, and compares them with the digests that the Hub states.
    ///
    /// # Errors
    /// If a file differs, or as those of reading.
    pub fn verify(&mut self, progress: &dyn Progress) -> Result<(), SourceError> {
        let files: Vec<String> = self.shards.keys().map(ToString::to_string).collect();
        download::verify(&self.client, &self.snapshot, &files, None, progress)?;
        self.identity.verified = Some(true);
        Ok(())
    }

    /// Number of the file that holds `tensor`, if the tensor is indeed one of this source.
    fn file_of(&self, tensor: &TensorEntry) -> Result<usize, SourceError> {
        let known = self.tensor(&tensor.name) == Some(tensor);
        let shard = self.shards.get(&tensor.file).filter(|_| known);
        shard.map(|(number, _)| *number).ok_or_else(|| SourceError::ForeignTensor {
            tensor: tensor.name.clone(),
            file: tensor.file.to_string(),
        })
    }
}

/// A small file, whole, from the Hub or from memory.
fn fetch_small(
    client: &Client,
    snapshot: &Snapshot,
    known: &Mutex<BTreeMap<String, Vec<u8>>>,
    name: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, SourceError> {
    if !is_plain_file_name(name) {
        return Err(SourceError::FileName { name: name.to_owned() });
    }
    if !snapshot.holds(name) {
        return Ok(None);
    }
    if let Some(bytes) = known.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
        return Ok(Some(bytes.clone()));
    }
    let file = snapshot.file(client, name)?;
    if file.size > limit {
        return Err(SourceError::TooLarge { file: name.to_owned(), len: file.size, limit });
    }
    let bytes = file.read(client, limit)?;
    known.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), bytes.clone());
    Ok(Some(bytes))
}

fn fetch_header(client: &Client, file: &RemoteFile, name: &Arc<str>) -> Result<Header, SourceError> {
    if file.size < 8 {
        let reason = format!("the file has only {} bytes", file.size);
        return Err(SourceError::Header { file: name.to_string(), reason });
    }
    let mut length_field = [0; 8];
    file.read_at(client, 0, &mut length_field)?;
    let mut json = vec![0; header_len(name, length_field, file.size)?];
    file.read_text_at(client, 8, &mut json)?;
    parse_header(name, &json, file.size)
}

impl Source for HubSource {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn tensors(&self) -> &[TensorEntry] {
        &self.tensors
    }

    fn read_at(&self, tensor: &TensorEntry, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let file = self.file_of(tensor)?;
        let position = tensor.position(offset, out.len())?;
        Ok(self.prefetch.read(file, position, out)?)
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        fetch_small(&self.client, &self.snapshot, &self.side_files, name, MAX_SIDE_FILE_BYTES)
    }

    fn file_names(&self) -> &[String] {
        &self.file_names
    }

    fn will_read_in_order(&self, tensors: &[&TensorEntry]) {
        let stretch = |tensor: &&TensorEntry| {
            let file = self.file_of(tensor).ok()?;
            Some(Stretch { file, range: tensor.range.clone() })
        };
        self.prefetch.expect(tensors.iter().filter_map(stretch));
    }

    fn readers(&self) -> usize {
        READERS
    }

    /// A commit does not change.
    fn verify_unchanged(&self) -> Result<(), SourceError> {
        Ok(())
    }

    fn fingerprint(&self) -> Result<Fingerprint, SourceError> {
        let config = self.read_file("config.json")?;
        let shards = self.shards.iter().map(|(name, (_, digest))| (&**name, digest));
        Ok(fingerprint(config.as_deref(), self.index_digest.as_ref(), shards))
    }
}
