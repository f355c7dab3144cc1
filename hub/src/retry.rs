//! Retries: how often, and after which pauses.

use std::time::Duration;

use crate::error::Error;
use crate::wait::pause;

/// When to give up, and how long to wait before that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Consecutive attempts without progress before giving up.
    pub attempts: u32,
    /// Pause after the first of them; each further one is twice as long.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// Longest wait that a server may ask for before that counts as a refusal.
    pub longest_request: Duration,
    /// How long a second of a server's `Retry-After` is: a second, except in tests.
    pub second: Duration,
}

impl Default for Policy {
    /// Seven attempts over about a minute, and up to five minutes when the server says so.
    fn default() -> Self {
        Policy {
            attempts: 7,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            longest_request: Duration::from_secs(300),
            second: Duration::from_secs(1),
        }
    }
}

/// Why a request got no usable answer.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    /// Whether another attempt may succeed.
    pub(crate) passes: bool,
    /// Pause that the server asks for, in seconds.
    pub(crate) retry_after: Option<u64>,
}

impl Failure {
    pub(crate) fn passing(error: Error) -> Self {
        Failure { error, passes: true, retry_after: None }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, passes: false, retry_after: None }
    }
}

/// Counts attempts at one thing.
#[derive(Debug)]
pub(crate) struct Attempts {
    policy: Policy,
    failed: u32,
    cancelled: fn() -> bool,
}

impl Attempts {
    pub(crate) fn new(policy: Policy, cancelled: fn() -> bool) -> Self {
        Attempts { policy, failed: 0, cancelled }
    }

    /// Something arrived: the count starts again.
    pub(crate) fn progress(&mut self) {
        self.failed = 0;
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// The failure, if another attempt would fail too, no attempt is left, or the server asks for too long a pause;
    /// [`Error::Cancelled`] if the user asked to stop.
    pub(crate) fn failed(&mut self, failure: Failure) -> Result<(), Error> {
        self.failed += 1;
        let Policy { attempts, first_pause, longest_pause, longest_request, second } = self.policy;
        let asked = failure
            .retry_after
            .map(|seconds| second.saturating_mul(u32::try_from(seconds).unwrap_or(u32::MAX)));
        let is_last = self.failed >= attempts || asked.is_some_and(|wait| wait > longest_request);
        if !failure.passes || is_last {
            return Err(failure.error);
        }
        let doubled = first_pause.saturating_mul(1_u32.checked_shl(self.failed - 1).unwrap_or(u32::MAX));
        pause(doubled.min(longest_pause).max(asked.unwrap_or_default()), self.cancelled)
    }
}
