//! Accepting connections: when, how many at a time, and what an error of `accept(2)` means. `core::drive::accept` carries
//! it out.
//!
//! ```text
//!              event              ECONNABORTED, EINTR, a connection: again
//!   Waiting ──────────► Accepting ◄──┐
//!    ▲                   │  │  │ └───┘
//!    │          EAGAIN   │  │  │ the burst is used up, or an exit broke it off
//!    ├───────────────────┘  │  └──────────► Queued ──── next turn ────► Accepting
//!    │                      │ any other error
//!    │                      └─────────────► Resting ─── a second ─────► Accepting
//!    └── nothing came in between            stop: Stopped, from anywhere, for good
//! ```
//!
//! Facts: `selector_events.py`, `_accept_connection`, accepts `backlog` times per readiness (`backlog + 1` since 3.14),
//! returns on `BlockingIOError`, `InterruptedError`, `ConnectionAbortedError`, and on EMFILE, ENFILE, ENOBUFS and ENOMEM
//! reports, stops watching the listener and watches it again `ACCEPT_RETRY_DELAY` = 1 s later: no fd to accept with, and a
//! listener that stays readable, would be a busy loop. Anything else it raises into the exception handler, in every turn.
//!
//! Returning on EINTR and ECONNABORTED is right with a level-triggered selector only. The readiness that Tokio reports is
//! edge-triggered: connections that are queued behind the aborted one come with no edge of their own. For the same reason
//! a listener that serves and is not accepting always has one thing that makes it go on, and one only: the event, a place
//! in the loop's queue, or a timer.

use std::time::Duration;

/// How long a listener rests when it cannot accept: asyncio's `ACCEPT_RETRY_DELAY`.
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
    /// EMFILE, ENFILE, ENOBUFS, ENOMEM: the connection stays queued.
    OutOfResources,
    /// Any other errno.
    Other(i32),
}

/// What to do next with the listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step {
    /// Make the call. There may be connections queued.
    Accept,
    /// No connection is queued: arm the event that tells of the next one.
    Watch,
    /// Enough for this turn. Connections may be left, of which no event tells: go on in the next one.
    Queue,
    /// Report the error, and call [`Accept::handle_rested`] after this long.
    Rest(Duration),
    /// The listener was stopped.
    Nothing,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The event is armed.
    Waiting,
    /// A place in the loop's queue.
    Queued,
    /// So many calls are left of the burst.
    Accepting(u32),
    Resting,
    Stopped,
}

/// The state of one listener.
#[derive(Debug)]
pub struct Accept {
    burst: u32,
    phase: Phase,
}

impl Accept {
    /// A listener that accepts at most `burst` connections (at least one) in a turn, and waits for its event.
    #[must_use]
    pub fn new(burst: u32) -> Self {
        Self { burst: burst.max(1), phase: Phase::Waiting }
    }

    // ---- something happened

    /// The event came, or the turn for which the listener was queued.
    pub fn handle_ready(&mut self) -> Step {
        if !matches!(self.phase, Phase::Waiting | Phase::Queued) {
            return Step::Nothing;
        }
        self.begin()
    }

    /// The time to rest is over.
    pub fn handle_rested(&mut self) -> Step {
        if self.phase == Phase::Resting { self.begin() } else { Step::Nothing }
    }

    /// A connection was accepted, and has its transport.
    pub fn handle_accepted(&mut self) -> Step {
        self.count()
    }

    /// A connection was accepted, and an exit came up while its transport was made. The loop may run again: the rest of the
    /// backlog waits for that.
    pub fn handle_exit(&mut self) -> Step {
        self.leave(Phase::Queued, Step::Queue)
    }

    /// `accept(2)` failed. Only [`AcceptError::WouldBlock`] means that no connection is queued.
    pub fn handle_error(&mut self, error: AcceptError) -> Step {
        match error {
            AcceptError::WouldBlock => self.leave(Phase::Waiting, Step::Watch),
            // They count, so that no stream of aborted connections or signals holds the loop.
            AcceptError::Interrupted | AcceptError::Aborted => self.count(),
            AcceptError::OutOfResources | AcceptError::Other(_) => self.leave(Phase::Resting, Step::Rest(RETRY_DELAY)),
        }
    }

