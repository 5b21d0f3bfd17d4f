//! A loop that coalesces: endpoints written to by several threads, in turns, turns within turns, and across forks.
//!
//! The loop is `core::drive::coalesce` over `core::coalesce`, as it ships; the simulation is its host, with endpoints that
//! only keep their order. What user code does when corked writes leave is scripted.
//!
//! Invariants:
//! - a write waits if, and only if, it is the loop's thread's, in a turn and not in what leaves, while writes are coalesced;
//! - an endpoint's writes leave in order, each once;
//! - nothing is corked outside of a turn, when a turn begins, after the loop's thread forked or switched it off, nor in a
//!   child whose fork was another thread's: what its parent has corked is the parent's;
//! - an endpoint's exception keeps no other endpoint's writes back; it is reported, or handed up if it is an exit;
//! - no context is entered but behind the outermost turn.

use std::collections::VecDeque;

use super::Decode;
use crate::core::coalesce::{Coalesce, State, Thread};
use crate::core::drive::coalesce::{self as drive, Host};

/// Endpoints, and threads.
pub const ENDPOINTS: u8 = 3;
const THREADS: u8 = 2;

/// What user code does while an endpoint's writes leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reaction {
    Nothing,
    Raise,
    /// Raises what ends the run of the loop.
    Exit,
    Write(u8),
    /// Runs a turn within this one, which writes.
    Turn(u8),
    Switch(bool),
}

/// What a thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Act {
    Write(u8),
    Switch(bool),
    /// Begins a turn, within the one that it runs. A thread beside the loop's runs none meanwhile.
    Begin,
    /// Ends its turn; by an exit, if true.
    End(bool),
    /// Forks, and what follows happens in the child.
    ForkAndFollow,
    /// Forks, and what follows happens in the parent.
    Fork,
}

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Act {
        thread: u8,
        act: Act,
    },
    /// Queues a reaction for the next endpoint whose writes leave.
    React(Reaction),
}

impl Decode for Op {
    fn from_bytes([kind, a, b, _]: [u8; 4]) -> Self {
        let endpoint = a % ENDPOINTS;
        let act = match kind % 16 {
            0..=4 => Act::Write(endpoint),
            5 => Act::Switch(!a.is_multiple_of(4)),
            6 | 7 => Act::Begin,
            8 | 9 => Act::End(a.is_multiple_of(4)),
            10 => Act::Fork,
            11 => Act::ForkAndFollow,
            _ => {
                return Self::React(match b % 8 {
                    0 | 1 => Reaction::Nothing,
                    2 => Reaction::Raise,
                    3 => Reaction::Exit,
                    4 | 5 => Reaction::Write(endpoint),
                    6 => Reaction::Turn(endpoint),
                    _ => Reaction::Switch(a.is_multiple_of(2)),
                });
            }
        };
        // The loop's thread is the busier one.
        Self::Act { thread: u8::from(b.is_multiple_of(4)) % THREADS, act }
    }
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// A write left at once.
    Sent(u8),
    Corked(u8),
    /// So many writes left by one call.
    Left(u8, usize),
    /// So many writes are the parent's.
    Forgotten(u8, usize),
}

/// Carries out `ops` on a loop that coalesces.
///
/// # Panics
/// When an invariant does not hold.
#[must_use]
pub fn run(ops: &[Op]) -> Vec<Event> {
    let mut sim = Sim::new();
    for &op in ops {
        match op {
            Op::Act { thread, act } => sim.act(thread, act),
            Op::React(reaction) => sim.reactions.push_back(reaction),
        }
        sim.check();
    }
    sim.finish();
    sim.events
}

/// What is on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raised {
    User,
    Exit,
}

type Run = Result<(), Raised>;

/// What the loop is at: the innermost last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// A turn of this thread.
    Turn(u8),
    /// What leaves, and its callbacks.
    Leaving,
}

/// Numbers of writes.
#[derive(Debug, Default)]
struct Endpoint {
    corked: Vec<u32>,
    sent: u32,
    written: u32,
}

