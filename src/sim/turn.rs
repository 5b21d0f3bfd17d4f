//! Ready queue, timers and turn under a virtual clock, against a model of plain lists.
//!
//! A turn is `core::drive::turn`, as it ships, with this simulation as its host; [`Op::Turn`] is one. Callbacks do what their
//! [`Work`] says, so that callbacks queue, set, cancel and raise from within a turn.
//!
//! Invariants:
//! - callbacks run in the order they were queued, each once; a turn runs its snapshot, and what an exception cut off
//!   comes first in the next one;
//! - a timer never runs early, all that are due when a turn reaches its timers run in it, by deadline, then by insertion;
//! - a cancelled timer never runs and comes back at once, a key that ran or was cancelled names nothing;
//! - the loop parks only with nothing to do, and until the first deadline;
//! - a turn finds what was ready when it began;
//! - memory is bounded by the timers that are set.

use std::collections::VecDeque;
use std::convert::Infallible;

use super::Decode;
use crate::core::drive::turn::{Host, prepare};
use crate::core::ready::{Ready, Snapshot};
use crate::core::time::Time;
use crate::core::timers::{TimerKey, Timers};
use crate::core::turn::Wait;

/// Events after which operations are ignored: chains of callbacks would make a run quadratic.
const EVENTS_MAX: usize = 50_000;

/// A deadline, relative to the clock at the time of the call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// So many microseconds from now.
    After(u16),
    /// So many microseconds ago.
    Ago(u16),
    /// The deadline of the timer set last.
    Same,
    /// The next double after the deadline of the timer set last.
    JustAfter,
    /// One of the values without an ordinary order: NaN, both infinities, minus zero.
    Odd(u8),
}

impl When {
    fn from_bytes(kind: u8, [low, high]: [u8; 2]) -> Self {
        let micros = u16::from_le_bytes([low, high]);
        match kind % 8 {
            0..=3 => Self::After(micros),
            4 => Self::Ago(micros),
            5 => Self::Same,
            6 => Self::JustAfter,
            _ => Self::Odd(low % 4),
        }
    }
}

/// What a callback does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Work {
    /// Nothing.
    Nothing,
    /// Queues a callback that does nothing.
    CallSoon,
    /// Queues itself: a chain without end.
    Chain,
    /// Sets a timer.
    CallAt(When),
    /// Cancels the timer set as the so-manieth, counted modulo.
    Cancel(u8),
    /// Takes so many microseconds.
    Slow(u16),
    /// Raises an exception that leaves the run, as `KeyboardInterrupt` does.
    Raise,
}

impl Work {
    fn from_bytes([kind, low, high]: [u8; 3]) -> Self {
        match kind % 16 {
            0..=3 => Self::Nothing,
            4 | 5 => Self::CallSoon,
            6 | 7 => Self::Chain,
            8..=10 => Self::CallAt(When::from_bytes(kind >> 4, [low, high])),
            11 | 12 => Self::Cancel(low),
            13 | 14 => Self::Slow(u16::from_le_bytes([low, high])),
            _ => Self::Raise,
        }
    }
}

/// An operation on the loop from outside its turns, or a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Queues a callback.
    CallSoon(Work),
    /// Sets a timer whose callback does nothing.
    CallAt(When),
    /// Sets a timer whose callback sets off work.
    CallAtWork(Work),
    /// Cancels the timer set as the so-manieth, counted modulo.
    Cancel(u8),
    /// The clock goes on by so many microseconds.
    Advance(u16),
    /// The clock jumps by so many seconds, as after a suspension.
    Jump(u16),
    /// A reader gets ready.
    IoReady,
    /// One turn; `stopping` as `stop()` has it.
    Turn { stopping: bool },
    /// So many turns.
    Turns(u8),
    /// The loop closes (and, for the test, goes on empty).
    Close,
}