    /// Readiness came while the event was to be armed, so that it is not.
    pub fn handle_unarmed(&mut self) -> Step {
        if self.phase == Phase::Waiting { self.leave(Phase::Queued, Step::Queue) } else { Step::Nothing }
    }

    // ---- the caller wants

    /// The server closes: whatever comes is [`Step::Nothing`], for good.
    pub fn stop(&mut self) {
        self.phase = Phase::Stopped;
    }

    // ---- helpers

    fn begin(&mut self) -> Step {
        self.phase = Phase::Accepting(self.burst);
        Step::Accept
    }

    /// One call of the burst is used up.
    fn count(&mut self) -> Step {
        match self.phase {
            Phase::Accepting(left) if left > 1 => {
                self.phase = Phase::Accepting(left - 1);
                Step::Accept
            }
            _ => self.leave(Phase::Queued, Step::Queue),
        }
    }

    fn leave(&mut self, phase: Phase, step: Step) -> Step {
        if self.phase == Phase::Stopped {
            return Step::Nothing;
        }
        self.phase = phase;
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(burst: u32) -> Accept {
        let mut accept = Accept::new(burst);
        assert_eq!(accept.handle_ready(), Step::Accept);
        accept
    }

    #[test]
    fn a_burst_ends_at_its_limit_and_the_next_turn_has_a_new_one() {
        let mut accept = accepting(2);
        for _ in 0..3 {
            assert_eq!(accept.handle_accepted(), Step::Accept);
            assert_eq!(accept.handle_accepted(), Step::Queue);
            assert_eq!(accept.handle_ready(), Step::Accept);
        }
    }

    #[test]
    fn an_empty_queue_is_waited_for_unless_readiness_came_in_between() {
        let mut accept = accepting(9);
        assert_eq!(accept.handle_error(AcceptError::WouldBlock), Step::Watch);
        assert_eq!(accept.handle_unarmed(), Step::Queue);
        assert_eq!((accept.handle_unarmed(), accept.handle_ready()), (Step::Nothing, Step::Accept));
    }

    #[test]
    fn what_cannot_be_accepted_rests_for_a_second_whatever_comes() {
        for error in [AcceptError::OutOfResources, AcceptError::Other(95)] {
            let mut accept = accepting(9);
            assert_eq!(accept.handle_rested(), Step::Nothing);
            assert_eq!(accept.handle_error(error), Step::Rest(Duration::from_secs(1)));
            assert_eq!((accept.handle_ready(), accept.handle_unarmed()), (Step::Nothing, Step::Nothing));
            assert_eq!((accept.handle_rested(), accept.handle_rested()), (Step::Accept, Step::Nothing));
        }
    }

    #[test]
    fn aborted_connections_are_stepped_over_but_count() {
        let mut accept = accepting(3);
        assert_eq!(accept.handle_error(AcceptError::Aborted), Step::Accept);
        assert_eq!(accept.handle_error(AcceptError::Interrupted), Step::Accept);
        assert_eq!(accept.handle_error(AcceptError::Aborted), Step::Queue);
    }

    #[test]
    fn a_stopped_listener_does_nothing() {
        let mut accept = accepting(9);
        accept.stop();
        let errors =
            [AcceptError::WouldBlock, AcceptError::Aborted, AcceptError::OutOfResources, AcceptError::Other(9)];
        for error in errors {
            assert_eq!(accept.handle_error(error), Step::Nothing);
        }
        for handle in [Accept::handle_accepted, Accept::handle_exit, Accept::handle_ready, Accept::handle_rested] {
            assert_eq!(handle(&mut accept), Step::Nothing);
        }
        assert_eq!(accept.handle_unarmed(), Step::Nothing);
    }

    #[test]
    fn a_backlog_of_zero_still_accepts() {
        assert_eq!(accepting(0).handle_error(AcceptError::Interrupted), Step::Queue);
        assert_eq!(Accept::new(0).burst, 1);
    }
}