#[derive(Debug)]
struct Sim {
    coalesce: Coalesce<u8>,
    endpoints: [Endpoint; ENDPOINTS as usize],
    /// The thread that acts.
    thread: u8,
    reactions: VecDeque<Reaction>,
    /// What the open turns go back to.
    outer: Vec<State>,

    /// The model.
    on: bool,
    frames: Vec<Frame>,
    /// Exceptions that were not reported yet, and exits that were not handed up.
    unreported: u32,
    exits: u32,
    events: Vec<Event>,
}

impl Sim {
    fn new() -> Self {
        Self {
            coalesce: Coalesce::new(true),
            endpoints: Default::default(),
            thread: 0,
            reactions: VecDeque::new(),
            outer: Vec::new(),
            on: true,
            frames: Vec::new(),
            unreported: 0,
            exits: 0,
            events: Vec::new(),
        }
    }

    fn act(&mut self, thread: u8, act: Act) {
        self.thread = thread;
        let runs = self.frames.last() == Some(&Frame::Turn(thread));
        match act {
            Act::Write(endpoint) => self.write(endpoint),
            Act::Switch(on) => self.handle(|sim| sim.switch(on)),
            Act::Begin if runs || self.frames.is_empty() => self.handle(Self::begin),
            Act::End(exit) if runs => self.handle(|sim| sim.end(exit)),
            Act::Begin | Act::End(_) => {}
            Act::Fork => self.fork(runs),
            Act::ForkAndFollow => {
                self.fork(runs);
                self.follow(runs);
            }
        }
    }

    fn finish(&mut self) {
        self.reactions.clear();
        while let Some(&Frame::Turn(thread)) = self.frames.last() {
            self.act(thread, Act::End(false));
            self.check();
        }
        assert!(self.coalesce.take().is_empty());
    }

    /// Runs what is called from outside of any callback.
    fn handle(&mut self, call: impl FnOnce(&mut Self) -> Run) {
        self.exits = 0;
        let result = call(self);
        let expected = if self.exits > 0 { Err(Raised::Exit) } else { Ok(()) };
        assert_eq!(result, expected, "exits are handed up, and nothing else");
    }

    // ---- the user

    fn wants(&self) -> bool {
        self.on && self.frames.last() == Some(&Frame::Turn(self.thread))
    }

    fn write(&mut self, at: u8) {
        let wants = self.coalesce.wants(self.thread());
        assert_eq!(wants, self.wants(), "whose writes wait");
        let endpoint = &mut self.endpoints[usize::from(at)];
        let first = endpoint.corked.is_empty();
        endpoint.corked.push(endpoint.written);
        endpoint.written += 1;
        match (wants, first) {
            (true, true) => self.coalesce.cork(at),
            (true, false) => {}
            // Behind what is corked.
            (false, _) => {
                let n = self.send(at);
                self.events.push(if n == 1 { Event::Sent(at) } else { Event::Left(at, n) });
                return;
            }
        }
        self.events.push(Event::Corked(at));
    }

    /// All that the endpoint has goes to the kernel, by one call: how many writes.
    fn send(&mut self, at: u8) -> usize {
        let endpoint = &mut self.endpoints[usize::from(at)];
        let writes = std::mem::take(&mut endpoint.corked);
        for &write in &writes {
            assert_eq!(write, endpoint.sent, "in order, each once");
            endpoint.sent += 1;
        }
        writes.len()
    }

    fn switch(&mut self, on: bool) -> Run {
        self.on = on;
        let here = self.frames.last() == Some(&Frame::Turn(self.thread));
        let result = self.leaving(|sim| drive::switch(sim, on));
        assert!(on || !here || self.is_clear(), "switched off, and kept back");
        result
    }

    // ---- the loop

