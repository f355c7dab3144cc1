//! A checkpoint in a folder: one `model.safetensors`, or shards with an index.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use text::names;

use super::fingerprint::fingerprint;
use super::stamp::Stamp;
use super::{
    Fingerprint, Header, INDEX_FILE, Identity, MAX_INDEX_BYTES, Mistake, SINGLE_FILE, ShardIndex, Source,
    SourceError, TensorEntry, advice, header_len, is_plain_file_name, merge_shards, mistake, parse_header,
};

/// Largest side file that is read, in bytes. The tokenizer, the largest real one, has some 30 MB.
pub const MAX_SIDE_FILE_BYTES: u64 = 256 << 20;

/// Bytes of a tensor that are asked for before it is read.
const READ_AHEAD: u64 = 64 << 20;

/// A checkpoint in a folder.
#[derive(Debug)]
pub struct LocalSource {
    dir: PathBuf,
    identity: Identity,
    file_names: Vec<String>,
    tensors: Vec<TensorEntry>,
    shards: BTreeMap<Arc<str>, Shard>,
    index_digest: Option<[u8; 32]>,
    /// Side files that were read, as they were then.
    read_files: Mutex<BTreeMap<String, Stamp>>,
}

#[derive(Debug)]
struct Shard {
    file: File,
    stamp: Stamp,
    header_digest: [u8; 32],
}

impl LocalSource {
    /// Opens the folder and reads all headers, but no weights. The files stay open.
    ///
    /// A folder of the Hub's cache (`models--owner--name/snapshots/<commit>`) tells which checkpoint it is. Of a repository in that
    /// cache, the snapshot is opened that its `refs/main` names.
    ///
    /// # Errors
    /// If there is no checkpoint, or a file, header or index of it is wrong; [`SourceError::Mistake`] if it is recognized as
    /// something else.
    pub fn open(given: &Path) -> Result<Self, SourceError> {
        if given.is_file() {
            return Err(mistake::of_file(given).into());
        }
        let snapshot = mistake::snapshot(given)?;
        let dir = snapshot.as_deref().unwrap_or(given);
        let mut source = Self {
            dir: dir.to_owned(),
            identity: identity_of(dir),
            file_names: list_files(dir)?,
            tensors: Vec::new(),
            shards: BTreeMap::new(),
            index_digest: None,
            read_files: Mutex::default(),
        };
        let index = source.open_index()?;
        let names: Vec<Arc<str>> = match &index {
            Some(index) => index.shards().into_iter().map(Arc::from).collect(),
            None => vec![Arc::from(SINGLE_FILE)],
        };
        let mut headers = Vec::with_capacity(names.len());
        for name in names {
            headers.push(source.open_shard(name, index.is_some())?);
        }
        source.tensors = merge_shards(&headers, index.as_ref())?;
        source.index_digest = index.map(|index| index.digest());
        Ok(source)
    }

    /// Records that the weights were compared with the digests that the Hub states.
    #[cfg(feature = "hub")]
    pub(super) fn set_verified(&mut self) {
        self.identity.verified = Some(true);
    }

    fn open_index(&self) -> Result<Option<ShardIndex>, SourceError> {
        let single = self.file_names.iter().any(|name| name == SINGLE_FILE);
        let Some(json) = self.read_limited(INDEX_FILE, MAX_INDEX_BYTES)? else {
            return if single { Ok(None) } else { Err(self.no_weights()) };
        };
        let index = ShardIndex::parse(&json)?;
        if let Some(mistake) = mistake::of_shards(&self.dir, &self.file_names, &index) {
            return Err(mistake.into());
        }
        if single && !index.shards().contains(SINGLE_FILE) {
            return Err(SourceError::Ambiguous { dir: self.dir.clone() });
        }
        Ok(Some(index))
    }

    /// There are no weights by the names of a checkpoint: what is there instead.
    fn no_weights(&self) -> SourceError {
        let unknown = || SourceError::NoWeights { dir: self.dir.clone() };
        mistake::of_folder(&self.dir, &self.file_names).map_or_else(unknown, SourceError::from)
    }

    fn open_shard(&mut self, name: Arc<str>, indexed: bool) -> Result<Header, SourceError> {
        let path = self.dir.join(&*name);
        let Some(opened) = Opened::at(&path)? else {
            return Err(if indexed {
                SourceError::ShardAbsent { index: INDEX_FILE.to_owned(), shard: name.to_string() }
            } else {
                self.no_weights()
            });
        };
        let Opened { file, stamp, len } = opened;
        let read = |out: &mut [u8], position| {
            file.read_exact_at(out, position).map_err(|source| read_error(&path, source))
        };
        let mut head = [0; 64];
        if len < 8 {
            return Err(SourceError::Header {
                file: name.to_string(),
                reason: format!("the file has only {len} bytes"),
            });
        }
        let head = &mut head[..usize::try_from(len).unwrap_or(64).min(64)];
        read(head, 0)?;
        if mistake::is_pointer(head) {
            return Err(Mistake::Pointer { file: name.to_string() }.into());
        }
        let mut length_field = [0; 8];
        length_field.copy_from_slice(&head[..8]);
        let mut json = vec![0; header_len(&name, length_field, len)?];
        read(&mut json, 8)?;
        let header = parse_header(&name, &json, len)?;
        advice::sequential(&file);
        self.shards.insert(name, Shard { file, stamp, header_digest: header.digest });
        Ok(header)
    }

