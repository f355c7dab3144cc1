//! How long to wait for a server.

use std::time::Duration;

/// The longest waits, and the slowest transfer, of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until a name is looked up, and again until a connection is open.
    pub connect: Duration,
    /// Until the headers of an answer are complete.
    pub answer: Duration,
    /// Between two parts of a transfer.
    pub silence: Duration,
    /// Bytes a second below which a transfer is cut, and tried again.
    pub slowest: u64,
    /// Time spent waiting for data after which the speed is compared with `slowest`.
    pub window: Duration,
}

impl Default for Limits {
    /// A transfer that delivers less than 1000 bytes a second for half a minute is cut.
    fn default() -> Self {
        Limits {
            connect: Duration::from_secs(15),
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(30),
            slowest: 1000,
            window: Duration::from_secs(30),
        }
    }
}
