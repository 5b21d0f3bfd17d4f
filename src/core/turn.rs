//! The order of one turn of the loop, and when a turn looks at I/O.
//!
//! The order is asyncio's (`base_events.py`, `_run_once`):
//!
//! ```text
//!            ┌───────────────────────── next turn ─────────────────────────┐
//!            ▼                                                             │
//! plan ──► Look ──► Io ──────────► Timers ───────────► Ready ──────────────┘
//!   │      wait or  queue what     queue what is due   run the snapshot
//!   │      poll     has its event  by deadline
//!   └─ Skip ──────────────────────► Timers ──► Ready
//! ```
//!
//! Callbacks of I/O and due timers are queued behind what was ready before, and all of it is one snapshot.
//!
//! One thing differs from asyncio. It asks the kernel in every turn; measured, that is three quarters of the price of
//! a chain of callbacks (89 ns per turn without, 335 ns with). So while callbacks are ready a turn may skip the look,
//! but never for more than [`LOOK_TICKS`] turns nor much longer than [`LOOK_SECS`]: a chain of callbacks that never
//! ends delays a ready reader by as much, and no more. Timers are not affected: each turn checks the deadlines.

use super::time::Time;

/// Turns that may run between two looks at I/O, the one with the look included.
///
/// At 16 a look (240 ns) costs each turn of a chain 15 ns, and a reader waits behind 16 callbacks of a chain at most.
pub const LOOK_TICKS: u32 = 16;

/// Seconds after which a turn looks at I/O however few turns there were: the turns were long, so the price of a look is
/// small against them. 50 microseconds is less than the kernel takes to wake a thread on a loaded machine.
pub const LOOK_SECS: f64 = 50e-6;

/// Turns per reading of the clock while only callbacks are ready.
pub const CLOCK_TICKS: u32 = 8;

/// What happens in a turn, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Phase {
    /// Ask the kernel what is ready, waiting if [`Wait`] says so.
    Look,
    /// Queue (or, for transports, run) what the look found.
    Io,
    /// Queue the timers that are due, by deadline, then by insertion.
    Timers,
    /// Run the snapshot of the ready queue.
    Ready,
}

impl Phase {
    /// The phases of a turn that looks.
    pub const ORDER: [Self; 4] = [Self::Look, Self::Io, Self::Timers, Self::Ready];
}

/// How a turn begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Run callbacks without looking at I/O.
    Skip,
    /// Look at I/O, do not wait for it.
    Poll,
    /// Wait until I/O, a wake-up or the deadline. A deadline that never comes is `None`.
    Park(Option<Time>),
}

/// Decides how each turn begins.
#[derive(Debug)]
pub struct Turn {
    /// Turns since the last look, its own included.
    ticks: u32,
    /// When the last look ended, or when the first turn behind it asked for the time.
    looked: Option<Time>,
    /// The turns before the last look were long: ask for the time in each.
    careful: bool,
}

impl Default for Turn {
    fn default() -> Self {
        Self::new()
    }
}

impl Turn {
    /// A loop that has not looked yet: its first turn will.
    #[must_use]
    pub const fn new() -> Self {
        Self { ticks: LOOK_TICKS, looked: None, careful: false }
    }

    /// Opens a turn without asking for the time, if it may: true means [`Wait::Skip`]. Reading the clock is a quarter of
    /// the price of a turn with one callback, so while callbacks are ready and no timer is set, only every eighth turn
    /// does, unless turns turned out to be long. Otherwise nothing changes, and [`Turn::plan`] is to be asked.
    #[inline]
    pub fn skip_unclocked(&mut self, ready: bool, timers: bool, stopping: bool) -> bool {
        let unclocked = !self.careful && self.looked.is_some() && !self.ticks.is_multiple_of(CLOCK_TICKS);
        let skip = ready && !timers && !stopping && unclocked && self.ticks < LOOK_TICKS;
        self.ticks += u32::from(skip);
        skip
    }

    /// Opens a turn at `now`.
    ///
    /// `ready`: callbacks are queued. `io_pending`: readiness is known that nobody has handled. `stopping`: this is the
    /// last turn; asyncio polls in it, so that `stop(); run_forever()` sees I/O. `next_deadline`: of the first timer.
    ///
    /// After a look the caller reports [`Turn::looked`]; if the look was left by an exception, the next turn looks again.
    #[inline]
    pub fn plan(
        &mut self,
        ready: bool,
        io_pending: bool,
        stopping: bool,
        next_deadline: Option<Time>,
        now: Time,
    ) -> Wait {
        if ready && !stopping {
            if self.ticks >= LOOK_TICKS {
                self.careful = false;
                return Wait::Poll;
            }
            let looked = *self.looked.get_or_insert(now);
            self.careful = now.secs() - looked.secs() >= LOOK_SECS;
            if self.careful {
                return Wait::Poll;
            }
            self.ticks += 1;
            return Wait::Skip;
        }
        // With nothing to run a skipped look gains nothing: only I/O or a timer can have work for this turn.
        if stopping || io_pending || next_deadline.is_some_and(|deadline| deadline.is_due(now)) {
            return Wait::Poll;
        }
        Wait::Park(next_deadline.filter(|&deadline| deadline < Time::NEVER))
    }

