//! A file of a repository, and its bytes by range.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use reqwest::Method;

use crate::answer::Answer;
use crate::client::{About, Client, origin};
use crate::digest::RemoteDigest;
use crate::error::Error;
use crate::retry::Failure;
use crate::snapshot::{RepositoryId, escape};

/// A server that ignores ranges sends everything: up to this many bytes are then skipped.
const MAX_SKIPPED: u64 = 16 << 20;
/// Largest plausible size.
const MAX_SIZE: u64 = 1 << 42;

/// A file of a repository at a commit: what the Hub says about it, and the link to its bytes.
#[derive(Debug)]
pub struct RemoteFile {
    id: RepositoryId,
    commit: String,
    path: String,
    /// Number of bytes.
    pub size: u64,
    /// Digest of the bytes, if the Hub states one.
    pub digest: Option<RemoteDigest>,
    /// Where the bytes are, as of now: links to other servers expire.
    link: Mutex<Option<String>>,
}

impl RemoteFile {
    /// Asks for the facts about a file.
    ///
    /// # Errors
    /// If there is none, it may not be read, or the Hub does not answer.
    pub fn look_up(client: &Client, id: &RepositoryId, commit: &str, path: &str) -> Result<Self, Error> {
        let mut file = RemoteFile {
            id: id.clone(),
            commit: commit.to_owned(),
            path: path.to_owned(),
            size: 0,
            digest: None,
            link: Mutex::new(None),
        };
        let answer = client.patiently(|| file.head(client))?;
        let size = answer.number("x-linked-size").or_else(|| {
            // The length of a redirect is that of the redirect.
            if answer.status == 200 { answer.number("content-length") } else { None }
        });
        let url = file.url(client);
        let odd = |what: &str| Error::protocol(&url, &format!("{path}: {what}"));
        file.size = size.ok_or_else(|| odd("no size"))?;
        if file.size > MAX_SIZE {
            return Err(odd(&format!("it has {} bytes, more than any file of a Hub", file.size)));
        }
        file.digest =
            answer.etag("x-linked-etag").or_else(|| answer.etag("etag")).and_then(RemoteDigest::from_etag);
        *file.lock() = file.link_of(client, &answer);
        Ok(file)
    }

    /// Path within the repository.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The digest, which this file must have.
    pub(crate) fn known_digest(&self, client: &Client) -> Result<&RemoteDigest, Error> {
        let what = || format!("{}: no digest to check it with", self.path);
        self.digest.as_ref().ok_or_else(|| Error::protocol(&client.settings().endpoint, &what()))
    }

