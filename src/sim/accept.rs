//! A listener between a backlog, which peers fill, and a user whose protocol factory does what it likes.
//!
//! The listener is `core::drive::accept` over `core::accept`, as it ships; the simulation is its host: the kernel, with
//! edge-triggered readiness, and the loop, with its queue, timers and turns within turns.
//!
//! Invariants:
//! - connections are accepted in order, each once, and all of them while the listener serves;
//! - a turn accepts no more than one burst, aborted connections and interrupted calls counted;
//! - a listener that cannot accept tells why, once, and makes no call for a second;
//! - a listener that serves has one thing that makes it go on, and one only: its event, a place in the queue, or a timer;
//! - no call is made on a file that was closed under the listener, nor by a listener that was stopped;
//! - only an exit breaks a burst off, and it is handed up.

use std::collections::VecDeque;

use super::Decode;
use super::source::{Edge, Source};
use crate::core::accept::{Accept, AcceptError};
use crate::core::drive::accept::{self as drive, Host};
use crate::core::ready::Ready;

/// Connections that a turn accepts at most.
pub const BURST: u32 = 3;
/// Turns in which everything must come to rest.
const TURNS_MAX: u32 = 1 << 16;

/// What a protocol factory does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Nothing,
    /// Raises what ends the run of the loop.
    Exit,
    /// Closes the server.
    Stop,
    /// Closes the socket under the server.
    CloseFile,
    /// Has so many peers connect.
    Arrive(u8),
    /// Runs a turn of the loop within this one.
    Turn,
}

/// An operation of a peer, of the system, of the user or of the loop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// So many peers connect.
    Arrive(u8),
    /// So many peers connect while the event is armed: behind the call that found nobody.
    Race(u8),
    /// A peer connects and gives up.
    Abort,
    /// A call fails, whatever is queued.
    Refuse(AcceptError),
    /// Queues a reaction for the next connection.
    React(Reaction),
    Stop,
    CloseFile,
    /// The clock goes on by so many milliseconds.
    Advance(u16),
    Turn,
}

impl Decode for Op {
    fn from_bytes([kind, a, low, high]: [u8; 4]) -> Self {
        match kind % 16 {
            0..=3 => Self::Arrive(a % 8),
            4 if a.is_multiple_of(2) => Self::Race(low % 4),
            4 => Self::Abort,
            5 | 6 => Self::Refuse(match a % 8 {
                0 | 1 => AcceptError::Interrupted,
                2 => AcceptError::Aborted,
                3 => AcceptError::WouldBlock,
                4..=6 => AcceptError::OutOfResources,
                _ => AcceptError::Other(low.into()),
            }),
            7..=9 => Self::React(match a % 16 {
                0..=4 => Reaction::Nothing,
                5..=8 => Reaction::Exit,
                9 => Reaction::Stop,
                10 => Reaction::CloseFile,
                11..=13 => Reaction::Arrive(low % 8),
                _ => Reaction::Turn,
            }),
            10 if a.is_multiple_of(16) => Self::Stop,
            10 if a == 1 => Self::CloseFile,
            10..=12 => Self::Advance(u16::from_le_bytes([low, high]) % 2048),
            _ => Self::Turn,
        }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Accepted(u32),
    /// A call failed with this.
    Refused(AcceptError),
    Reported(AcceptError),
    /// The factory raised what ends the run of the loop.
    Exit,
    /// The listener found its socket closed.
    Released,
}

/// Carries out `ops` on a listener that serves.
///
/// # Panics
/// When an invariant does not hold.
#[must_use]
pub fn run(ops: &[Op]) -> Vec<Event> {
    let mut sim = Sim::new();
    drive::start(&mut sim);
    for &op in ops {
        sim.apply(op);
        sim.check();
    }
    sim.finish();
    sim.events
}

/// An exit, on its way up.
#[derive(Debug, PartialEq, Eq)]
struct Exit;

/// What waits in the backlog.
#[derive(Clone, Copy, Debug)]
enum Peer {
    Connected(u32),
    GaveUp,
}

#[derive(Debug)]
struct Sim {
    accept: Accept,
    source: Source,
    /// The loop's queue: each entry is the listener's.
    ready: Ready<()>,
    /// Milliseconds.
    now: u64,
    timers: Vec<u64>,
    backlog: VecDeque<Peer>,
    /// Something came into the backlog since the last look.
    edge: bool,
    races: VecDeque<u8>,
    refusals: VecDeque<AcceptError>,
    reactions: VecDeque<Reaction>,

