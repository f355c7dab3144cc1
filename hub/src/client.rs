//! One request, one answer: the only place that speaks HTTP.

use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use ureq::http::{self, HeaderMap, HeaderValue, Uri};
use ureq::{Agent, Body, Proxy, SendBody};

use crate::answer::{Answer, quoted};
use crate::error::Error;
use crate::line;
use crate::retry::{Attempts, Passing};
use crate::settings::Settings;

/// Largest answer in JSON.
const MAX_JSON: u64 = 16 << 20;
/// Largest number of redirects within one server that are followed.
const MAX_REDIRECTS: usize = 5;

/// Asks the Hub. Cheap to share between threads: connections are reused.
#[derive(Debug)]
pub struct Client {
    agent: Agent,
    settings: Settings,
    /// Whether the network worked before, so that a failure may be temporary.
    reached: AtomicBool,
}

/// What a request is about, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub(crate) id: &'a str,
    pub(crate) revision: &'a str,
    pub(crate) file: &'a str,
}

/// Why a request got no usable answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// May be temporary.
    Passing(Passing),
    /// Is permanent.
    Final(Error),
}

impl Client {
    /// A client with these settings. The proxy is that of the environment; requests to this machine do not use it.
    pub fn new(settings: Settings) -> Self {
        let limits = settings.limits;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            // The target of a redirect decides who sees the token, and a link can be reused, so redirects are followed here.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(limits.connect))
            .timeout_connect(Some(limits.connect))
            .timeout_recv_response(Some(limits.answer))
            .timeout_per_read(Some(limits.silence))
            .timeout_per_write(Some(limits.silence))
            .max_idle_connections_per_host(32)
            .max_idle_connections(64)
            .input_buffer_size(256 << 10)
            .user_agent(concat!("coreai-bundle/", env!("CARGO_PKG_VERSION")))
            .build();
        let agent = line::agent(config, limits, settings.cancelled);
        Client { agent, settings, reached: AtomicBool::new(false) }
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether the endpoint answers at all.
    ///
    /// # Errors
    /// Why it does not.
    pub fn reach(&self) -> Result<(), Error> {
        let url = &self.settings.endpoint;
        let answer = self.ask("HEAD", url, &[], b"");
        let answer = match answer {
            // This is the proxy's answer.
            Ok(answer) if answer.status == 407 => {
                Err(self.refusal(url, answer, About { id: "", revision: "", file: "" }))
            }
            answer => answer.map(drop),
        };
        answer.map_err(|failure| match failure {
            Failure::Final(error) | Failure::Passing(Passing { error, .. }) => error,
        })
    }

    /// Host and port of the proxy on the way to the endpoint, if there is one.
    pub fn proxy(&self) -> Option<String> {
        self.proxy_to(&self.settings.endpoint)
    }

    /// Counts attempts by the client's policy.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.settings.policy, self.settings.cancelled)
    }

    /// Asks the endpoint for JSON, with retries.
    pub(crate) fn get_json<T: DeserializeOwned>(&self, path: &str, about: About<'_>) -> Result<T, Error> {
        Ok(self.get_page(&format!("{}{path}", self.settings.endpoint), about)?.0)
    }

    /// As [`get_json`](Self::get_json), with a full address; also returns the address of the next page.
    pub(crate) fn get_page<T: DeserializeOwned>(
        &self,
        url: &str,
        about: About<'_>,
    ) -> Result<(T, Option<String>), Error> {
        let (text, next) = self.patiently(|| {
            let mut answer = self.follow("GET", url, about)?;
            let next = answer.next_page().map(str::to_owned);
            Ok((self.text(url, &mut answer)?, next))
        })?;
        Ok((self.json(url, &text)?, next))
    }