    /// The whole file.
    ///
    /// # Errors
    /// If it is larger than `limit`, cannot be fetched, or does not match its digest.
    pub fn read(&self, client: &Client, limit: u64) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(self.size).ok().filter(|_| self.size <= limit);
        let Some(length) = length else {
            let what = format!("{} has {} bytes, more than {limit}", self.path, self.size);
            return Err(Error::protocol(&self.url(client), &what));
        };
        let mut bytes = vec![0; length];
        self.read_text_at(client, 0, &mut bytes)?;
        if let Some(expected) = &self.digest {
            let mut hasher = expected.hasher(self.size);
            hasher.update(&bytes);
            self.check(expected, &hasher.finish())?;
        }
        Ok(bytes)
    }

    /// Compares a digest of what arrived with the Hub's.
    pub(crate) fn check(&self, expected: &RemoteDigest, actual: &RemoteDigest) -> Result<(), Error> {
        if actual == expected {
            return Ok(());
        }
        let (file, expected, actual) = (&self.path, expected.as_str(), actual.as_str());
        Err(Error::Other(format!(
            "{file} arrived damaged: its digest is {actual}, but the Hub says {expected}; it was removed, run again"
        )))
    }

    /// As [`read_at`](Self::read_at), for bytes that may be shown: refuses those that contain the token.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at).
    pub fn read_text_at(&self, client: &Client, start: u64, out: &mut [u8]) -> Result<(), Error> {
        self.read_at(client, start, out)?;
        if client.settings().token.as_ref().is_some_and(|token| token.is_in(out)) {
            let what = format!("{} contains the token of the request", self.path);
            return Err(Error::protocol(&self.url(client), &what));
        }
        Ok(())
    }

    /// Fills `out` with the bytes from `start` on. Interrupted transfers are continued; links that expired are renewed.
    ///
    /// # Errors
    /// If several attempts in a row deliver nothing, or the Hub refuses.
    pub fn read_at(&self, client: &Client, start: u64, out: &mut [u8]) -> Result<(), Error> {
        let mut filled = 0;
        let mut attempts = client.attempts();
        while filled < out.len() {
            let before = filled;
            let Err(failure) = self.read_part(client, start, out, &mut filled) else { continue };
            // A trickle does not count as progress: it would never end.
            if filled > before && !matches!(failure.error, Error::TooSlow { .. }) {
                attempts.progress();
            }
            attempts.failed(failure)?;
        }
        Ok(())
    }

    /// One request for what is missing; counts what arrived, even if it is interrupted.
    fn read_part(
        &self,
        client: &Client,
        start: u64,
        out: &mut [u8],
        filled: &mut usize,
    ) -> Result<(), Failure> {
        let link = self.current_link(client)?;
        let first = start + *filled as u64;
        let last = start + out.len() as u64 - 1;
        let range = format!("bytes={first}-{last}");
        let (link, answer) = client.fetch(&link, &range)?;
        let mut skip = match answer.status {
            206 if answer.content_range().is_some_and(|found| self.is_range_from(first, found)) => 0,
            200 if first <= MAX_SKIPPED => first,
            200 | 206 => {
                let what = format!("{}: it does not send the range that was asked for", self.path);
                return Err(Error::protocol(&link, &what).into());
            }
            status => {
                let mut failure = client.refusal(&link, answer, self.about());
                // Whatever the content network objects to in a link, the Hub may return a better one.
                if matches!(status, 300..=407 | 409..=428)
                    && origin(&link) != origin(&client.settings().endpoint)
                {
                    *self.lock() = None;
                    failure.passes = true;
                }
                return Err(failure);
            }
        };
        client.transfer(&link, answer, |mut part| {
            let skipped = skip.min(part.len() as u64);
            skip -= skipped;
            part = &part[skipped as usize..];
            let count = part.len().min(out.len() - *filled);
            out[*filled..*filled + count].copy_from_slice(&part[..count]);
            *filled += count;
            if *filled < out.len() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if *filled < out.len() { Err(client.broken(&link, "it ended early".to_owned())) } else { Ok(()) }
    }

    /// Whether a `Content-Range` begins at this byte, of a file of this size.
    fn is_range_from(&self, first: u64, (start, length): (u64, Option<u64>)) -> bool {
        start == first && length.is_none_or(|length| length == self.size)
    }

    /// Where the bytes are.
    fn current_link(&self, client: &Client) -> Result<String, Failure> {
        if let Some(link) = &*self.lock() {
            return Ok(link.clone());
        }
        let answer = self.head(client)?;
        let link = self.link_of(client, &answer).unwrap_or_else(|| self.url(client));
        *self.lock() = Some(link.clone());
        Ok(link)
    }

    /// Asks for the headers.
    fn head(&self, client: &Client) -> Result<Answer, Failure> {
        client.follow(Method::HEAD, &self.url(client), self.about())
    }

    /// The link in a redirect; relative ones stay with the Hub.
    fn link_of(&self, client: &Client, answer: &Answer) -> Option<String> {
        let location = answer.header("location")?;
        match location.starts_with('/') && !location.starts_with("//") {
            true => Some(format!("{}{location}", origin(&client.settings().endpoint))),
            false => Some(location.to_owned()),
        }
    }

    fn url(&self, client: &Client) -> String {
        let (endpoint, path) = (&client.settings().endpoint, escape(&self.path));
        format!("{endpoint}/{}/resolve/{}/{path}", self.id, self.commit)
    }

    fn about(&self) -> About<'_> {
        About { id: self.id.as_str(), revision: &self.commit, file: &self.path }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