    /// The model.
    arrived: u32,
    accepted: u32,
    /// Calls of the turn that count.
    calls: u32,
    rests_until: u64,
    unreported: Option<AcceptError>,
    exits: u32,
    stopped: bool,
    file_closed: bool,
    events: Vec<Event>,
}

impl Sim {
    fn new() -> Self {
        Self {
            accept: Accept::new(BURST),
            source: Source::default(),
            ready: Ready::new(),
            now: 0,
            timers: Vec::new(),
            backlog: VecDeque::new(),
            edge: false,
            races: VecDeque::new(),
            refusals: VecDeque::new(),
            reactions: VecDeque::new(),
            arrived: 0,
            accepted: 0,
            calls: 0,
            rests_until: 0,
            unreported: None,
            exits: 0,
            stopped: false,
            file_closed: false,
            events: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Arrive(n) => self.arrive(n),
            Op::Race(n) => self.races.push_back(n),
            Op::Abort => {
                self.backlog.push_back(Peer::GaveUp);
                self.edge = true;
            }
            Op::Refuse(class) => self.refusals.push_back(class),
            Op::React(reaction) => self.reactions.push_back(reaction),
            Op::Stop => self.stop(),
            Op::CloseFile => self.file_closed = true,
            Op::Advance(millis) => self.now += u64::from(millis),
            Op::Turn => self.run_turn(),
        }
    }

    fn arrive(&mut self, n: u8) {
        for _ in 0..n {
            self.backlog.push_back(Peer::Connected(self.arrived));
            self.arrived += 1;
            self.edge = true;
        }
    }

    fn stop(&mut self) {
        self.accept.stop();
        self.stopped = true;
    }

    fn run_turn(&mut self) {
        if std::mem::take(&mut self.edge) {
            let edge = Edge { read: true, ..Edge::default() };
            for _dir in self.source.handle_edge(edge) {
                self.ready.push(());
            }
        }
        let outer = std::mem::take(&mut self.calls);
        let turn = self.ready.begin();
        while self.ready.pop(turn).is_some() {
            self.handle(drive::handle_ready);
        }
        let due = self.timers.len();
        self.timers.retain(|&deadline| deadline > self.now);
        for _ in self.timers.len()..due {
            self.handle(drive::handle_rested);
        }
        self.calls = outer;
    }

    /// Runs what is called by the turn.
    fn handle(&mut self, call: impl FnOnce(&mut Self) -> Result<(), Exit>) {
        let exits = self.exits;
        // Turns within turns meet their exits themselves.
        let (result, inner) = (call(self), self.exits);
        assert_eq!(result.is_err(), inner > exits, "an exit is handed up, and nothing else");
        self.exits = exits;
        assert_eq!(self.unreported, None, "nobody hears of why nothing is accepted");
    }

    fn check(&self) {
        if self.stopped || self.file_closed {
            return;
        }
        let goes_on = usize::from(self.source.is_read_armed()) + self.ready.len() + self.timers.len();
        assert_eq!(goes_on, 1, "a listener that serves has one thing that makes it go on");
        assert!(!self.source.is_read_armed() || self.backlog.is_empty() || self.edge, "waits behind what is queued");
    }

