//! The connection under HTTP: every wait of it ends soon after the user asks to stop, and a transfer that trickles is cut.
//!
//! Sockets wait in short steps. Looking up a name and opening a connection have no steps: they are done in a thread that can be
//! left behind. TLS and proxies are built on top and need no changes.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout,
    RustlsConnector, Transport,
};
use ureq::{Agent, Error};

use crate::limits::Limits;
use crate::wait::{Ended, STEP, in_thread};

/// An agent whose waits end when `cancelled` says so.
pub(crate) fn agent(config: Config, limits: Limits, cancelled: fn() -> bool) -> Agent {
    let line = HubConnector { limits, cancelled };
    let connector =
        ().chain(ConnectProxyConnector::default()).chain(line.clone()).chain(RustlsConnector::default());
    Agent::with_parts(config, connector, line)
}

/// A transfer was cut because it delivered hardly anything.
#[derive(Debug, thiserror::Error)]
#[error("it sends less than {0} bytes a second")]
struct TooSlow(u64);

/// Whether a transfer was cut because it was too slow.
pub(crate) fn is_too_slow(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<TooSlow>()).is_some()
}

/// Looks up names and opens connections.
#[derive(Clone, Debug)]
struct HubConnector {
    limits: Limits,
    cancelled: fn() -> bool,
}

impl HubConnector {
    fn wait<T: Send + 'static>(
        &self,
        timeout: NextTimeout,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        match in_thread(*timeout.after, self.cancelled, work) {
            Ok(result) => result,
            Err(Ended::Cancelled) => Err(interrupted()),
            Err(Ended::TimedOut) => Err(Error::Timeout(timeout.reason)),
            Err(Ended::NoThread(error)) => Err(error.into()),
        }
    }
}

/// Whether a host is an address, which needs no lookup and so no thread.
fn is_address(host: &str) -> bool {
    host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

impl Resolver for HubConnector {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        if uri.host().is_some_and(is_address) {
            return DefaultResolver::default().resolve(uri, config, NextTimeout::default());
        }
        let (uri, config) = (uri.clone(), config.clone());
        self.wait(timeout, move || DefaultResolver::default().resolve(&uri, &config, NextTimeout::default()))
    }
}

impl<In: Transport> Connector<In> for HubConnector {
    type Out = Either<In, Wire>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        if let Some(open) = chained {
            // Otherwise the connection goes through a proxy.
            return Ok(Some(Either::A(open)));
        }
        let addresses = details.addrs.to_vec();
        let limit = *details.timeout.after;
        let stream = self.wait(details.timeout, move || Ok(open(&addresses, limit)?))?;
        let config = details.config;
        Ok(Some(Either::B(Wire {
            stream,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            cancelled: self.cancelled,
            sending: Pace::new(self.limits),
            receiving: Pace::new(self.limits),
        })))
    }
}

/// Connects to the first address that answers. Each but the last one gets half of the time that is left.
fn open(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let begun = Instant::now();
    let mut last: io::Error = io::ErrorKind::ConnectionRefused.into();
    for (at, address) in addresses.iter().enumerate() {
        let left = limit.saturating_sub(begun.elapsed()).max(STEP);
        let share = if at + 1 == addresses.len() { left } else { left / 2 };
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(STEP))?;
                stream.set_write_timeout(Some(STEP))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The client checks the flag itself: this only ends what has started.
fn interrupted() -> Error {
    Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, "interrupted"))
}

/// An open connection.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    buffers: LazyBuffers,
    cancelled: fn() -> bool,
    sending: Pace,
    receiving: Pace,
}

/// Repeats what would block; returns the number of bytes that were moved, and the time that this took.
fn repeat(
    timeout: NextTimeout,
    cancelled: fn() -> bool,
    mut step: impl FnMut() -> io::Result<usize>,
) -> Result<(usize, Duration), Error> {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    let begun = Instant::now();
    loop {
        if cancelled() {
            return Err(interrupted());
        }
        match step() {
            Err(error) if matches!(error.kind(), WouldBlock | TimedOut | Interrupted) => {}
            Err(error) => return Err(error.into()),
            Ok(count) => return Ok((count, begun.elapsed())),
        }
        if begun.elapsed() >= *timeout.after {
            return Err(Error::Timeout(timeout.reason));
        }
    }
}

impl Transport for Wire {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.receiving.restart();
        let mut output = &self.buffers.output()[..amount];
        while !output.is_empty() {
            let (count, time) = repeat(timeout.for_write(), self.cancelled, || (&self.stream).write(output))?;
            if count == 0 {
                return Err(io::Error::from(io::ErrorKind::WriteZero).into());
            }
            self.sending.moved(count, time)?;
            output = &output[count..];
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.sending.restart();
        let input = self.buffers.input_append_buf();
        let (count, time) = repeat(timeout.for_read(), self.cancelled, || (&self.stream).read(input))?;
        self.buffers.input_appended(count);
        self.receiving.moved(count, time)?;
        Ok(count > 0)
    }

    /// Whether the connection can be reused: open, and without unsolicited bytes.
    fn is_open(&mut self) -> bool {
        let is_quiet = |stream: &TcpStream| {
            stream.set_nonblocking(true)?;
            let quiet =
                matches!(stream.peek(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
            stream.set_nonblocking(false)?;
            io::Result::Ok(quiet)
        };
        is_quiet(&self.stream).unwrap_or(false)
    }
}

/// The speed of a transfer in one direction, over the time that was spent waiting: a slow reader does not make a slow server.
#[derive(Debug)]
struct Pace {
    limits: Limits,
    /// Whether something arrived: until then, a server may take its time.
    begun: bool,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    fn new(limits: Limits) -> Self {
        Pace { limits, begun: false, waited: Duration::ZERO, bytes: 0 }
    }

    /// The other direction is in use: what arrives next is another answer.
    fn restart(&mut self) {
        *self = Pace::new(self.limits);
    }

    /// This many bytes were moved after a wait.
    fn moved(&mut self, bytes: usize, waited: Duration) -> Result<(), Error> {
        if !std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        (self.bytes, self.waited) = (self.bytes.saturating_add(bytes as u64), self.waited + waited);
        if self.waited < self.limits.window {
            return Ok(());
        }
        let least = u128::from(self.limits.slowest) * self.waited.as_millis() / 1000;
        if u128::from(self.bytes) < least {
            return Err(Error::Io(io::Error::other(TooSlow(self.limits.slowest))));
        }
        (self.bytes, self.waited) = (0, Duration::ZERO);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ureq::Error;

    use super::{Limits, Pace, is_too_slow};

    /// Moves this many bytes each second until the transfer is cut; returns the seconds.
    fn cut_after(bytes: usize) -> Option<usize> {
        let mut pace = Pace::new(Limits::default());
        (0..200).find(|_| match pace.moved(bytes, Duration::from_secs(1)) {
            Ok(()) => false,
            Err(Error::Io(error)) => is_too_slow(&error),
            Err(error) => panic!("{error}"),
        })
    }

    #[test]
    fn a_trickle_is_cut_after_half_a_minute_and_a_slow_connection_is_not() {
        assert_eq!(cut_after(1), Some(30));
        assert_eq!(cut_after(999), Some(30));
        assert_eq!(cut_after(1000), None);
    }

    #[test]
    fn a_server_may_take_its_time_before_it_answers() {
        let mut pace = Pace::new(Limits::default());
        for _ in 0..3 {
            pace.moved(1, Duration::from_secs(55)).unwrap();
            pace.moved(10, Duration::from_secs(29)).unwrap();
            pace.restart();
        }
    }
}
