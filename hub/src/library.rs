//! The Hub's own library, for what it does within the promises of this client: facts about a repository that is written to, and new
//! repositories. Every request is one attempt, and [`Client::patiently`] decides about the next one.
//!
//! What stays here, and why, is in the table of `ARCHITECTURE.md`.

use std::future::Future;

use hf_hub::{HFClient, HFError};
use reqwest::redirect::Policy;

use crate::answer::quoted;
use crate::client::{About, Client, Failure, Refusal, origin};
use crate::error::Error;
use crate::retry::Passing;
use crate::wait::Ended;

/// The library's client with these settings. It reads variables for whatever it is not given, so everything is given. Without a token
/// it looks for one itself, in the places where the settings found none.
///
/// # Errors
/// If it cannot start.
fn library(client: &Client) -> Result<HFClient, Error> {
    let settings = client.settings();
    let no = |reason: String| Error::NoClient { reason: quoted(&reason) };
    let endpoint = origin(&settings.endpoint).to_owned();
    let stays = Policy::custom(move |attempt| {
        match attempt.previous().len() < 5 && origin(attempt.url().as_str()) == endpoint {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    });
    let http =
        client.builder(&settings.endpoint).redirect(stays).build().map_err(|error| no(error.to_string()))?;
    let builder = HFClient::builder()
        .endpoint(&settings.endpoint)
        .user_agent(crate::client::AGENT)
        .client(http)
        .cache_dir(&settings.cache)
        .cache_enabled(false)
        .retry_max_attempts(0);
    let builder = match &settings.token {
        Some(token) => builder.token(token.secret()),
        None => builder,
    };
    builder.build().map_err(|error| no(error.to_string()))
}

/// Asks through the library, with retries.
///
/// # Errors
/// As those of [`Client::post`].
pub(crate) fn ask<T, F: Future<Output = Result<T, HFError>>>(
    client: &Client,
    about: About<'_>,
    ask: impl Fn(HFClient) -> F,
) -> Result<T, Error> {
    let library = library(client)?;
    let limits = client.settings().limits;
    let url = &client.settings().endpoint;
    client.patiently(|| {
        match client.waiter.run(Some(limits.connect.saturating_add(limits.answer)), ask(library.clone())) {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failure(client, &error, about)),
            Err(Ended::Cancelled) => Err(Failure::Final(Error::Cancelled)),
            Err(Ended::TimedOut) => Err(client.broken(url, "it does not answer in time".to_owned())),
        }
    })
}

/// The library's errors, as those of this client.
fn failure(client: &Client, error: &HFError, about: About<'_>) -> Failure {
    let url = &client.settings().endpoint;
    let (context, retry_after) = match error {
        HFError::RateLimited { retry_after, context } => {
            (Some(context), retry_after.map(|wait| wait.as_secs()))
        }
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::Conflict { context } => (Some(context), None),
        HFError::RepoNotFound { context, .. }
        | HFError::RevisionNotFound { context, .. }
        | HFError::EntryNotFound { context, .. } => (context.as_ref(), None),
        HFError::Request { source, .. } => return client.unanswered(url, source),
        _ => (None, None),
    };
    let Some(context) = context else {
        return Failure::Final(Error::protocol(url, &client.without_token_text(&error.to_string())));
    };
    let said = context.server_message.as_ref().unwrap_or(&context.body);
    let refusal = Refusal {
        status: context.status.as_u16(),
        code: context.error_code.clone().unwrap_or_default(),
        message: client.without_token_text(said),
        retry_after,
    };
    // The Hub makes one repository of a user at a time.
    let is_busy = refusal.status == 409 && refusal.message.contains("in progress");
    match client.refused(url, refusal, about) {
        Failure::Final(error) if is_busy => Failure::Passing(Passing { error, retry_after: None }),
        failure => failure,
    }
}