    fn read_limited(&self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        if !is_plain_file_name(name) {
            return Err(SourceError::FileName { name: name.to_owned() });
        }
        let path = self.dir.join(name);
        let Some(Opened { file, stamp, len }) = Opened::at(&path)? else { return Ok(None) };
        if len > limit {
            return Err(SourceError::TooLarge { file: name.to_owned(), len, limit });
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|source| read_error(&path, source))?;
        let mut read_files = self.read_files.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = *read_files.entry(name.to_owned()).or_insert(stamp);
        if bytes.len() as u64 != len || earlier != stamp {
            return Err(SourceError::Changed { path });
        }
        if mistake::is_pointer(&bytes) {
            return Err(Mistake::Pointer { file: name.to_owned() }.into());
        }
        Ok(Some(bytes))
    }

    /// The shard that holds `tensor`, if the tensor is indeed one of this source.
    fn shard(&self, tensor: &TensorEntry) -> Result<&Shard, SourceError> {
        let known = self.tensor(&tensor.name) == Some(tensor);
        self.shards.get(&tensor.file).filter(|_| known).ok_or_else(|| SourceError::ForeignTensor {
            tensor: tensor.name.clone(),
            file: tensor.file.to_string(),
        })
    }

    fn verify(&self, name: &str, stamp: Stamp) -> Result<(), SourceError> {
        let path = self.dir.join(name);
        match fs::metadata(&path) {
            Ok(metadata) if Stamp::of(&metadata) == stamp => Ok(()),
            Ok(_) => Err(SourceError::Changed { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SourceError::Changed { path }),
            Err(source) => Err(SourceError::Io { action: "look at", path, source }),
        }
    }
}

impl Source for LocalSource {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn tensors(&self) -> &[TensorEntry] {
        &self.tensors
    }

    fn read_at(&self, tensor: &TensorEntry, offset: u64, out: &mut [u8]) -> Result<(), SourceError> {
        let shard = self.shard(tensor)?;
        let position = tensor.position(offset, out.len())?;
        shard
            .file
            .read_exact_at(out, position)
            .map_err(|source| read_error(&self.dir.join(&*tensor.file), source))
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        self.read_limited(name, MAX_SIDE_FILE_BYTES)
    }

    fn file_names(&self) -> &[String] {
        &self.file_names
    }

    fn will_read(&self, tensor: &TensorEntry) {
        if let Ok(shard) = self.shard(tensor) {
            // Shortly before it is read anyway; further ahead, the pages would displace others, and themselves.
            let end = tensor.range.end.min(tensor.range.start.saturating_add(READ_AHEAD));
            advice::will_need(&shard.file, &(tensor.range.start..end));
        }
    }

    fn done_reading(&self, tensor: &TensorEntry, bytes: Range<u64>) {
        if let Ok(shard) = self.shard(tensor) {
            let at = |offset: u64| tensor.range.start.saturating_add(offset).min(tensor.range.end);
            advice::dont_need(&shard.file, &(at(bytes.start)..at(bytes.end)));
        }
    }

    fn verify_unchanged(&self) -> Result<(), SourceError> {
        // A file that was replaced keeps its old bytes for us, but the output no longer matches what is there now.
        for (name, shard) in &self.shards {
            self.verify(name, shard.stamp)?;
        }
        let read_files = self.read_files.lock().unwrap_or_else(PoisonError::into_inner);
        read_files.iter().try_for_each(|(name, stamp)| self.verify(name, *stamp))
    }

    fn fingerprint(&self) -> Result<Fingerprint, SourceError> {
        let config = self.read_file("config.json")?;
        let shards = self.shards.iter().map(|(name, shard)| (&**name, &shard.header_digest));
        Ok(fingerprint(config.as_deref(), self.index_digest.as_ref(), shards))
    }
}

/// A regular file, open, as it was when it was opened.
struct Opened {
    file: File,
    stamp: Stamp,
    len: u64,
}

impl Opened {
    /// Opens the file; `None` if there is none.
    fn at(path: &Path) -> Result<Option<Self>, SourceError> {
        let failed = |action| move |source| SourceError::Io { action, path: path.to_owned(), source };
        // Looked at before it is opened, since opening a pipe would wait for its writer.
        match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => {
                return Err(SourceError::NotAFile { path: path.to_owned() });
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("look at")(source)),
        }
        let file = File::open(path).map_err(failed("open"))?;
        let metadata = file.metadata().map_err(failed("look at"))?;
        Ok(Some(Self { stamp: Stamp::of(&metadata), len: metadata.len(), file }))
    }
}

/// A file that ends before its known length was truncated by somebody else.
fn read_error(path: &Path, source: io::Error) -> SourceError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::UnexpectedEof => SourceError::Changed { path },
        _ => SourceError::Io { action: "read", path, source },
    }
}

/// Names of the regular files in the folder, sorted. Links count as their targets: the Hub's cache consists of links.
fn list_files(dir: &Path) -> Result<Vec<String>, SourceError> {
    let failed = |source| SourceError::Io { action: "list", path: dir.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let is_file = fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file());
        if let (true, Ok(name)) = (is_file, entry.file_name().into_string()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Repository and commit from the layout of the Hub's cache; nothing for any other folder.
fn identity_of(dir: &Path) -> Identity {
    let Ok(dir) = fs::canonicalize(dir) else { return Identity::default() };
    let names: Vec<&str> = dir.iter().rev().take(3).filter_map(|name| name.to_str()).collect();
    let [revision, "snapshots", folder] = names[..] else { return Identity::default() };
    let repository = folder
        .strip_prefix("models--")
        .and_then(|id| id.split_once("--"))
        .map(|(owner, name)| format!("{owner}/{name}"));
    let is_named = repository.is_some() && names::is_commit(revision);
    let revision = is_named.then(|| revision.to_owned());
    Identity { repository, revision, verified: None }
}
