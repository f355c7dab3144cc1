//! One request, one answer: the only place that speaks HTTP.

use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::de::DeserializeOwned;
use ureq::http::{self, HeaderMap, Uri};
use ureq::{Agent, Body, Proxy, SendBody};

use crate::error::Error;
use crate::retry::{Attempts, Passing};
use crate::settings::Settings;

/// Until a connection stands.
const CONNECT: Duration = Duration::from_secs(15);
/// Until an answer begins.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two parts of an answer.
const SILENCE: Duration = Duration::from_secs(30);
/// Largest answer in JSON.
const MAX_JSON: u64 = 64 << 20;
/// What a server's own words are cut to.
const MAX_WORDS: usize = 300;
/// Redirects within one server, to be followed.
const MAX_REDIRECTS: usize = 5;

/// Asks the Hub. Cheap to share between threads: connections are kept and used again.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    settings: Settings,
    /// Whether the network worked before, so that a failure may pass.
    reached: AtomicBool,
}

/// A status that is not an error, headers, and a body to be read.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    headers: HeaderMap,
    /// What follows the headers.
    pub body: Body,
}

impl Answer {
    /// Value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// An `ETag` header without its quotes.
    pub(crate) fn etag(&self, name: &str) -> Option<&str> {
        Some(self.header(name)?.trim_start_matches("W/").trim_matches('"'))
    }

    /// A number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.header(name)?.trim().parse().ok()
    }
}

/// What a request is about, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) id: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) file: &'a str,
}

/// Why a request got no answer to use.
#[derive(Debug)]
pub(crate) enum Failure {
    /// May pass.
    Passing(Passing),
    /// Will not.
    Final(Error),
}