    /// The next turn looks, as each of asyncio's does: a program saw that something happened outside of the loop (a
    /// connection was made), and what goes with it (its other end is to be accepted) may be the loop's as well.
    #[inline]
    pub const fn look_next(&mut self) {
        self.ticks = LOOK_TICKS;
        self.looked = None;
    }

    /// The look of this turn ended at `now`: counting starts anew.
    #[inline]
    pub fn looked(&mut self, now: Time) {
        self.ticks = 1;
        self.looked = Some(now);
    }

    /// As [`Turn::looked`], by a caller who does not have the time. The first turn that asks for it begins the count of
    /// [`LOOK_SECS`]; a loop that only parks and handles I/O never does.
    #[inline]
    pub fn looked_untimed(&mut self) {
        self.ticks = 1;
        self.looked = None;
    }

    /// Whether [`Turn::plan`] needs the time: to tell whether timers are due, or for how long there was no look. Not when
    /// nothing is ready, nor when the turns alone ask for a look.
    #[inline]
    #[must_use]
    pub const fn wants_time(&self, ready: bool, timers: bool) -> bool {
        timers || (ready && self.ticks < LOOK_TICKS)
    }

    /// Turns are long, so the time of a look matters.
    #[must_use]
    pub const fn is_careful(&self) -> bool {
        self.careful
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::at(100);

    fn looked() -> Turn {
        let mut turn = Turn::new();
        turn.looked(NOW);
        turn
    }

    #[test]
    fn a_turn_that_was_asked_for_looks() {
        let mut turn = looked();
        assert_eq!(turn.plan(true, false, false, None, NOW), Wait::Skip);
        turn.look_next();
        assert!(!turn.skip_unclocked(true, false, false));
        assert_eq!(turn.plan(true, false, false, None, NOW), Wait::Poll);
        turn.looked(NOW);
        assert_eq!(turn.plan(true, false, false, None, NOW), Wait::Skip, "once");
    }

    #[test]
    fn a_turn_without_a_clock_counts_like_any_other() {
        let mut turn = Turn::new();
        turn.looked(Time::at(0));
        let mut unclocked = 0;
        let skipped = (0..100).take_while(|_| {
            let skip = turn.skip_unclocked(true, false, false);
            unclocked += u32::from(skip);
            skip || turn.plan(true, false, false, None, Time::at(0)) == Wait::Skip
        });
        assert_eq!(skipped.count() + 1, LOOK_TICKS as usize);
        assert_eq!(unclocked, LOOK_TICKS - LOOK_TICKS / CLOCK_TICKS);
        turn.looked_untimed();
        assert!(!turn.skip_unclocked(true, false, false), "the first turn behind an untimed look has the clock read");
        assert_eq!(turn.plan(true, false, false, None, Time::at(1)), Wait::Skip);
        assert!(turn.skip_unclocked(true, false, false));
        turn.ticks = CLOCK_TICKS;
        assert_eq!(turn.plan(true, false, false, None, Time::at(2)), Wait::Poll);
        turn.looked(Time::at(2));
        assert!(turn.is_careful() && !turn.skip_unclocked(true, false, false));
        turn.looked(Time::at(0));
        assert!(!turn.skip_unclocked(true, true, false) && !turn.skip_unclocked(true, false, true));
        assert!(!turn.skip_unclocked(false, false, false));
    }

    #[test]
    fn an_idle_loop_parks_until_its_first_deadline() {
        let later = Time::from_secs(101.0);
        assert_eq!(looked().plan(false, false, false, Some(later), NOW), Wait::Park(Some(later)));
        assert_eq!(looked().plan(false, false, false, None, NOW), Wait::Park(None));
        assert_eq!(looked().plan(false, false, false, Some(Time::NEVER), NOW), Wait::Park(None));
    }

    #[test]
    fn work_that_needs_no_waiting_polls() {
        assert_eq!(looked().plan(false, false, false, Some(NOW), NOW), Wait::Poll);
        assert_eq!(looked().plan(false, true, false, None, NOW), Wait::Poll);
        assert_eq!(looked().plan(false, false, true, None, NOW), Wait::Poll);
        assert_eq!(looked().plan(true, false, true, None, NOW), Wait::Poll);
    }

    #[test]
    fn the_first_turn_looks() {
        assert_eq!(Turn::new().plan(true, false, false, None, NOW), Wait::Poll);
    }

    #[test]
    fn a_chain_of_callbacks_runs_sixteen_turns_per_look() {
        let mut turn = looked();
        let skips = (0..100).take_while(|_| turn.plan(true, false, false, None, NOW) == Wait::Skip).count();
        assert_eq!(skips, 15);
        // Until the look has happened, every turn asks for it.
        assert_eq!(turn.plan(true, false, false, None, NOW), Wait::Poll);
        turn.looked(NOW);
        assert_eq!(turn.plan(true, false, false, None, NOW), Wait::Skip);
    }

    #[test]
    fn long_callbacks_cause_a_look_by_the_clock() {
        let mut turn = looked();
        assert_eq!(turn.plan(true, false, false, None, Time::from_secs(100.000_04)), Wait::Skip);
        assert_eq!(turn.plan(true, false, false, None, Time::from_secs(100.000_06)), Wait::Poll);
    }
}
