//! One request, one answer: the only place that speaks HTTP.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{ClientBuilder, Method, Url, redirect};
use serde::de::DeserializeOwned;

use crate::answer::{Answer, quoted};
use crate::error::Error;
use crate::limits::Limits;
use crate::pace::{Pace, TooSlow};
use crate::retry::{Attempts, Passing};
use crate::settings::Settings;
use crate::wait::{Ended, Waiter};

/// Largest answer in JSON.
const MAX_JSON: u64 = 16 << 20;
/// Longest message of a server that is read.
const MAX_MESSAGE: u64 = 64 << 10;
/// Largest number of redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// How this client names itself.
pub(crate) const AGENT: &str = concat!("coreai-bundle/", env!("CARGO_PKG_VERSION"));

/// What a server said instead of what was asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    /// The Hub's word for it, if it is one.
    pub(crate) code: String,
    /// The server's message, without the token.
    pub(crate) message: String,
    /// Seconds to wait before the next attempt.
    pub(crate) retry_after: Option<u64>,
}

/// Asks the Hub. Cheap to share between threads: connections are reused.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    /// The same without a proxy, for this machine.
    direct: reqwest::Client,
    /// Which proxy `http` uses, for messages.
    proxies: Matcher,
    pub(crate) waiter: Waiter,
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
    /// A client with these settings. The proxy is that of the system; requests to this machine do not use it.
    ///
    /// # Errors
    /// If the system gives no threads, or no certificates to check servers with.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let build = |builder: ClientBuilder| {
            // The target of a redirect decides who sees the token, and a link can be reused, so redirects are followed here.
            let built = builder.redirect(redirect::Policy::none()).build();
            built.map_err(|error| Error::NoClient { reason: quoted(&root(&error)) })
        };
        let waiter = Waiter::new(settings.cancelled)
            .map_err(|error| Error::NoClient { reason: quoted(&error.to_string()) })?;
        let proxies = Matcher::from_system();
        let has_proxy = ["http://example.com", "https://example.com"]
            .iter()
            .any(|url| url.parse().is_ok_and(|uri| proxies.intercept(&uri).is_some()));
        let direct = build(builder(&settings).no_proxy())?;
        // Each client reads the certificates of the system, which takes a while.
        let http = if has_proxy { build(builder(&settings))? } else { direct.clone() };
        Ok(Client { http, direct, proxies, waiter, settings, reached: AtomicBool::new(false) })
    }

    /// What the clients for this address have in common.
    pub(crate) fn builder(&self, url: &str) -> ClientBuilder {
        let builder = builder(&self.settings);
        if is_this_machine(url) { builder.no_proxy() } else { builder }
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
            let answer = self.follow("GET", url, about)?;
            let next = answer.next_page().map(str::to_owned);
            Ok((self.text(url, answer)?, next))
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
            let answer = self.ask("POST", url, headers, body)?;
            match answer.status {
                200..=299 => self.text(url, answer),
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
    pub(crate) fn text(&self, url: &str, answer: Answer) -> Result<Vec<u8>, Failure> {
        let body = self.body(url, answer, MAX_JSON)?;
        if body.len() as u64 > MAX_JSON {
            let what = format!("its answer has more than {MAX_JSON} bytes");
            return Err(Failure::Final(Error::protocol(url, &what)));
        }
        Ok(self.without_token(body))
    }

    /// Reads an answer up to its end, or a little further than `limit`.
    fn body(&self, url: &str, answer: Answer, limit: u64) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        self.transfer(url, answer, |part| {
            body.extend(part);
            if body.len() as u64 > limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(body)
    }

    /// Passes on a body as it arrives, until it ends or `take` has enough. One that falls silent or trickles is cut.
    pub(crate) fn transfer(
        &self,
        url: &str,
        answer: Answer,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Failure> {
        let limits = self.settings.limits;
        let (mut body, mut pace) = (answer.body, Pace::new(limits));
        let work = async {
            loop {
                let begun = Instant::now();
                let part = tokio::time::timeout(limits.silence, body.chunk()).await;
                let part = part.map_err(|_| self.broken(url, "it fell silent".to_owned()))?;
                let Some(part) = part.map_err(|error| self.broken(url, reason(&error)))? else {
                    return Ok(());
                };
                pace.moved(part.len(), begun.elapsed()).map_err(|TooSlow| self.too_slow(url))?;
                if take(&part).is_break() {
                    return Ok(());
                }
            }
        };
        self.waiter.run(None, work).map_err(|_| Failure::Final(Error::Cancelled))?
    }

    /// Bytes that a server sent, without the token.
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

    /// Asks once, and follows redirects that stay on the server; with `HEAD` also others, until one states the facts about a
    /// file. Any other redirect is an answer with a `Location`.
    pub(crate) fn follow(&self, method: &str, url: &str, about: About<'_>) -> Result<Answer, Failure> {
        let mut url = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let answer = self.ask(method, &url, &[], b"")?;
            let next = match answer.status {
                301..=308 if method == "HEAD" && states_facts(&answer) => None,
                301..=308 => target(&url, &answer),
                200..=399 => None,
                _ => return Err(self.refusal(&url, answer, about)),
            };
            match next {
                Some(next) if method == "HEAD" || origin(&next) == origin(&url) => url = next,
                _ => return Ok(answer),
            }
        }
        Err(Failure::Final(Error::protocol(&url, "it redirects in a loop")))
    }

    /// Asks for a range of bytes, and follows redirects to any server; returns the address that answered.
    pub(crate) fn fetch(&self, url: &str, range: &str) -> Result<(String, Answer), Failure> {
        let mut url = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let answer = self.ask("GET", &url, &[("Range", range)], b"")?;
            match target(&url, &answer).filter(|_| (301..=308).contains(&answer.status)) {
                Some(next) => url = next,
                None => return Ok((url, answer)),
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
        let odd =
            |what: &str| Failure::Final(Error::protocol(url, &format!("not an address to ask: {what}")));
        let parsed = Url::parse(url).map_err(|error| odd(&error.to_string()))?;
        let method = Method::from_bytes(method.as_bytes()).map_err(|error| odd(&error.to_string()))?;
        let has_body = !body.is_empty() || !matches!(method, Method::GET | Method::HEAD);
        let http = if is_this_machine(url) { &self.direct } else { &self.http };
        let mut request = http.request(method, parsed).headers(self.headers(url, headers));
        if has_body {
            request = request.body(body.to_vec());
        }
        let Limits { connect, answer, slowest, .. } = self.settings.limits;
        // What is sent takes its time, too.
        let sending = Duration::from_secs(body.len() as u64 / slowest.max(1));
        let limit = connect.saturating_add(answer).saturating_add(sending);
        match self.waiter.run(Some(limit), request.send()) {
            Ok(Ok(mut response)) => {
                self.reached.store(true, Ordering::Relaxed);
                let mut headers = std::mem::take(response.headers_mut());
                self.clean(&mut headers);
                Ok(Answer { status: response.status().as_u16(), headers, body: response })
            }
            Ok(Err(error)) => Err(self.unanswered(url, &error)),
            Err(Ended::Cancelled) => Err(Failure::Final(Error::Cancelled)),
            Err(Ended::TimedOut) => Err(self.broken(url, "it does not answer in time".to_owned())),
        }
    }

    /// These headers, and the token if the address is one of the endpoint.
    fn headers(&self, url: &str, headers: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                map.insert(name, value);
            }
        }
        if origin(url) == origin(&self.settings.endpoint) {
            map.extend(self.token_header());
        }
        map
    }

    /// The header that carries the token, for the endpoint only.
    pub(crate) fn token_header(&self) -> Option<(HeaderName, HeaderValue)> {
        let mut value = HeaderValue::from_str(&self.settings.token.as_ref()?.header()).ok()?;
        value.set_sensitive(true);
        Some((AUTHORIZATION, value))
    }

    /// The proxy that requests for this address go through, without its password.
    fn proxy_to(&self, url: &str) -> Option<String> {
        let uri = url.parse().ok().filter(|_| !is_this_machine(url))?;
        self.proxies.intercept(&uri).map(|proxy| host(&proxy.uri().to_string()))
    }

    /// No answer came.
    pub(crate) fn unanswered(&self, url: &str, error: &reqwest::Error) -> Failure {
        if error.is_builder() {
            let what = format!("not an address to ask: {}", root(error));
            return Failure::Final(Error::protocol(url, &what));
        }
        let no_way = error.is_connect();
        let reason = match no_way && error.is_timeout() {
            true => "nothing answers there".to_owned(),
            false => reason(error),
        };
        let host = host(url);
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
    pub(crate) fn broken(&self, url: &str, reason: String) -> Failure {
        Failure::Passing(Passing { error: Error::Broken { host: host(url), reason }, retry_after: None })
    }

    fn too_slow(&self, url: &str) -> Failure {
        let error = Error::TooSlow { host: host(url), bytes: self.settings.limits.slowest };
        Failure::Passing(Passing { error, retry_after: None })
    }

    /// Turns a status that is an error into a failure that says what to do.
    pub(crate) fn refusal(&self, url: &str, answer: Answer, about: About<'_>) -> Failure {
        let status = answer.status;
        let code = answer.header("x-error-code").unwrap_or_default().to_owned();
        let retry_after = answer.number("retry-after").or_else(|| answer.reset_after());
        let message = self.words(url, answer);
        self.refused(url, Refusal { status, code, message, retry_after }, about)
    }

    /// Says what to do about a refusal.
    pub(crate) fn refused(&self, url: &str, refusal: Refusal, about: About<'_>) -> Failure {
        let Refusal { status, code, message, retry_after } = refusal;
        let host = host(url);
        let endpoint = self.settings.public_endpoint();
        let origin = self.settings.token.as_ref().map(|token| token.origin().to_owned());
        let has_token = origin.is_some();
        let id = about.id.to_owned();
        let message = Some(quoted(&message)).filter(|line| !line.is_empty());
        let message = message.unwrap_or_else(|| "no reason given".to_owned());
        let bad_token = message.contains("Invalid credentials");
        let error = match (status, code.as_str(), origin) {
            (429, ..) => {
                let error = Error::RateLimited { host, retry_after, has_token };
                return Failure::Passing(Passing { error, retry_after });
            }
            (408 | 500..=599, ..) => {
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

    /// The server's message, without the token.
    fn words(&self, url: &str, answer: Answer) -> String {
        let said = answer.header("x-error-message").map(str::to_owned);
        let body = || self.body(url, answer, MAX_MESSAGE).ok();
        said.or_else(|| Some(self.without_token_text(&String::from_utf8_lossy(&body()?)))).unwrap_or_default()
    }

    /// A text that a server sent, without the token.
    pub(crate) fn without_token_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.without_token(text.as_bytes().to_vec())).into_owned()
    }
}

/// What all clients of HTTP have in common.
fn builder(settings: &Settings) -> ClientBuilder {
    reqwest::Client::builder()
        .connect_timeout(settings.limits.connect)
        .pool_max_idle_per_host(32)
        // Ranges come over several connections.
        .http1_only()
        .user_agent(AGENT)
}

/// Whether a redirect says what it leads to, which the other server may not know.
fn states_facts(answer: &Answer) -> bool {
    answer.header("x-linked-etag").or_else(|| answer.header("x-linked-size")).is_some()
}

/// Where a redirect leads.
fn target(url: &str, answer: &Answer) -> Option<String> {
    let location = answer.header("location").filter(|location| !location.is_empty())?;
    Some(Url::parse(url).ok()?.join(location).ok()?.into())
}

/// What is at the bottom of an error, without an address.
fn root(error: &reqwest::Error) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(next) = last.source() {
        last = next;
    }
    if error.source().is_none() { "it cannot be asked".to_owned() } else { last.to_string() }
}

/// Why a transfer failed, in the system's words without its error number.
fn reason(error: &reqwest::Error) -> String {
    let mut next = error.source();
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            match error.kind() {
                io::ErrorKind::UnexpectedEof => return "it ended early".to_owned(),
                kind if error.raw_os_error().is_some() => return kind.to_string(),
                _ => {}
            }
        }
        next = cause.source();
    }
    if error.is_timeout() { "it does not answer in time".to_owned() } else { quoted(&root(error)) }
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
    let Ok(url) = Url::parse(url) else { return false };
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
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
