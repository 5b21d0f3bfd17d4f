//! The order of one turn of the loop, and how a turn begins. `core::drive::turn` keeps it.
//!
//! The order is asyncio's (`base_events.py`, `_run_once`):
//!
//! ```text
//!            ┌───────────────────────── next turn ─────────────────────────┐
//!            ▼                                                             │
//! plan ──► Look ──► Io ──────────► Timers ───────────► Ready ──────────────┘
//!          wait or  queue what     queue what is due   run the snapshot
//!          poll     has its event  by deadline
//! ```
//!
//! Callbacks of I/O and due timers are queued behind what was ready before, and all of it is one snapshot.
//!
//! Every turn looks, as each of asyncio's does: it finds what was ready when it began. A look costs as much as three
//! callbacks, so leaving some out tempts, but programs count turns: they write to one end of a connection and expect the
//! other end to have it two turns later, or wait with a time-out of zero. What happened since the last look cannot be told
//! without one: any callback may have made a system call, and so may any thread and any other process.

use super::time::Time;

/// How a turn looks at I/O.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Do not wait for it.
    Poll,
    /// Wait until I/O, a wake-up or the deadline. A deadline that never comes is `None`.
    Park(Option<Time>),
}

/// How the turn that begins at `now` looks. `now` tells only whether the deadline is due: it is of no matter without one.
///
/// `busy`: callbacks are queued, readiness is known that nobody has handled, or this is the last turn, as `stop()` was
/// called; asyncio polls in it, so that `stop(); run_forever()` sees I/O. `next_deadline`: of the first timer.
#[inline]
#[must_use]
pub fn plan(busy: bool, next_deadline: Option<Time>, now: Time) -> Wait {
    if busy || next_deadline.is_some_and(|deadline| deadline.is_due(now)) {
        return Wait::Poll;
    }
    Wait::Park(next_deadline.filter(|&deadline| deadline < Time::NEVER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::at(100);

    #[test]
    fn an_idle_loop_parks_until_its_first_deadline() {
        let later = Time::from_secs(101.0);
        assert_eq!(plan(false, Some(later), NOW), Wait::Park(Some(later)));
        assert_eq!(plan(false, None, NOW), Wait::Park(None));
        assert_eq!(plan(false, Some(Time::NEVER), NOW), Wait::Park(None));
    }

    #[test]
    fn work_that_needs_no_waiting_polls() {
        assert_eq!(plan(false, Some(NOW), NOW), Wait::Poll);
        assert_eq!(plan(true, None, NOW), Wait::Poll);
        assert_eq!(plan(true, Some(Time::from_secs(101.0)), NOW), Wait::Poll);
    }
}