impl Decode for Op {
    fn from_bytes([kind, a, low, high]: [u8; 4]) -> Self {
        match kind % 32 {
            0..=5 => Self::CallSoon(Work::from_bytes([a, low, high])),
            6..=10 => Self::CallAt(When::from_bytes(a, [low, high])),
            11..=13 => Self::CallAtWork(Work::from_bytes([a, low, high])),
            14..=17 => Self::Cancel(a),
            18..=20 => Self::Advance(u16::from_le_bytes([low, high])),
            21 => Self::Jump(u16::from_le_bytes([low, high])),
            22 | 23 => Self::IoReady,
            24..=28 => Self::Turn { stopping: a % 8 == 7 },
            29 | 30 => Self::Turns(a % 40),
            _ => Self::Close,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Event {
    /// The turn began this way.
    Planned(Wait),
    /// The look found the reader ready.
    Io,
    /// A timer came due and its callback was queued.
    Due(u32),
    /// A callback ran.
    Ran(u32),
    /// A callback raised: the turn was left.
    Raised(u32),
    /// A timer was cancelled.
    Cancelled(u32),
    /// The loop closed and handed out so many callbacks and timers.
    Closed(usize, usize),
}

/// Carries out `ops`.
///
/// # Panics
/// When an invariant does not hold.
#[must_use]
pub fn run(ops: &[Op]) -> Vec<Event> {
    let mut sim = Sim::new();
    for &op in ops {
        sim.apply(op);
        sim.check();
    }
    sim.finish();
    sim.events
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Callback {
    id: u32,
    work: Work,
}

/// What the model knows of a timer.
#[derive(Clone, Copy, Debug)]
struct Set {
    when: Time,
    callback: Callback,
    key: TimerKey,
    live: bool,
}

/// The world: machines and model.
#[derive(Debug)]
struct Sim {
    ready: Ready<Callback>,
    timers: Timers<Callback>,
    now: f64,
    next_id: u32,
    /// Model of the ready queue.
    queue: VecDeque<Callback>,
    /// Model of the timers: all ever set, in order of insertion.
    set: Vec<Set>,
    /// The indices of the live ones in `set`.
    live: Vec<usize>,
    io_ready: bool,
    /// The turn is the last one, as `stop()` was called.
    stopping: bool,
    events: Vec<Event>,
}

impl Sim {
    fn new() -> Self {
        Self {
            ready: Ready::new(),
            timers: Timers::new(),
            now: 1000.0,
            next_id: 0,
            queue: VecDeque::new(),
            set: Vec::new(),
            live: Vec::new(),
            io_ready: false,
            stopping: false,
            events: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        if self.events.len() > EVENTS_MAX {
            return;
        }
        match op {
            Op::CallSoon(work) => self.call_soon(work),
            Op::CallAt(when) => self.call_at(when, Work::Nothing),
            Op::CallAtWork(work) => self.call_at(When::After(50), work),
            Op::Cancel(nth) => self.cancel(nth),
            Op::Advance(micros) => self.now += f64::from(micros) * 1e-6,
            Op::Jump(secs) => self.now += f64::from(secs),
            Op::IoReady => self.io_ready = true,
            Op::Turn { stopping } => self.run_once(stopping),
            Op::Turns(count) => (0..count).for_each(|_| self.run_once(false)),
            Op::Close => self.close(),
        }
    }

    /// Turns until nothing more can happen, but for chains.
    fn finish(&mut self) {
        for _ in 0..4 {
            self.now += 70.0;
            self.run_once(false);
            self.check();
        }
        self.close();
    }

    fn time(&self) -> Time {
        Time::from_secs(self.now)
    }

    fn callback(&mut self, work: Work) -> Callback {
        self.next_id += 1;
        Callback { id: self.next_id, work }
    }

    fn call_soon(&mut self, work: Work) {
        let callback = self.callback(work);
        self.ready.push(callback);
        self.queue.push_back(callback);
    }

    fn call_at(&mut self, when: When, work: Work) {
        let last = self.set.last().map_or(self.now, |set| set.when.secs());
        let secs = match when {
            When::After(micros) => self.now + f64::from(micros) * 1e-6,
            When::Ago(micros) => self.now - f64::from(micros) * 1e-6,
            When::Same => last,
            When::JustAfter => last.next_up(),
            When::Odd(which) => [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0][usize::from(which % 4)],
        };
        let callback = self.callback(work);
        let when = Time::from_secs(secs);
        let key = self.timers.insert(when, callback);
        self.live.push(self.set.len());
        self.set.push(Set { when, callback, key, live: true });
    }

    fn cancel(&mut self, nth: u8) {
        let Some(nth) = usize::from(nth).checked_rem(self.set.len()) else { return };
        // Counted from the end, so that few bytes reach recent timers.
        let index = self.set.len() - 1 - nth;
        let Set { key, live, callback, .. } = self.set[index];
        let cancelled = self.timers.cancel(key);
        assert_eq!(cancelled, live.then_some(callback), "cancelling gives a live timer back, and nothing otherwise");
        if live {
            self.unset(index);
            self.events.push(Event::Cancelled(callback.id));
        }
    }

    fn unset(&mut self, index: usize) {
        self.set[index].live = false;
        self.live.retain(|&live| live != index);
    }

    /// The first live timer of the model, by deadline, then by insertion.
    fn first(&self) -> Option<usize> {
        self.live.iter().copied().min_by_key(|&index| (self.set[index].when, index))
    }

    fn run_once(&mut self, stopping: bool) {
        self.stopping = stopping;
        let Ok(turn) = prepare(self);
        let now = self.time();
        while let Some(first) = self.first().filter(|&index| self.set[index].when <= now) {
            let callback = self.set[first].callback;
            self.unset(first);
            self.queue.push_back(callback);
            self.events.push(Event::Due(callback.id));
        }
        // Timers come by deadline, then by insertion, none early and none late, behind what was ready before.
        assert!(self.ready.iter().eq(&self.queue), "queued is what became ready and what is due");
        self.run_snapshot(turn);
    }

    fn run_snapshot(&mut self, turn: Snapshot) {
        for _ in 0..self.queue.len() {
            let callback = self.ready.pop(turn);
            assert_eq!(callback, self.queue.pop_front(), "callbacks run in the order they were queued");
            let Some(Callback { id, work }) = callback else { return };
            if self.work(id, work) {
                self.events.push(Event::Raised(id));
                return;
            }
            self.events.push(Event::Ran(id));
        }
        assert_eq!(self.ready.pop(turn), None, "a turn ran more than its snapshot");
    }

    /// Does the work of a callback; true when it raised.
    fn work(&mut self, id: u32, work: Work) -> bool {
        match work {
            Work::Nothing => {}
            Work::CallSoon => self.call_soon(Work::Nothing),
            Work::Chain => {
                self.ready.push(Callback { id, work });
                self.queue.push_back(Callback { id, work });
            }
            Work::CallAt(when) => self.call_at(when, Work::Nothing),
            Work::Cancel(nth) => self.cancel(nth),
            Work::Slow(micros) => self.now += f64::from(micros) * 1e-6,
            Work::Raise => return true,
        }
        false
    }

    fn close(&mut self) {
        let callbacks = self.ready.take_all();
        assert_eq!(callbacks, self.queue, "a closed loop hands all callbacks out");
        let timers = self.timers.take_all();
        let mut live = std::mem::take(&mut self.live);
        live.sort_by_key(|&index| (self.set[index].when, index));
        let expected: Vec<_> = live.iter().map(|&index| self.set[index].callback).collect();
        assert_eq!(timers, expected, "a closed loop hands all timers out");
        for &index in &live {
            self.set[index].live = false;
        }
        self.queue.clear();
        self.events.push(Event::Closed(callbacks.len(), timers.len()));
    }

    fn check(&self) {
        assert_eq!((self.ready.len(), self.ready.is_empty()), (self.queue.len(), self.queue.is_empty()));
        assert_eq!((self.timers.len(), self.timers.is_empty()), (self.live.len(), self.live.is_empty()));
        check_memory(&self.timers);
    }
}

impl Host for Sim {
    type Error = Infallible;
    type Entry = Callback;
    type Timer = Callback;

    fn scheduled<R>(&mut self, f: impl FnOnce(&mut Ready<Callback>, &mut Timers<Callback>) -> R) -> R {
        f(&mut self.ready, &mut self.timers)
    }

    fn is_pressed(&mut self) -> bool {
        self.stopping
    }

    fn clock(&mut self) -> Result<Time, Infallible> {
        assert!(!self.timers.is_empty(), "the clock is read though no timer is set");
        Ok(self.time())
    }

    fn look(&mut self, wait: Wait, _moment: Time) -> Result<(), Infallible> {
        let next = self.timers.next_deadline();
        assert_eq!(next, self.first().map(|index| self.set[index].when), "the next deadline is the first live timer's");
        let now = self.time();
        let ready = !self.ready.is_empty();
        let due = next.is_some_and(|deadline| deadline.is_due(now));
        match wait {
            Wait::Park(until) => {
                assert!(!ready && !self.stopping && !due, "parked with work to do");
                assert_eq!(until, next.filter(|&deadline| deadline != Time::NEVER));
            }
            Wait::Poll => assert!(ready || self.stopping || due),
        }
        self.events.push(Event::Planned(wait));
        if let Wait::Park(Some(deadline)) = wait
            && !self.io_ready
        {
            // The kernel wakes at the deadline or late, never early.
            self.now = self.now.max(deadline.secs());
        }
        if std::mem::take(&mut self.io_ready) {
            self.events.push(Event::Io);
            self.call_soon(Work::Nothing);
        }
        Ok(())
    }

    fn entry(timer: Callback) -> Callback {
        timer
    }
}

/// Asserts the bound on the memory of timers: heap entries by the number of live timers, pages by one per live timer.
///
/// # Panics
/// When it does not hold.
pub fn check_memory<T>(timers: &Timers<T>) {
    let live = timers.len();
    let (heap, slots) = timers.capacity();
    assert!(heap <= 1024 + 16 * live, "{live} timers hold memory of {heap} heap entries");
    assert!(slots <= 1024 + 128 * (2 * live + 2), "{live} timers hold memory of {slots} slots");
}