    /// Calls what may have corked writes leave in the middle of a turn.
    fn leaving<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        self.frames.push(Frame::Leaving);
        let result = call(self);
        assert_eq!(self.frames.pop(), Some(Frame::Leaving));
        result
    }

    fn begin(&mut self) -> Run {
        let (outer, before) = self.leaving(drive::begin);
        self.outer.push(outer);
        self.frames.push(Frame::Turn(self.thread));
        assert!(self.is_clear(), "a turn that may wait keeps writes back");
        if before.is_err() { before.and(self.end(false)) } else { Ok(()) }
    }

    fn end(&mut self, exit: bool) -> Run {
        assert_eq!(self.frames.pop(), Some(Frame::Turn(self.thread)));
        let outer = self.outer.pop().expect("a turn is open");
        let left = self.leaving(|sim| drive::end(sim, outer));
        assert!(self.is_clear(), "kept back at the end of a turn");
        self.exits += u32::from(exit);
        if exit { Err(Raised::Exit) } else { left }
    }

    fn is_clear(&self) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.corked.is_empty())
    }

    fn fork(&mut self, runs: bool) {
        self.handle(|sim| sim.leaving(drive::leave_early));
        assert!(!runs || self.is_clear(), "a fork would have it sent twice");
    }

    /// What follows happens in the child, whose only thread is the one that forked.
    fn follow(&mut self, runs: bool) {
        if !runs {
            self.frames.clear();
            self.outer.clear();
        }
        self.handle(drive::handle_forked);
        assert!(self.is_clear(), "the child has what its parent will send");
    }

    fn check(&self) {
        assert_eq!(self.unreported, 0, "an exception that nobody hears of");
        assert!(!self.frames.is_empty() || self.is_clear(), "nobody will send what is corked");
        for (at, endpoint) in (0..).zip(&self.endpoints) {
            let listed = self.coalesce.corked().contains(&at);
            assert!(listed || endpoint.corked.is_empty(), "corked, and on no list");
            assert_eq!(endpoint.sent as usize + endpoint.corked.len(), endpoint.written as usize);
        }
        assert_eq!(self.coalesce.is_on(), self.on);
    }

    fn react(&mut self) -> Run {
        match self.reactions.pop_front().unwrap_or(Reaction::Nothing) {
            Reaction::Nothing => Ok(()),
            Reaction::Raise => {
                self.unreported += 1;
                Err(Raised::User)
            }
            Reaction::Exit => {
                self.exits += 1;
                Err(Raised::Exit)
            }
            Reaction::Write(endpoint) => {
                self.write(endpoint);
                Ok(())
            }
            Reaction::Turn(endpoint) => {
                let mut runs = false;
                let result = self.leaving(|sim| {
                    drive::turn(sim, |sim| {
                        assert!(sim.is_clear(), "a turn that may wait keeps writes back");
                        sim.frames.push(Frame::Turn(sim.thread));
                        sim.write(endpoint);
                        assert_eq!(sim.frames.pop(), Some(Frame::Turn(sim.thread)));
                        runs = true;
                        Ok(())
                    })
                });
                assert!(runs || result.is_err(), "a turn of nothing");
                assert!(self.is_clear(), "kept back at the end of a turn");
                result
            }
            Reaction::Switch(on) => self.switch(on),
        }
    }
}

impl Host for Sim {
    type Error = Raised;
    type Endpoint = u8;

    fn machine<R>(&mut self, f: impl FnOnce(&mut Coalesce<u8>) -> R) -> R {
        f(&mut self.coalesce)
    }

    fn thread(&self) -> Thread {
        Thread::MIN.saturating_add(self.thread.into())
    }

    fn uncork(&mut self, endpoint: u8, enter: bool) -> Run {
        assert_eq!(enter, self.frames == [Frame::Leaving], "a context is entered where none is");
        let n = self.send(endpoint);
        if n > 0 {
            self.events.push(Event::Left(endpoint, n));
        }
        self.react()
    }

    fn forget(&mut self, at: u8) -> Run {
        let endpoint = &mut self.endpoints[usize::from(at)];
        let forgotten = std::mem::take(&mut endpoint.corked).len();
        endpoint.written = endpoint.sent;
        self.events.push(Event::Forgotten(at, forgotten));
        Ok(())
    }

    fn contain(&mut self, result: Run) -> Run {
        if result == Err(Raised::User) {
            self.unreported -= 1;
            return Ok(());
        }
        result
    }
}
