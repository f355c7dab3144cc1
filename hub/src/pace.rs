//! The speed of a transfer: one that trickles is cut.

use std::time::Duration;

use crate::limits::Limits;

/// The speed of one body, over the time that was spent waiting: a slow reader does not make a slow server.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: Limits,
    /// Whether something arrived: until then, a server may take its time.
    begun: bool,
    waited: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(limits: Limits) -> Self {
        Pace { limits, begun: false, waited: Duration::ZERO, bytes: 0 }
    }

    /// This many bytes arrived after a wait; whether that is fast enough.
    pub(crate) fn moved(&mut self, bytes: usize, waited: Duration) -> bool {
        if !std::mem::replace(&mut self.begun, true) {
            return true;
        }
        (self.bytes, self.waited) = (self.bytes.saturating_add(bytes as u64), self.waited + waited);
        if self.waited < self.limits.window {
            return true;
        }
        let least = u128::from(self.limits.slowest) * self.waited.as_millis() / 1000;
        if u128::from(self.bytes) < least {
            return false;
        }
        (self.bytes, self.waited) = (0, Duration::ZERO);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Limits, Pace};

    /// Moves this many bytes each second until the transfer is cut; returns the seconds.
    fn cut_after(bytes: usize) -> Option<usize> {
        let mut pace = Pace::new(Limits::default());
        (0..200).find(|_| !pace.moved(bytes, Duration::from_secs(1)))
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
        assert!(pace.moved(1, Duration::from_secs(55)) && pace.moved(10, Duration::from_secs(29)));
    }
}
