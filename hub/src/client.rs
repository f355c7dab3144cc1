//! One request, one answer: the only place that speaks HTTP.

use std::error::Error as _;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::header::{AUTHORIZATION, HeaderName, HeaderValue};
use reqwest::{ClientBuilder, Method, Url, redirect};
use serde::de::DeserializeOwned;

use crate::answer::{Answer, quoted};
use crate::error::Error;
use crate::limits::Limits;
use crate::pace::Pace;
use crate::retry::{Attempts, Failure};
use crate::settings::Settings;
use crate::snapshot::{RepositoryId, escape};
use crate::token::Token;
use crate::wait::Waiter;

/// Largest answer in JSON.
const MAX_JSON: u64 = 16 << 20;
/// Longest message of a server that is read.
const MAX_MESSAGE: u64 = 64 << 10;
/// Largest number of redirects that are followed.
const MAX_REDIRECTS: usize = 5;

/// How this client names itself.
const AGENT: &str = concat!("coreai-bundle/", env!("CARGO_PKG_VERSION"));

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

impl Client {
    /// A client with these settings. The proxy is that of the system; requests to this machine do not use it.
    ///
    /// # Errors
    /// If the system gives no threads, or no certificates to check servers with.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let build = |builder: ClientBuilder| builder.build().map_err(|error| Error::no_client(&root(&error)));
        let waiter = Waiter::new(settings.cancelled).map_err(|error| Error::no_client(&error.to_string()))?;
        let proxies = Matcher::from_system();
        let has_proxy = ["http://example.com", "https://example.com"]
            .iter()
            .any(|url| url.parse().is_ok_and(|uri| proxies.intercept(&uri).is_some()));
        let direct = build(builder(&settings).no_proxy())?;
        // Each client reads the certificates of the system, which takes a while.
        let http = if has_proxy { build(builder(&settings))? } else { direct.clone() };
        Ok(Client { http, direct, proxies, waiter, settings, reached: AtomicBool::new(false) })
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
        let answer = self.ask(Method::HEAD, url, &[], b"").map_err(|failure| failure.error)?;
        match answer.status {
            // This is the proxy's answer.
            407 => Err(self.refusal(url, answer, About { id: "", revision: "", file: "" }).error),
            _ => Ok(()),
        }
    }

    /// Host and port of the proxy on the way to the endpoint, if there is one.
    pub fn proxy(&self) -> Option<String> {
        self.proxy_to(&self.settings.endpoint)
    }

    /// Counts attempts by the client's policy.
    pub(crate) fn attempts(&self) -> Attempts {
        Attempts::new(self.settings.policy, self.settings.cancelled)
    }

    /// Address of a part of the API that is about a branch, tag or commit.
    pub(crate) fn api(&self, id: &RepositoryId, part: &str, revision: &str) -> String {
        let revision = escape(revision).replace('/', "%2F");
        format!("{}/api/models/{id}/{part}/{revision}", self.settings.endpoint)
    }

    /// Asks for JSON, with retries; also returns the address of the next page.
    pub(crate) fn get_page<T: DeserializeOwned>(
        &self,
        url: &str,
        about: About<'_>,
    ) -> Result<(T, Option<String>), Error> {
        let (text, next) = self.patiently(|| {
            let answer = self.follow(Method::GET, url, about)?;
            let next = answer.next_page().map(str::to_owned);
            Ok((self.text(url, answer)?, next))
        })?;
        Ok((self.json(url, &text)?, next))
    }

    /// Sends the endpoint something once; returns the answer.
    pub(crate) fn post(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        about: About<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let answer = self.ask(Method::POST, url, headers, body)?;
        match answer.status {
            200..=299 => self.text(url, answer),
            _ => Err(self.refusal(url, answer, about)),
        }
    }

    /// Reads JSON.
    pub(crate) fn json<T: DeserializeOwned>(&self, url: &str, text: &[u8]) -> Result<T, Error> {
        let path = &url[origin(url).len()..];
        serde_json::from_slice(text).map_err(|error| Error::protocol(url, &format!("{path}: {error}")))
    }

    /// Reads an answer to its end, and removes the token if the answer quotes it.
    fn text(&self, url: &str, answer: Answer) -> Result<Vec<u8>, Failure> {
        let body = self.body(url, answer, MAX_JSON)?;
        if body.len() as u64 > MAX_JSON {
            let what = format!("its answer has more than {MAX_JSON} bytes");
            return Err(Error::protocol(url, &what).into());
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
                if !pace.moved(part.len(), begun.elapsed()) {
                    let bytes = limits.slowest;
                    return Err(Failure::passing(Error::TooSlow { host: host(url), bytes }));
                }
                if take(&part).is_break() {
                    return Ok(());
                }
            }
        };
        self.waiter.run(work)?
    }

    /// Bytes that a server sent, without the token.
    fn without_token(&self, bytes: Vec<u8>) -> Vec<u8> {
        match &self.settings.token {
            Some(token) if token.is_in(&bytes) => token.removed_from(&bytes),
            _ => bytes,
        }
    }

    /// Retries what may be temporary.
    pub(crate) fn patiently<T>(&self, mut ask: impl FnMut() -> Result<T, Failure>) -> Result<T, Error> {
        let mut attempts = self.attempts();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(failure) => attempts.failed(failure)?,
            }
        }
    }

    /// Asks once, and follows redirects that stay on the server; with `HEAD` also others, until one states the facts about a
    /// file. Any other redirect is an answer with a `Location`.
    pub(crate) fn follow(&self, method: Method, url: &str, about: About<'_>) -> Result<Answer, Failure> {
        let is_head = method == Method::HEAD;
        let (url, answer) = self.redirected(method, url, &[], |answer, from, to| match is_head {
            true => !states_facts(answer),
            false => origin(to) == origin(from),
        })?;
        match answer.status {
            200..=399 => Ok(answer),
            _ => Err(self.refusal(&url, answer, about)),
        }
    }

    /// Asks for a range of bytes, and follows redirects to any server; returns the address that answered.
    pub(crate) fn fetch(&self, url: &str, range: &str) -> Result<(String, Answer), Failure> {
        self.redirected(Method::GET, url, &[("Range", range)], |_, _, _| true)
    }

    /// Asks, and follows the redirects that `follows(answer, from, to)` accepts; returns the address that answered.
    fn redirected(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        follows: impl Fn(&Answer, &str, &str) -> bool,
    ) -> Result<(String, Answer), Failure> {
        let mut url = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let answer = self.ask(method.clone(), &url, headers, b"")?;
            match target(&url, &answer).filter(|next| follows(&answer, &url, next)) {
                Some(next) => url = next,
                None => return Ok((url, answer)),
            }
        }
        Err(Error::protocol(&url, "it redirects in a loop").into())
    }

    /// Sends one request and accepts any status. The token is sent to the endpoint only.
    fn ask(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Failure> {
        let parsed = Url::parse(url)
            .map_err(|error| Error::protocol(url, &format!("not an address to ask: {error}")))?;
        let http = if is_this_machine(url) { &self.direct } else { &self.http };
        let mut request = http.request(method, parsed);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if origin(url) == origin(&self.settings.endpoint) {
            // This replaces what a password in the address became.
            request = request.headers(self.token_header().into_iter().collect());
        }
        if !body.is_empty() {
            request = request.body(body.to_vec());
        }
        let Limits { connect, answer, slowest, .. } = self.settings.limits;
        // What is sent takes its time, too.
        let sending = Duration::from_secs(body.len() as u64 / slowest.max(1));
        let limit = connect.saturating_add(answer).saturating_add(sending);
        let sent = self.waiter.run(async { tokio::time::timeout(limit, request.send()).await })?;
        let sent = sent.map_err(|_| self.broken(url, "it does not answer in time".to_owned()))?;
        let mut response = sent.map_err(|error| self.unanswered(url, &error))?;
        self.reached.store(true, Ordering::Relaxed);
        let mut headers = std::mem::take(response.headers_mut());
        for value in headers.values_mut() {
            let cleaned = self.without_token(value.as_bytes().to_vec());
            *value = HeaderValue::from_bytes(&cleaned).unwrap_or(HeaderValue::from_static(""));
        }
        Ok(Answer { status: response.status().as_u16(), headers, body: response })
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
    fn unanswered(&self, url: &str, error: &reqwest::Error) -> Failure {
        if error.is_builder() {
            let what = format!("not an address to ask: {}", root(error));
            return Error::protocol(url, &what).into();
        }
        let no_way = error.is_connect();
        let reason = match no_way && error.is_timeout() {
            true => "nothing answers there".to_owned(),
            false => reason(error),
        };
        if !no_way {
            return self.broken(url, reason);
        }
        let error = Error::NoNetwork { host: host(url), proxy: self.proxy_to(url), reason };
        // At the first request there may be no network at all, and retries would delay that error.
        match self.reached.load(Ordering::Relaxed) {
            true => Failure::passing(error),
            false => error.into(),
        }
    }

    /// The connection broke during the answer.
    pub(crate) fn broken(&self, url: &str, reason: String) -> Failure {
        Failure::passing(Error::Broken { host: host(url), reason })
    }

    /// Turns a status that is an error into a failure that says what to do.
    pub(crate) fn refusal(&self, url: &str, answer: Answer, about: About<'_>) -> Failure {
        let status = answer.status;
        let code = answer.header("x-error-code").unwrap_or_default().to_owned();
        let retry_after = answer.number("retry-after").or_else(|| answer.reset_after());
        let message = self.words(url, answer);
        let has_token = self.settings.token.is_some();
        let host = host(url);
        let error = match status {
            429 => Error::RateLimited { host, retry_after, has_token },
            408 | 500..=599 => Error::Unavailable { host, status },
            407 => {
                let proxy = self.proxy_to(url).or_else(|| Some(host.clone()));
                let reason = "it requires a user and a password".to_owned();
                return Error::NoNetwork { host, proxy, reason }.into();
            }
            _ => return self.denial(host, status, &code, message, about).into(),
        };
        Failure { error, passes: true, retry_after }
    }

    /// What to do about a refusal that another attempt would not change.
    fn denial(&self, host: String, status: u16, code: &str, message: String, about: About<'_>) -> Error {
        let About { id, revision, file } = about;
        let endpoint = self.settings.public_endpoint();
        let bad_token = status == 401 && message.contains("Invalid credentials");
        let not_found = status == 401 || (status == 404 && code == "RepoNotFound");
        match (code, self.settings.token.as_ref().map(Token::origin)) {
            ("GatedRepo", None) => Error::Other(format!(
                "{id} is gated, and there is no token: accept its terms at {endpoint}/{id}, make a token at \
                 {endpoint}/settings/tokens, then set HF_TOKEN or run `hf auth login`"
            )),
            ("GatedRepo", Some(origin)) => Error::Other(format!(
                "{id} is gated, and the owner of the token from {origin} has no access yet: open {endpoint}/{id}, accept \
                 the terms with that account, wait until access is granted, then run again"
            )),
            ("RevisionNotFound", _) => Error::Other(format!(
                "{id} has no revision {revision:?}: give a branch, a tag or a whole commit of {endpoint}/{id}/commits/main"
            )),
            ("EntryNotFound", _) => Error::Other(format!("{id} holds no file {file} at this revision")),
            (_, Some(origin)) if bad_token => Error::Other(format!(
                "{endpoint} does not accept the token from {origin}: it is mistyped, expired or revoked; make a new one at \
                 {endpoint}/settings/tokens, or remove it if the repository is public"
            )),
            (_, None) if not_found => Error::NotFound(format!(
                "{endpoint} knows no public repository {id}: check the spelling; if it is private, set HF_TOKEN or run \
                 `hf auth login`"
            )),
            (_, Some(origin)) if not_found => Error::NotFound(format!(
                "{endpoint} has no repository {id} that the owner of the token from {origin} may see: check the spelling, or \
                 use another account's token"
            )),
            _ => {
                let what = if file.is_empty() { id.to_owned() } else { format!("{file} of {id}") };
                Error::Refused { host, what, status, message }
            }
        }
    }

    /// The server's message in one line, without the token.
    fn words(&self, url: &str, answer: Answer) -> String {
        let said = match answer.header("x-error-message") {
            Some(said) => quoted(said),
            None => {
                let body = self.body(url, answer, MAX_MESSAGE).unwrap_or_default();
                quoted(&String::from_utf8_lossy(&self.without_token(body)))
            }
        };
        if said.is_empty() { "no reason given".to_owned() } else { said }
    }
}

/// What all clients of HTTP have in common.
fn builder(settings: &Settings) -> ClientBuilder {
    // A program that chose another library for TLS keeps it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        // The target of a redirect decides who sees the token, and a link can be reused, so redirects are followed here.
        .redirect(redirect::Policy::none())
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
    if !(301..=308).contains(&answer.status) {
        return None;
    }
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