    /// Nothing stands in the way any more: whatever is queued is accepted, by a listener that serves.
    fn finish(&mut self) {
        self.reactions.clear();
        self.refusals.clear();
        self.races.clear();
        self.now += 1000;
        for _ in 0..TURNS_MAX {
            self.run_turn();
            self.check();
            if self.ready.is_empty() {
                break;
            }
        }
        assert!(self.ready.is_empty(), "the loop does not come to rest");
        if !self.stopped && !self.file_closed {
            assert!(self.backlog.is_empty(), "connected, and never accepted");
            assert_eq!(self.accepted, self.arrived);
        }
        let accepted = self.accepted;
        self.stop();
        self.arrive(1);
        self.run_turn();
        assert_eq!((self.accepted, self.ready.len()), (accepted, 0), "a stopped listener went on");
    }
}

impl Host for Sim {
    type Error = Exit;
    type File = ();
    type Connection = u32;
    type Refusal = ();

    fn machine<R>(&mut self, f: impl FnOnce(&mut Accept) -> R) -> R {
        f(&mut self.accept)
    }

    fn file(&mut self) -> Option<()> {
        (!self.stopped && !self.file_closed).then_some(())
    }

    fn accept(&mut self, (): ()) -> Result<u32, (AcceptError, ())> {
        assert!(!self.file_closed, "accepted from what is another's by now");
        assert!(!self.stopped, "accepted by a stopped listener");
        assert!(self.now >= self.rests_until, "no rest for a second");
        let class = match self.refusals.pop_front() {
            // The kernel says that of an empty backlog only.
            Some(AcceptError::WouldBlock) | None => match self.backlog.pop_front() {
                Some(Peer::Connected(id)) => {
                    assert_eq!(id, self.accepted, "out of order");
                    self.accepted += 1;
                    self.count();
                    self.events.push(Event::Accepted(id));
                    return Ok(id);
                }
                Some(Peer::GaveUp) => AcceptError::Aborted,
                None => AcceptError::WouldBlock,
            },
            Some(class) => class,
        };
        match class {
            AcceptError::WouldBlock => {}
            AcceptError::Interrupted | AcceptError::Aborted => self.count(),
            AcceptError::OutOfResources | AcceptError::Other(_) => {
                self.rests_until = self.now + 1000;
                self.unreported = Some(class);
            }
        }
        self.events.push(Event::Refused(class));
        Err((class, ()))
    }

    fn connect(&mut self, _connection: u32) -> Result<(), Exit> {
        match self.reactions.pop_front().unwrap_or(Reaction::Nothing) {
            Reaction::Nothing => {}
            Reaction::Exit => {
                self.exits += 1;
                self.events.push(Event::Exit);
                return Err(Exit);
            }
            Reaction::Stop => self.stop(),
            Reaction::CloseFile => self.file_closed = true,
            Reaction::Arrive(n) => self.arrive(n),
            Reaction::Turn => self.run_turn(),
        }
        Ok(())
    }

    fn watch(&mut self, empty: bool) -> bool {
        assert!(!self.stopped, "a stopped listener waits for nothing");
        let came = if empty { self.races.pop_front().unwrap_or(0) } else { 0 };
        if came == 0 {
            return if empty { self.source.clear_read() } else { self.source.arm_read() };
        }
        self.arrive(came);
        self.edge = false;
        // Nobody is woken, as the event is not armed yet.
        assert_eq!(self.source.handle_edge(Edge { read: true, ..Edge::default() }).count(), 0);
        self.source.arm_read()
    }

    fn queue(&mut self) {
        assert!(!self.stopped, "a stopped listener does not go on");
        self.ready.push(());
    }

    fn rest(&mut self, secs: f64) -> Result<(), Exit> {
        assert!((secs - 1.0).abs() < f64::EPSILON, "asyncio's ACCEPT_RETRY_DELAY");
        self.timers.push(self.now + 1000);
        Ok(())
    }

    fn report(&mut self, class: AcceptError, (): ()) -> Result<(), Exit> {
        assert_eq!(self.unreported.take(), Some(class), "told of it once, and of the right error");
        self.events.push(Event::Reported(class));
        Ok(())
    }

    fn dispose(&mut self) {
        self.events.push(Event::Released);
    }
}

impl Sim {
    fn count(&mut self) {
        self.calls += 1;
        assert!(self.calls <= BURST, "more than one burst in a turn");
    }
}
