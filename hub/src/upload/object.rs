//! A large file on its way to the storage.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use progress::Progress;
use serde::Deserialize;
use serde_json::{Value, json};

use super::PublishTarget;
use super::local::LocalFile;
use crate::answer::{Answer, quoted};
use crate::client::{Client, Failure, host};
use crate::error::Error;
use crate::file::{Missed, retry};
use crate::retry::Attempts;

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
    actions: Option<Actions>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    code: u16,
    message: String,
}

#[derive(Deserialize)]
struct Actions {
    upload: Option<Action>,
    verify: Option<Action>,
}

#[derive(Deserialize)]
struct Action {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

/// A file and its destination.
struct Sending<'a> {
    client: &'a Client,
    target: &'a PublishTarget<'a>,
    file: &'a LocalFile,
    progress: &'a dyn Progress,
    /// Furthest position that was sent: bytes that are sent again count once.
    reached: Cell<u64>,
}

/// Sends a file unless the storage holds it already; returns whether it was sent.
///
/// # Errors
/// If the Hub or the storage refuses or does not answer, or the file cannot be read.
pub(super) fn send(
    client: &Client,
    target: &PublishTarget<'_>,
    file: &LocalFile,
    progress: &dyn Progress,
) -> Result<bool, Error> {
    let sending = Sending { client, target, file, progress, reached: Cell::new(0) };
    let mut attempts = client.attempts();
    let mut parts = Parts::default();
    let mut is_first = true;
    loop {
        let Some(actions) = sending.batch()? else { return Ok(!is_first) };
        let Some(upload) = actions.upload else { return Ok(!is_first) };
        if is_first {
            progress.begin(&file.path);
            is_first = false;
        }
        let sent = match sending.chunk(&upload)? {
            Some(chunk) => sending.in_parts(&upload, chunk, &mut parts, &mut attempts),
            None => sending.at_once(&upload.href),
        };
        match sent {
            Ok(()) => {
                if let Some(verify) = &actions.verify {
                    let body = json!({ "oid": file.sha256(), "size": file.size }).to_string();
                    client.post(&verify.href, &HEADERS, body.as_bytes(), target.about(&file.path))?;
                }
                return Ok(true);
            }
            // Get a new link.
            Err(Missed::Expired(failure) | Missed::Failed(failure)) => retry(&mut attempts, failure)?,
        }
    }
}

/// Parts that were accepted, of one upload: another upload starts over.
#[derive(Default)]
struct Parts {
    upload: String,
    etags: Vec<String>,
}

