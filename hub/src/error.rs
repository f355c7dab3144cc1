//! What can go wrong with the Hub, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::answer::quoted;
use crate::client::host;

/// Why the Hub did not return what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Gated, and there is no token.
    #[error(
        "{id} is gated, and there is no token: accept its terms at {endpoint}/{id}, make a token at \
         {endpoint}/settings/tokens, then set HF_TOKEN or run `hf auth login`"
    )]
    GatedNoToken {
        /// The repository.
        id: String,
        /// The Hub.
        endpoint: String,
    },
    /// Gated, and the token's owner was not accepted.
    #[error(
        "{id} is gated, and the owner of the token from {origin} has no access yet: open {endpoint}/{id}, accept the terms \
         with that account, wait until access is granted, then run again"
    )]
    NotAccepted {
        /// The repository.
        id: String,
        /// The Hub.
        endpoint: String,
        /// Where the token came from.
        origin: String,
    },
    /// The token is not valid.
    #[error(
        "{endpoint} does not accept the token from {origin}: it is mistyped, expired or revoked; make a new one at \
         {endpoint}/settings/tokens, or remove it if the repository is public"
    )]
    BadToken {
        /// The Hub.
        endpoint: String,
        /// Where the token came from.
        origin: String,
    },
    /// No such repository, as far as is visible without a token.
    #[error(
        "{endpoint} knows no public repository {id}: check the spelling; if it is private, set HF_TOKEN or run `hf auth login`"
    )]
    NotFoundNoToken {
        /// The repository.
        id: String,
        /// The Hub.
        endpoint: String,
    },
    /// No such repository, or a private one of somebody else.
    #[error(
        "{endpoint} has no repository {id} that the owner of the token from {origin} may see: check the spelling, or use \
         another account's token"
    )]
    NotFound {
        /// The repository.
        id: String,
        /// The Hub.
        endpoint: String,
        /// Where the token came from.
        origin: String,
    },
    /// No such branch, tag or commit.
    #[error(
        "{id} has no revision {revision:?}: give a branch, a tag or a whole commit of {endpoint}/{id}/commits/main"
    )]
    NoRevision {
        /// The repository.
        id: String,
        /// What was asked for.
        revision: String,
        /// The Hub.
        endpoint: String,
    },
    /// No such file.
    #[error("{id} holds no file {file} at this revision")]
    NoFile {
        /// The repository.
        id: String,
        /// The file.
        file: String,
    },
    /// The server cannot be reached.
    #[error(
        "cannot reach {host}: {reason}; check the network, or HF_ENDPOINT if you set it; a folder, or a repository that is \
         in the cache, needs no network"
    )]
    NoNetwork {
        /// Server.
        host: String,
        /// What the system said.
        reason: String,
    },
    /// The proxy cannot be reached or does not let us through.
    #[error(
        "cannot reach {host} through the proxy {proxy}: {reason}; check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or list {host} \
         in NO_PROXY"
    )]
    Proxy {
        /// Server.
        host: String,
        /// Host and port of the proxy.
        proxy: String,
        /// What went wrong.
        reason: String,
    },
    /// The network must not be used, and the cache does not have it.
    #[error(
        "HF_HUB_OFFLINE is set, and {} does not hold all of {id} at {revision:?}: unset it, or download the repository \
         once with --download while online", .cache.display()
    )]
    Offline {
        /// The repository.
        id: String,
        /// The revision.
        revision: String,
        /// The cache.
        cache: PathBuf,
    },
    /// Too many requests.
    #[error("{host} limits the rate of requests{}: wait some minutes and run again{}", after(*.retry_after), login(*.has_token))]
    RateLimited {
        /// Server.
        host: String,
        /// Seconds that the server asked for.
        retry_after: Option<u64>,
        /// Whether a token was sent; those without have a lower limit.
        has_token: bool,
    },
    /// The server reports an error of its own.
    #[error("{host} keeps answering with status {status}: it has problems; run again later")]
    Unavailable {
        /// Server.
        host: String,
        /// Status code.
        status: u16,
    },
    /// The connection kept breaking.
    #[error("the connection to {host} keeps breaking ({reason}): check the network and run again")]
    Broken {
        /// Server.
        host: String,
        /// What happened last.
        reason: String,
    },
    /// Transfers kept delivering hardly anything.
    #[error("{host} sends less than {bytes} bytes a second: check the network and run again")]
    TooSlow {
        /// Server.
        host: String,
        /// Bytes a second below which a transfer is cut.
        bytes: u64,
    },
    /// A refusal of another kind.
    #[error("{host} refuses {what} with status {status}: {message}")]
    Refused {
        /// Server.
        host: String,
        /// What was asked for.
        what: String,
        /// Status code.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// The answer is not one of a Hub.
    #[error("{host} does not answer as a Hub does ({what}): check HF_ENDPOINT, or the proxy in between")]
    Protocol {
        /// Server.
        host: String,
        /// What is wrong with it.
        what: String,
    },
    /// The bytes are not those that the Hub has.
    #[error(
        "{file} arrived damaged: its digest is {actual}, but the Hub says {expected}; it was removed, run again"
    )]
    Digest {
        /// The file.
        file: String,
        /// Digest that the Hub states.
        expected: String,
        /// Digest of what arrived.
        actual: String,
    },
    /// The system refused.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// The operation.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a name of a repository, or one that leads out of the cache.
    #[error("{id:?} is not a repository: give owner/name, as in google/gemma-4-E2B-it")]
    BadName {
        /// What was given.
        id: String,
    },
    /// Writing needs a token.
    #[error(
        "there is no token, and publishing needs one: make one with write access at {endpoint}/settings/tokens, then set HF_TOKEN \
         or run `hf auth login`"
    )]
    TokenNeeded {
        /// The Hub.
        endpoint: String,
    },
    /// Writing needs a token, and the one that is there must not be used.
    #[error(
        "HF_HUB_DISABLE_IMPLICIT_TOKEN is set, so no token is used, and publishing needs one: unset it and run again"
    )]
    TokenDisabled,
    /// The token may read, but not write here.
    #[error(
        "{endpoint} does not let the token from {origin} write to {id} ({message}): use a token of its owner with write access, or \
         ask for the change with --pr"
    )]
    MayNotWrite {
        /// The repository.
        id: String,
        /// The Hub.
        endpoint: String,
        /// Where the token came from.
        origin: String,
        /// What the server said.
        message: String,
    },
    /// Somebody else committed in the meantime.
    #[error(
        "{id} changed while files were uploaded: somebody else committed to {revision}; run again, what is uploaded is kept"
    )]
    Moved {
        /// The repository.
        id: String,
        /// The branch.
        revision: String,
    },
    /// A request that must not be sent twice got no answer.
    #[error(
        "the connection broke while the pull request was opened, so it may or may not exist: look at {endpoint}/{id}/discussions \
         before you run again"
    )]
    Unsure {
        /// The repository.
        id: String,
        /// The Hub.
        endpoint: String,
    },
    /// What was published is not what was sent.
    #[error(
        "{file} is not on the Hub as it is here: the Hub says {actual} for it, not {expected}; publish again, and if that \
         does not help, report it to the Hub"
    )]
    Published {
        /// The file.
        file: String,
        /// Digest of what is here.
        expected: String,
        /// Digest that the Hub gives.
        actual: String,
    },
    /// A file here is not the one that was announced.
    #[error("{} changed while it was uploaded: leave it alone, check it, and run again", .path.display())]
    LocalChanged {
        /// The file.
        path: PathBuf,
    },
    /// What was read is not what the Hub has.
    #[error(
        "{file} is not what the Hub says: its digest is {actual}, not {expected}; do not use it, and download it again"
    )]
    Unverified {
        /// The file.
        file: String,
        /// Digest that the Hub states.
        expected: String,
        /// Digest of what is here, or arrived.
        actual: String,
    },
    /// The digests are those that the Hub states.
    #[error("HF_HUB_OFFLINE is set, and --verify asks the Hub for digests: unset it, or leave out --verify")]
    VerifyOffline,
    /// Large files need a storage that the endpoint does not have.
    #[error(
        "{endpoint} offers no Xet storage, which {file} needs ({bytes} bytes are too many for a commit): publish to a Hub that \
         has it; nothing was sent"
    )]
    NoXet {
        /// The Hub.
        endpoint: String,
        /// The first file that needs it.
        file: String,
        /// Its size.
        bytes: u64,
    },
    /// The storage did not take an upload.
    #[error(
        "the storage at {host} did not take the upload ({reason}): run again, what it has is not sent twice"
    )]
    Storage {
        /// Server.
        host: String,
        /// What happened.
        reason: String,
    },
    /// The client could not start.
    #[error("cannot start a client of the Hub: {reason}")]
    NoClient {
        /// What the system said.
        reason: String,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Cancelled,
}

impl Error {
    /// Whether this is about the connection to the Hub, not about what is there.
    pub fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Error::NoNetwork { .. }
                | Error::Proxy { .. }
                | Error::Unavailable { .. }
                | Error::Broken { .. }
                | Error::TooSlow { .. }
                | Error::Storage { .. }
        )
    }

    /// Whether the same command may succeed later.
    pub fn may_pass(&self) -> bool {
        self.is_unreachable() || matches!(self, Error::RateLimited { .. } | Error::Cancelled)
    }

    /// An answer to this address that a Hub would not give. Quotations of it are cut to a line.
    pub(crate) fn protocol(url: &str, what: &str) -> Self {
        Error::Protocol { host: host(url), what: quoted(what) }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }
}

fn after(seconds: Option<u64>) -> String {
    seconds.map(|seconds| format!(" and asks for a pause of {seconds} s")).unwrap_or_default()
}

fn login(has_token: bool) -> &'static str {
    if has_token { "" } else { "; with a token (HF_TOKEN, or `hf auth login`) the limit is higher" }
}