    /// Sends the endpoint something that may be sent twice, with retries; returns the answer.
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
        serde_json::from_slice(text).map_err(|error| Error::protocol(url, &format!("{path}: {error}")))
    }

    /// Reads an answer to its end, and removes the token if the answer quotes it.
    pub(crate) fn text(&self, url: &str, answer: &mut Answer) -> Result<Vec<u8>, Failure> {
        match answer.body.with_config().limit(MAX_JSON).read_to_vec() {
            Ok(body) => Ok(self.without_token(body)),
            Err(ureq::Error::BodyExceedsLimit(limit)) => {
                let what = format!("its answer has more than {limit} bytes");
                Err(Failure::Final(Error::protocol(url, &what)))
            }
            Err(error) => Err(self.broken(url, error.into_io())),
        }
    }

    fn without_token(&self, bytes: Vec<u8>) -> Vec<u8> {
        match &self.settings.token {
            Some(token) => token.removed_from(bytes),
            None => bytes,
        }
    }

    /// Removes the token from headers that a server sent.
    fn clean(&self, headers: &mut HeaderMap) {
        let Some(token) = &self.settings.token else { return };
        for value in headers.values_mut().filter(|value| token.is_in(value.as_bytes())) {
            let cleaned = HeaderValue::from_bytes(&token.removed_from(value.as_bytes().to_vec()));
            *value = cleaned.unwrap_or(HeaderValue::from_static(""));
        }
    }

    /// Retries what may be temporary.
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

    /// Asks once, and follows redirects that stay on the server. One that leaves it is an answer with a `Location`.
    pub(crate) fn follow(&self, method: &str, url: &str, about: About<'_>) -> Result<Answer, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let answer = self.ask(method, &url, &[], b"")?;
            let location = answer.header("location").unwrap_or_default().to_owned();
            match answer.status {
                // A path, but not the name of another server.
                301..=308 if location.starts_with('/') && !location.starts_with("//") => {
                    // The facts about a file are in the first answer.
                    if method == "HEAD" && answer.header("x-linked-etag").is_some() {
                        return Ok(answer);
                    }
                    url = format!("{}{location}", origin(&url));
                }
                200..=399 => return Ok(answer),
                _ => return Err(self.refusal(&url, answer, about)),
            }
        }
        Err(Failure::Final(Error::protocol(&url, "it redirects in a loop")))
    }

    /// Sends one request and accepts any status. The token is sent to the endpoint only.
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

    /// As [`ask`](Self::ask): `PUT`s this many bytes as they are read.
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
            Failure::Final(Error::protocol(url, &format!("not an address to ask: {error}")))
        })?;
        match self.run(url, request) {
            Ok(response) => {
                self.reached.store(true, Ordering::Relaxed);
                let (mut parts, body) = response.into_parts();
                self.clean(&mut parts.headers);
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
    fn proxy_to(&self, url: &str) -> Option<String> {
        let proxy: &Proxy = self.agent.config().proxy()?;
        let skipped = url.parse::<Uri>().is_ok_and(|uri| proxy.is_no_proxy(&uri)) || is_this_machine(url);
        (!skipped).then(|| format!("{}:{}", proxy.host(), proxy.port()))
    }

    /// No answer came.
    fn unanswered(&self, url: &str, error: ureq::Error) -> Failure {
        if (self.settings.cancelled)() {
            return Failure::Final(Error::Cancelled);
        }
        let host = host(url);
        let (reason, no_way) = match error {
            ureq::Error::HostNotFound => ("its name is unknown".to_owned(), true),
            ureq::Error::ConnectionFailed => ("nothing answers there".to_owned(), true),
            ureq::Error::ConnectProxyFailed(reason) => (quoted(&reason), true),
            ureq::Error::Io(error) if line::is_too_slow(&error) => return self.broken(url, error),
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
            other => (quoted(&other.to_string()), false),
        };
        let error = match self.proxy_to(url) {
            Some(proxy) if no_way => Error::Proxy { host, proxy, reason },
            _ if no_way => Error::NoNetwork { host, reason },
            _ => Error::Broken { host, reason },
        };
        // At the first request there may be no network at all, and retries would delay that error.
        if no_way && !self.reached.load(Ordering::Relaxed) {
            return Failure::Final(error);
        }
        Failure::Passing(Passing { error, retry_after: None })
    }

    /// The connection broke during the answer.
    pub(crate) fn broken(&self, url: &str, error: io::Error) -> Failure {
        if (self.settings.cancelled)() {
            return Failure::Final(Error::Cancelled);
        }
        let host = host(url);
        let error = if line::is_too_slow(&error) {
            Error::TooSlow { host, bytes: self.settings.limits.slowest }
        } else {
            Error::Broken { host, reason: plain(&error) }
        };
        Failure::Passing(Passing { error, retry_after: None })
    }

    /// Turns a status that is an error into a failure that says what to do.
    pub(crate) fn refusal(&self, url: &str, mut answer: Answer, about: About<'_>) -> Failure {
        let (host, status) = (host(url), answer.status);
        let endpoint = self.settings.public_endpoint();
        let origin = self.settings.token.as_ref().map(|token| token.origin().to_owned());
        let has_token = origin.is_some();
        let id = about.id.to_owned();
        let code = answer.header("x-error-code").unwrap_or_default().to_owned();
        let message = self.words(&mut answer);
        let bad_token = message.contains("Invalid credentials");
        let error = match (status, code.as_str(), origin) {
            (429, ..) => {
                let retry_after = answer.number("retry-after").or_else(|| answer.reset_after());
                let error = Error::RateLimited { host, retry_after, has_token };
                return Failure::Passing(Passing { error, retry_after });
            }
            (408 | 500..=599, ..) => {
                let retry_after = answer.number("retry-after");
                let error = Error::Unavailable { host, status };
                return Failure::Passing(Passing { error, retry_after });
            }
            (407, ..) => {
                let proxy = self.proxy_to(url).unwrap_or_else(|| host.clone());
                Error::Proxy { host, proxy, reason: "it requires a user and a password".to_owned() }
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

    /// The server's message, without anything that could be secret.
    fn words(&self, answer: &mut Answer) -> String {
        let said = answer.header("x-error-message").map(str::to_owned);
        let said = said.or_else(|| {
            let body = answer.body.with_config().limit(64 << 10).read_to_vec().ok()?;
            Some(String::from_utf8_lossy(&self.without_token(body)).into_owned())
        });
        match quoted(&said.unwrap_or_default()) {
            line if line.is_empty() => "no reason given".to_owned(),
            line => line,
        }
    }
}

/// Whether a name could not be looked up, which the standard library reports in its message only.
fn is_lookup(error: &io::Error) -> bool {
    error.to_string().starts_with("failed to lookup address information")
}

/// The system's message without its error number.
fn plain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it ended early".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "it fell silent".to_owned(),
        kind if error.raw_os_error().is_some() => kind.to_string(),
        _ => quoted(&error.to_string()),
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
    // What precedes an @ is a password.
    quoted(authority.rsplit('@').next().unwrap_or(authority))
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