impl Sending<'_> {
    /// Everything before this position was sent.
    fn reach(&self, position: u64) {
        if let Some(more @ 1..) = position.checked_sub(self.reached.get()) {
            self.progress.advance(more);
            self.reached.set(position);
        }
    }

    fn odd(&self, what: String) -> Error {
        Error::protocol(&self.client.settings().endpoint, &what)
    }

    /// Asks where to send the file; nothing if it is there already.
    fn batch(&self) -> Result<Option<Actions>, Error> {
        let (oid, path) = (self.file.sha256(), &self.file.path);
        let url =
            format!("{}/{}.git/info/lfs/objects/batch", self.client.settings().endpoint, self.target.id);
        let body = json!({
            "operation": "upload",
            "transfers": ["basic", "multipart"],
            "hash_algo": "sha256",
            "ref": { "name": self.target.revision },
            "objects": [{ "oid": oid, "size": self.file.size }],
        });
        let text = self.client.post(&url, &HEADERS, body.to_string().as_bytes(), self.target.about(path))?;
        let batch: Batch = self.client.json(&url, &text)?;
        if let Some(transfer) = &batch.transfer
            && !["basic", "multipart"].contains(&transfer.as_str())
        {
            return Err(self.odd(format!("{path}: the transfer {transfer:?} was not offered")));
        }
        let object = batch.objects.into_iter().find(|object| object.oid == oid);
        let object = object.ok_or_else(|| self.odd(format!("{path}: the batch does not name it")))?;
        match object.error {
            Some(Refusal { code, message }) => {
                let (host, message) = (host(&url), quoted(&message));
                Err(Error::Refused { host, what: path.clone(), status: code, message })
            }
            None => Ok(object.actions),
        }
    }

    /// Bytes of a part, if the file must be sent in parts.
    fn chunk(&self, upload: &Action) -> Result<Option<u64>, Error> {
        let Some(value) = upload.header.get("chunk_size") else { return Ok(None) };
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        match number.filter(|number| *number > 0) {
            Some(number) => Ok(Some(number)),
            None => Err(self.odd(format!("{}: chunk_size is {value}", self.file.path))),
        }
    }

    fn at_once(&self, link: &str) -> Result<(), Missed> {
        self.put(link, 0, self.file.size).map(drop)
    }

    /// Sends the parts that are missing, then completes the upload.
    fn in_parts(
        &self,
        upload: &Action,
        chunk: u64,
        parts: &mut Parts,
        attempts: &mut Attempts,
    ) -> Result<(), Missed> {
        let last = |error: Error| Missed::Failed(Failure::Final(error));
        let links: BTreeMap<u64, &str> = upload
            .header
            .iter()
            .filter_map(|(number, link)| Some((number.parse().ok()?, link.as_str()?)))
            .collect();
        let count = self.file.size.div_ceil(chunk);
        if !links.keys().copied().eq(1..=count) {
            return Err(last(self.odd(format!(
                "{}: {} links for {count} parts",
                self.file.path,
                links.len()
            ))));
        }
        if parts.upload != upload.href {
            *parts = Parts { upload: upload.href.clone(), etags: Vec::new() };
        }
        for (number, link) in links.into_iter().skip(parts.etags.len()) {
            let start = (number - 1) * chunk;
            let length = chunk.min(self.file.size - start);
            let answer = self.put_patiently(link, start, length, attempts)?;
            let etag = answer.header("etag").filter(|etag| !etag.is_empty()).map(str::to_owned);
            let missing = || last(self.odd(format!("{}: no ETag for part {number}", self.file.path)));
            parts.etags.push(etag.ok_or_else(missing)?);
            attempts.progress();
        }
        let numbered = parts.etags.iter().zip(1..);
        let listed: Vec<Value> =
            numbered.map(|(etag, number)| json!({ "partNumber": number, "etag": etag })).collect();
        let body = json!({ "oid": self.file.sha256(), "parts": listed }).to_string();
        let about = self.target.about(&self.file.path);
        self.client.post(&upload.href, &HEADERS, body.as_bytes(), about).map(drop).map_err(last)
    }

    /// Reuses one link for temporary failures; one that expired is handed back.
    fn put_patiently(
        &self,
        link: &str,
        start: u64,
        length: u64,
        attempts: &mut Attempts,
    ) -> Result<Answer, Missed> {
        loop {
            match self.put(link, start, length) {
                Err(Missed::Failed(failure)) => {
                    retry(attempts, failure).map_err(|error| Missed::Failed(Failure::Final(error)))?;
                }
                other => return other,
            }
        }
    }

    /// Sends a part of the file to a link.
    fn put(&self, link: &str, start: u64, length: u64) -> Result<Answer, Missed> {
        let mut part =
            Part::open(self, start, length).map_err(|error| Missed::Failed(Failure::Final(error)))?;
        let answer = self.client.put(link, length, &mut part);
        if let Some(error) = part.trouble {
            return Err(Missed::Failed(Failure::Final(error)));
        }
        let answer = answer.map_err(Missed::Failed)?;
        match answer.status {
            200..=299 => Ok(answer),
            _ => Err(Missed::refused(self.client, link, answer, self.target.about(&self.file.path))),
        }
    }
}

/// A part of a file that is read once, with a count of what was read.
struct Part<'a> {
    sending: &'a Sending<'a>,
    file: File,
    position: u64,
    left: u64,
    /// What is wrong with the file itself, and not with the connection.
    trouble: Option<Error>,
}

impl<'a> Part<'a> {
    fn open(sending: &'a Sending<'a>, start: u64, length: u64) -> Result<Self, Error> {
        let mut file = sending.file.open()?;
        file.seek(SeekFrom::Start(start)).map_err(Error::io("read", &sending.file.source))?;
        Ok(Part { sending, file, position: start, left: length, trouble: None })
    }
}

impl Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if (self.sending.client.settings().cancelled)() {
            self.trouble = Some(Error::Cancelled);
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(out.len());
        let local = self.sending.file;
        match self.file.read(&mut out[..wanted]) {
            Ok(0) if wanted > 0 => {
                self.trouble = Some(local.changed());
                Err(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(count) => {
                (self.left, self.position) = (self.left - count as u64, self.position + count as u64);
                self.sending.reach(self.position);
                Ok(count)
            }
            Err(error) => {
                self.trouble = Some(Error::io("read", &local.source)(error));
                Err(io::ErrorKind::ConnectionAborted.into())
            }
        }
    }
}
