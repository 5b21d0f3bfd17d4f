//! Accepting connections: how many per readiness, and what an error of `accept(2)` means.
//!
//! ```text
//!               begin                    burst reached, EAGAIN
//!   idle ───────────────► accepting ─────────────────────────────► idle
//!    ▲                      │  ▲  │ EINTR, ECONNABORTED: retry
//!    │ begin                │  └──┘
//!    │ (after the delay)    │ EMFILE, ENFILE, ENOBUFS, ENOMEM
//!    └───── backing off ◄───┘            stop: from anywhere, for good
//! ```
//!
//! Facts: `selector_events.py`, `_accept_connection`, accepts `backlog` times per readiness (`backlog + 1` since 3.14),
//! returns on `BlockingIOError`, `InterruptedError`, `ConnectionAbortedError`, and on the four errors above reports,
//! stops watching the listener and watches it again `ACCEPT_RETRY_DELAY` = 1 s later: no fd to accept with, and a
//! listener that stays readable, would be a busy loop. Anything else it raises into the exception handler.
//!
//! Returning on EINTR and ECONNABORTED is right with a level-triggered selector only. The readiness that Tokio reports
//! is edge-triggered: a return would lose connections that are queued behind the aborted one, hence [`AcceptStep::Retry`].

use std::time::Duration;

/// How long a listener rests when the process or the system has no resources: asyncio's `ACCEPT_RETRY_DELAY`.
pub const RETRY_DELAY: Duration = Duration::from_secs(1);

/// An error of `accept(2)`, as far as it matters what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptError {
    /// EAGAIN, EWOULDBLOCK: the queue is empty.
    WouldBlock,
    /// EINTR.
    Interrupted,
    /// ECONNABORTED: the peer gave up while it was queued.
    Aborted,
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM (the errno): the connection stays queued.
    OutOfResources,
    /// Any other errno.
    Other(i32),
}

/// What to do next with the listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptStep {
    /// Accept once more. There may be more connections queued.
    Again,
    /// Enough for this readiness. Unless the last call would have blocked, connections may be left, and the caller must
    /// remember that the listener is ready.
    Done,
    /// Leave the listener alone for this long, then begin anew.
    BackOff(Duration),
    /// The call did not count: make it again.
    Retry,
    /// Report this errno; the listener stays.
    Failed(i32),
}

/// The state of one listener.
#[derive(Debug)]
pub struct Accept {
    burst: u32,
    left: u32,
    stopped: bool,
}

impl Accept {
    /// A listener that accepts at most `burst` connections (at least one) per readiness.
    #[must_use]
    pub fn new(burst: u32) -> Self {
        Self { burst: burst.max(1), left: 0, stopped: false }
    }

    /// The listener became readable, or its rest is over: a new burst.
    #[inline]
    pub fn begin(&mut self) {
        self.left = self.burst;
    }

    /// A connection was accepted.
    #[inline]
    pub fn handle_accepted(&mut self) -> AcceptStep {
        self.count(AcceptStep::Again)
    }

    /// `accept(2)` failed. Only [`AcceptError::WouldBlock`] means that no connection is queued.
    pub fn handle_error(&mut self, error: AcceptError) -> AcceptStep {
        if self.stopped {
            // The error is of a listener that is being closed.
            return AcceptStep::Done;
        }
        match error {
            AcceptError::WouldBlock => {
                self.left = 0;
                AcceptStep::Done
            }
            // They count, so that no stream of aborted connections or signals holds the loop.
            AcceptError::Interrupted | AcceptError::Aborted => self.count(AcceptStep::Retry),
            AcceptError::OutOfResources => {
                self.left = 0;
                AcceptStep::BackOff(RETRY_DELAY)
            }
            AcceptError::Other(errno) => {
                self.left = 0;
                AcceptStep::Failed(errno)
            }
        }
    }

    /// The server closes: whatever comes is [`AcceptStep::Done`], for good.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    /// One call of the burst is used up: `step` if there is another.
    #[inline]
    fn count(&mut self, step: AcceptStep) -> AcceptStep {
        self.left = self.left.saturating_sub(1);
        if self.stopped || self.left == 0 { AcceptStep::Done } else { step }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(burst: u32) -> Accept {
        let mut accept = Accept::new(burst);
        accept.begin();
        accept
    }

    #[test]
    fn a_burst_ends_at_its_limit_and_the_next_readiness_opens_a_new_one() {
        let mut accept = listening(2);
        for _ in 0..3 {
            assert_eq!(accept.handle_accepted(), AcceptStep::Again);
            assert_eq!(accept.handle_accepted(), AcceptStep::Done);
            accept.begin();
        }
    }

    #[test]
    fn an_empty_queue_ends_the_burst() {
        assert_eq!(listening(9).handle_error(AcceptError::WouldBlock), AcceptStep::Done);
    }

    #[test]
    fn a_lack_of_resources_rests_for_a_second() {
        assert_eq!(listening(9).handle_error(AcceptError::OutOfResources), AcceptStep::BackOff(Duration::from_secs(1)));
    }

    #[test]
    fn aborted_connections_are_stepped_over_but_count() {
        let mut accept = listening(3);
        assert_eq!(accept.handle_error(AcceptError::Aborted), AcceptStep::Retry);
        assert_eq!(accept.handle_error(AcceptError::Interrupted), AcceptStep::Retry);
        assert_eq!(accept.handle_error(AcceptError::Aborted), AcceptStep::Done);
    }

    #[test]
    fn a_stopped_listener_reports_nothing() {
        let mut accept = listening(9);
        accept.stop();
        assert_eq!(accept.handle_accepted(), AcceptStep::Done);
        assert_eq!(accept.handle_error(AcceptError::Other(9)), AcceptStep::Done);
        accept.begin();
        assert_eq!(accept.handle_error(AcceptError::OutOfResources), AcceptStep::Done);
    }

    #[test]
    fn a_backlog_of_zero_still_accepts() {
        let mut accept = listening(0);
        assert_eq!(accept.handle_error(AcceptError::Interrupted), AcceptStep::Done);
        assert_eq!(Accept::new(0).burst, 1);
    }
}