impl Client {
    /// A client with these settings. The proxy is that of the environment; this machine itself is asked without one.
    pub fn new(settings: Settings) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Where a redirect leads decides who sees the token, and a link can be used again: both are ours to decide.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(SILENCE))
            .timeout_per_write(Some(SILENCE))
            .max_idle_connections_per_host(32)
            .max_idle_connections(64)
            .input_buffer_size(256 << 10)
            .user_agent(concat!("coreai-bundle/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Client { agent, settings, reached: AtomicBool::new(false) }
    }

    /// What it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Counts attempts by the client's policy.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.settings.policy, self.settings.cancelled)
    }

    /// Asks the endpoint for JSON, with patience.
    pub(crate) fn get_json<T: DeserializeOwned>(&self, path: &str, about: About<'_>) -> Result<T, Error> {
        Ok(self.get_page(&format!("{}{path}", self.settings.endpoint), about)?.0)
    }

    /// As [`get_json`](Self::get_json), of a whole address; gives the address of the next page too.
    pub(crate) fn get_page<T: DeserializeOwned>(
        &self,
        url: &str,
        about: About<'_>,
    ) -> Result<(T, Option<String>), Error> {
        let (text, next) = self.patiently(|| {
            let mut answer = self.follow("GET", url, about)?;
            let next = answer.header("link").and_then(next_page).map(str::to_owned);
            Ok((self.text(url, &mut answer)?, next))
        })?;
        Ok((self.json(url, &text)?, next))
    }

    /// Sends the endpoint something that may be sent twice, with patience; gives what it answers.
    pub(crate) fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        about: About<'_>,
    ) -> Result<Vec<u8>, Error> {
        self.patiently(|| {
            let mut answer = self.ask("POST", url, headers, body)?;
            match answer.status {
                200..=299 => self.text(url, &mut answer),
                _ => Err(self.refusal(url, answer, about)),
            }
        })
    }

    /// Reads JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self, url: &str, text: &[u8]) -> Result<T, Error> {
        let path = &url[origin(url).len()..];
        serde_json::from_slice(text)
            .map_err(|error| Error::Protocol { host: host(url), what: format!("{path}: {error}") })
    }

    /// Reads an answer to its end.
    pub(crate) fn text(&self, url: &str, answer: &mut Answer) -> Result<Vec<u8>, Failure> {
        let body = answer.body.with_config().limit(MAX_JSON).read_to_vec();
        body.map_err(|error| self.broken(url, error.into_io()))
    }

    /// Repeats what may pass.
    pub(crate) fn patiently<T>(&self, mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Error> {
        let mut attempts = self.attempts();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(passing)) => attempts.failed(passing)?,
            }
        }
    }

    /// Asks once, going along with redirects that stay on the server. One that leaves it is an answer with a `Location`.
    pub(crate) fn follow(&self, method: &str, url: &str, about: About<'_>) -> Result<Answer, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let answer = self.ask(method, &url, &[], b"")?;
            let location = answer.header("location").unwrap_or_default().to_owned();
            match answer.status {
                // A path, but not the name of another server.
                301..=308 if location.starts_with('/') && !location.starts_with("//") => {
                    // What is said about a file stands with the first answer.
                    if method == "HEAD" && answer.header("x-linked-etag").is_some() {
                        return Ok(answer);
                    }
                    url = format!("{}{location}", origin(&url));
                }
                200..=399 => return Ok(answer),
                _ => return Err(self.refusal(&url, answer, about)),
            }
        }
        Err(Failure::Final(Error::Protocol { host: host(&url), what: "it redirects in a circle".to_owned() }))
    }

    /// Sends one request and takes whatever status comes back. The token goes to the endpoint alone.
    pub(crate) fn ask(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Failure> {
        let request = self.request(method, url, headers);
        if body.is_empty() && matches!(method, "GET" | "HEAD") {
            self.send(url, request.body(()))
        } else {
            self.send(url, request.body(body))
        }
    }

    /// As [`ask`](Self::ask): `PUT`s so many bytes as they are read.
    pub(crate) fn put(&self, url: &str, length: u64, body: &mut dyn Read) -> Result<Answer, Failure> {
        let request = self.request("PUT", url, &[("Content-Length", &length.to_string())]);
        self.send(url, request.body(SendBody::from_reader(body)))
    }

    fn request(&self, method: &str, url: &str, headers: &[(&str, &str)]) -> http::request::Builder {
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        match &self.settings.token {
            Some(token) if origin(url) == origin(&self.settings.endpoint) => {
                request.header("Authorization", token.header())
            }
            _ => request,
        }
    }

    fn send<B: ureq::AsSendBody>(
        &self,
        url: &str,
        request: http::Result<http::Request<B>>,
    ) -> Result<Answer, Failure> {
        let request = request.map_err(|error| {
            let what = format!("not an address to ask: {error}");
            Failure::Final(Error::Protocol { host: host(url), what })
        })?;
        match self.run(url, request) {
            Ok(response) => {
                self.reached.store(true, Ordering::Relaxed);
                let (parts, body) = response.into_parts();
                Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
            }
            Err(error) => Err(self.unanswered(url, error)),
        }
    }

    fn run<B: ureq::AsSendBody>(
        &self,
        url: &str,
        request: http::Request<B>,
    ) -> Result<http::Response<Body>, ureq::Error> {
        if is_this_machine(url) {
            return self.agent.run(self.agent.configure_request(request).proxy(None).build());
        }
        self.agent.run(request)
    }

    /// The proxy that requests for this address go through, without its password.
    fn proxy(&self, url: &str) -> Option<String> {
        let proxy: &Proxy = self.agent.config().proxy()?;
        let skipped = url.parse::<Uri>().is_ok_and(|uri| proxy.is_no_proxy(&uri)) || is_this_machine(url);
        (!skipped).then(|| format!("{}:{}", proxy.host(), proxy.port()))
    }

    /// No answer came.
    fn unanswered(&self, url: &str, error: ureq::Error) -> Failure {
        let host = host(url);
        let (reason, no_way) = match error {
            ureq::Error::HostNotFound => ("its name is unknown".to_owned(), true),
            ureq::Error::ConnectionFailed => ("nothing answers there".to_owned(), true),
            ureq::Error::ConnectProxyFailed(reason) => (reason, true),
            ureq::Error::Io(error) => {
                let no_way = matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::HostUnreachable
                        | io::ErrorKind::NetworkUnreachable
                        | io::ErrorKind::AddrNotAvailable
                ) || is_lookup(&error);
                (plain(&error), no_way)
            }
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
                ("nothing answers there".to_owned(), true)
            }
            ureq::Error::Timeout(_) => ("it does not answer in time".to_owned(), false),
            other => (other.to_string(), false),
        };
        let error = match self.proxy(url) {
            Some(proxy) if no_way => Error::Proxy { host, proxy, reason },
            _ if no_way => Error::NoNetwork { host, reason },
            _ => Error::Broken { host, reason },
        };
        // At the first request nothing says that there is a network at all, and nobody wants to wait to be told.
        if no_way && !self.reached.load(Ordering::Relaxed) {
            return Failure::Final(error);
        }
        Failure::Passing(Passing { error, retry_after: None })
    }

    /// The answer broke off.
    pub(crate) fn broken(&self, url: &str, error: io::Error) -> Failure {
        let error = Error::Broken { host: host(url), reason: plain(&error) };
        Failure::Passing(Passing { error, retry_after: None })
    }

    /// Turns a status that is an error into a failure that says what to do.
    pub(crate) fn refusal(&self, url: &str, mut answer: Answer, about: About<'_>) -> Failure {
        let (host, status) = (host(url), answer.status);
        let endpoint = self.settings.endpoint.clone();
        let origin = self.settings.token.as_ref().map(|token| token.origin().to_owned());
        let has_token = origin.is_some();
        let id = about.id.to_owned();
        let code = answer.header("x-error-code").unwrap_or_default().to_owned();
        let message = self.words(&mut answer);
        let bad_token = message.contains("Invalid credentials");
        let error = match (status, code.as_str(), origin) {
            (429, ..) => {
                let retry_after = answer.number("retry-after").or_else(|| reset_after(&answer));
                let error = Error::RateLimited { host, retry_after, has_token };
                return Failure::Passing(Passing { error, retry_after });
            }
            (408 | 500..=599, ..) => {
                let retry_after = answer.number("retry-after");
                let error = Error::Unavailable { host, status };
                return Failure::Passing(Passing { error, retry_after });
            }
            (407, ..) => {
                let proxy = self.proxy(url).unwrap_or_else(|| host.clone());
                Error::Proxy { host, proxy, reason: "it wants a user and a password".to_owned() }
            }
            (_, "GatedRepo", None) => Error::GatedNoToken { id, endpoint },
            (_, "GatedRepo", Some(origin)) => Error::NotAccepted { id, endpoint, origin },
            (_, "RevisionNotFound", _) => {
                Error::NoRevision { id, revision: about.revision.to_owned(), endpoint }
            }
            (_, "EntryNotFound", _) => Error::NoFile { id, file: about.file.to_owned() },
            (401, _, Some(origin)) if bad_token => Error::BadToken { endpoint, origin },
            (401, _, None) => Error::NotFoundNoToken { id, endpoint },
            (401 | 404, _, Some(origin)) if code == "RepoNotFound" || status == 401 => {
                Error::NotFound { id, endpoint, origin }
            }
            (404, "RepoNotFound", None) => Error::NotFoundNoToken { id, endpoint },
            _ => {
                let what = if about.file.is_empty() { id } else { format!("{} of {id}", about.file) };
                Error::Refused { host, what, status, message }
            }
        };
        Failure::Final(error)
    }

    /// What the server said, without anything that could be secret.
    fn words(&self, answer: &mut Answer) -> String {
        let said = answer.header("x-error-message").map(str::to_owned);
        let text = said.or_else(|| answer.body.with_config().limit(64 << 10).read_to_string().ok());
        let line = text.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        let line = match &self.settings.token {
            Some(token) => token.removed_from(&line),
            None => line,
        };
        match line.char_indices().nth(MAX_WORDS) {
            Some((end, _)) => format!("{}...", &line[..end]),
            None if line.is_empty() => "no reason given".to_owned(),
            None => line,
        }
    }
}

