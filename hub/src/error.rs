//! What can go wrong with the Hub, and what to do about it.

use std::io;
use std::path::{Path, PathBuf};

use crate::answer::quoted;
use crate::client::host;

/// Why the Hub did not return what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such repository, as far as is visible with the token, or without one.
    #[error("{0}")]
    NotFound(String),
    /// The server, or the proxy on the way to it, cannot be reached or does not let us through.
    #[error("cannot reach {host}{}", no_way(.host, .proxy.as_deref(), .reason))]
    NoNetwork {
        /// Server.
        host: String,
        /// Host and port of the proxy, if there is one.
        proxy: Option<String>,
        /// What went wrong.
        reason: String,
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
    /// A file here is not the one that was announced.
    #[error("{} changed while it was uploaded: leave it alone, check it, and run again", .path.display())]
    LocalChanged {
        /// The file.
        path: PathBuf,
    },
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
    /// Anything else: what is wrong, and what to do about it.
    #[error("{0}")]
    Other(String),
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

    pub(crate) fn no_client(reason: &str) -> Self {
        Error::Other(format!("cannot start a client of the Hub: {}", quoted(reason)))
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Error::Io { action, path: path.to_owned(), source }
    }
}

fn no_way(host: &str, proxy: Option<&str>, reason: &str) -> String {
    match proxy {
        Some(proxy) => format!(
            " through the proxy {proxy}: {reason}; check HTTPS_PROXY, HTTP_PROXY and ALL_PROXY, or list {host} in NO_PROXY"
        ),
        None => format!(
            ": {reason}; check the network, or HF_ENDPOINT if you set it; a folder, or a repository that is in the cache, \
             needs no network"
        ),
    }
}

fn after(seconds: Option<u64>) -> String {
    seconds.map(|seconds| format!(" and asks for a pause of {seconds} s")).unwrap_or_default()
}

fn login(has_token: bool) -> &'static str {
    if has_token { "" } else { "; with a token (HF_TOKEN, or `hf auth login`) the limit is higher" }
}