/// Seconds until the limit of requests is reset, as the `RateLimit` header gives them: `"api";r=0;t=55`.
fn reset_after(answer: &Answer) -> Option<u64> {
    let part = answer.header("ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t="))?;
    part.parse().ok()
}

/// The address in a `Link` header that leads on: `<..>; rel="next"`.
fn next_page(links: &str) -> Option<&str> {
    let link = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    Some(link.split_once('<')?.1.split_once('>')?.0)
}

/// Whether a name could not be looked up, which the standard library says in words only.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address information")
}

/// The system's words without its error number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ended early".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "it fell silent".to_owned(),
        kind if error.raw_os_error().is_some() => kind.to_string(),
        _ => error.to_string(),
    }
}

/// Scheme, host and port.
pub(crate) fn origin(url: &str) -> &str {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    &url[..end]
}

/// Host and, unless it is the usual one, port, for messages.
pub(crate) fn host(url: &str) -> String {
    let origin = origin(url);
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    // What stands in front of an @ is a password.
    authority.rsplit('@').next().unwrap_or(authority).to_owned()
}

fn is_this_machine(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{host, is_this_machine, origin};

    #[test]
    fn origins_and_hosts() {
        assert_eq!(origin("https://huggingface.co/a/b?c"), "https://huggingface.co");
        assert_eq!(origin("http://127.0.0.1:80"), "http://127.0.0.1:80");
        assert_eq!(host("https://user:secret@mirror:8443/a"), "mirror:8443");
        assert!(is_this_machine("http://[::1]:8080/") && is_this_machine("http://127.0.0.1:9"));
        assert!(!is_this_machine("https://huggingface.co/"));
    }
}
