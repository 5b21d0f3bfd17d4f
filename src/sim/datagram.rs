//! A datagram endpoint between a scripted user and a simulated socket.
//!
//! The transport is `core::drive::datagram` over `core::datagram`, as it ships; the simulation is its [`host`]: the kernel,
//! with edge-triggered readiness, the loop's queue and the user's protocol, whose callbacks take the next queued
//! [`Reaction`]: sends, closes and pauses from within any callback.
//!
//! The socket holds a bounded number of datagrams. It refuses some for good, each time they are offered, as a datagram
//! that is too long is refused; and it tells once of what an earlier one met (ECONNREFUSED), to whatever call comes next.
//! As `sendmmsg(2)`, it forgets such an error when it comes after the first datagram of a batch; the simulation then ends,
//! as an endpoint whose errors matter may not be sent to in batches.
//!
//! Invariants:
//! - each datagram that was admitted is sent once, refused once, or discarded by `abort`, a fault or the loss, in the
//!   order of the sends; a close without a fault discards none;
//! - what arrives is delivered in order, without a gap, one batch per turn at most, another one where an event may be an error's, and nothing while the user paused,
//!   nor after `close`;
//! - the protocol sees each error once, without a send or a receive that asks for it, and nothing after `lost` returned,
//!   which is never called from within a method;
//! - what ends the run of the loop is handed up, and delays what follows it at most;
//! - `pause` and `resume` alternate; an endpoint that is not paused queues at most its high mark;
//! - whatever is queued has somebody who will send it: a wait for writability, the next turn, or the cork where sends are
//!   coalesced; what is not coalesced is offered to the kernel before `sendto` returns, unless something waits;
//! - what is coalesced is offered to the kernel before anything that the user wants behind it;
//! - the child of a fork sends nothing that its parent has corked;
//! - an endpoint that reads has an event armed or queued that tells of more, and so has one that waits for writability;
//! - no flush sends more than its share.

mod host;
mod ops;

use std::collections::{BTreeSet, VecDeque};

pub use ops::{Event, Op, Reaction};

use super::source::{Edge, Source};
use crate::core::coalesce::{Coalesce, State, Thread};
use crate::core::datagram::{BATCH, Datagram, FLUSH_MAX, Policy};
use crate::core::drive::{Dir, coalesce, datagram as drive};
use crate::core::fault::Fault;
use crate::core::ready::Ready;

/// EMSGSIZE of Linux; in a simulation only its identity matters.
pub const EMSGSIZE: i32 = 90;
/// ECONNREFUSED of Linux.
pub const ECONNREFUSED: i32 = 111;
/// Turns in which everything must come to rest.
const TURNS_MAX: u32 = 1 << 17;

/// A datagram and its place among all that the user sent.
#[derive(Debug)]
struct Packet {
    number: u64,
    bytes: Vec<u8>,
}

impl AsRef<[u8]> for Packet {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// The kernel's half of the socket.
#[derive(Debug)]
struct Socket {
    capacity: usize,
    held: usize,
    /// Numbers of the datagrams that are refused for good.
    refused: BTreeSet<u64>,
    /// And of those without an address.
    misaddressed: BTreeSet<u64>,
    icmp: bool,
    /// There is an error that no call takes.
    error_queue: bool,
    arrived: u64,
    received: u64,
    closed: bool,
    /// A send found no room since room was told of.
    blocked: bool,
    /// Something happened that the next `epoll_wait(2)` tells of.
    edge: bool,
    /// Room is told of, too.
    tells_of_room: bool,
}

impl Socket {
    fn send<'a>(&mut self, packets: impl Iterator<Item = &'a Packet>) -> Result<usize, Raised> {
        assert!(!self.closed, "sent on a closed socket");
        let mut sent = 0;
        for packet in packets {
            if std::mem::take(&mut self.icmp) {
                assert_eq!(sent, 0, "an error of an earlier datagram was lost in a batch");
                return Err(Raised::Os(ECONNREFUSED));
            }
            if self.misaddressed.contains(&packet.number) {
                return if sent > 0 { Ok(sent) } else { Err(Raised::User) };
            }
            if self.refused.contains(&packet.number) {
                return if sent > 0 { Ok(sent) } else { Err(Raised::Os(EMSGSIZE)) };
            }
            if self.held == self.capacity {
                self.blocked = true;
                break;
            }
            self.held += 1;
            sent += 1;
        }
        Ok(sent)
    }

    /// The next datagram that arrived.
    fn receive(&mut self) -> Result<Option<u64>, i32> {
        assert!(!self.closed, "read from a closed socket");
        if std::mem::take(&mut self.icmp) {
            return Err(ECONNREFUSED);
        }
        let number = self.received;
        self.received += u64::from(number < self.arrived);
        Ok((number < self.arrived).then_some(number))
    }

    /// What a look finds, edge-triggered. An error alone is the end of writing to Tokio.
    fn take_edge(&mut self) -> Option<Edge> {
        let room = self.held < self.capacity;
        let (read, write) = (self.arrived > self.received, self.tells_of_room && room);
        self.blocked |= !room;
        let error = self.icmp || self.error_queue;
        let edge = Edge { read, write, read_closed: false, write_closed: error && (write || !read) };
        std::mem::take(&mut self.edge).then_some(edge)
    }

    fn arrive(&mut self, count: u8) {
        self.arrived += u64::from(count);
        self.edge |= count > 0;
    }

    fn drain(&mut self, count: usize) {
        self.held = self.held.saturating_sub(count);
        self.tell_of_room();
    }

    fn tell_of_room(&mut self) {
        if self.held < self.capacity {
            self.edge |= std::mem::take(&mut self.blocked) && self.tells_of_room;
        }
    }
}

/// What is on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raised {
    Os(i32),
    /// An exception that is no error of the kernel's.
    User,
    /// An exception that ends the run of the loop.
    Exit,
}

type Run = Result<(), Raised>;

/// An entry of the loop's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// An event of the kernel, or what the driver queued in its place.
    Io(Dir),
    Lost,
}

/// Carries out `ops` on an endpoint that is open.
///
/// # Panics
/// When an invariant does not hold.
#[must_use]
pub fn run(ops: &[Op]) -> Vec<Event> {
    let policy = match ops.first() {
        Some(Op::Connect { header }) => Policy { header: (*header).into(), batches: false, fixed: true },
        _ => Policy { header: 8, batches: true, fixed: false },
    };
    let mut sim = Sim::new(policy);
    sim.begin_turn();
    sim.handle(drive::handle_made);
    for &op in ops {
        sim.apply(op);
        sim.check();
    }
    sim.finish();
    sim.events
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a model is plain facts")]
struct Sim {
    policy: Policy,
    endpoint: Datagram<u64, Packet>,
    socket: Socket,
    source: Source,
    ready: Ready<Entry>,
    coalesce: Coalesce<()>,
    /// The thread that acts. What it does is done in a turn of the loop, except between a stop and the next turn.
    thread: Thread,
    /// What the open turn goes back to.
    turn: Option<State>,
    /// The number of the last turn.
    turns: u64,
    forked: bool,
    /// `connection_lost` is scheduled.
    losing: bool,
    reactions: VecDeque<Reaction>,
    kept: Option<Raised>,
    /// Depth of calls into user code.
    depth: u32,
    /// Datagrams that were offered from the queue since the loop called, unless user code ran.
    tried: Option<usize>,
    exits: u32,

    /// The model.
    sent: u64,
    /// A look at room while that is told of anyway found some.
    found_room: bool,
    /// Exceptions that were not reported yet.
    unreported: u32,
    /// What was admitted and is neither sent nor refused: number and length.
    queue: VecDeque<(u64, usize)>,
    delivered: u64,
    /// How often the kernel was offered something that was queued.
    offers: u32,
    /// Batches that the turn may deliver: one, and one for each event that may be an error's.
    batches: usize,
    delivered_in_turn: usize,
    paused: bool,
    reading_paused: bool,
    limits_moved: bool,
    closed: bool,
    /// Ended by `abort` or a fault: what is queued need not be sent.
    broken: bool,
    fault: Option<Fault>,
    late: u32,
    warned: u32,
    lost: bool,
    events: Vec<Event>,
}

impl Sim {
    fn new(policy: Policy) -> Self {
        let socket = Socket {
            capacity: 64,
            held: 0,
            refused: BTreeSet::new(),
            misaddressed: BTreeSet::new(),
            icmp: false,
            error_queue: false,
            arrived: 0,
            received: 0,
            closed: false,
            blocked: false,
            // Registering a file tells of what is ready.
            edge: true,
            tells_of_room: false,
        };
        Self {
            policy,
            endpoint: Datagram::new(policy),
            socket,
            source: Source::default(),
            ready: Ready::new(),
            coalesce: Coalesce::new(false),
            thread: Thread::MIN,
            turn: None,
            turns: 0,
            forked: false,
            losing: false,
            reactions: VecDeque::new(),
            depth: 0,
            tried: Some(0),
            exits: 0,
            kept: None,
            sent: 0,
            found_room: false,
            unreported: 0,
            queue: VecDeque::new(),
            delivered: 0,
            offers: 0,
            batches: 0,
            delivered_in_turn: 0,
            paused: false,
            reading_paused: false,
            limits_moved: false,
            closed: false,
            broken: false,
            fault: None,
            late: 0,
            warned: 0,
            lost: false,
            events: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Connect { .. } => {}
            Op::Send(len) => self.handle(|sim| sim.send(len)),
            Op::Burst(count) => (0..count).for_each(|len| self.handle(|sim| sim.send(len.into()))),
            Op::Size => {
                self.handle(|sim| sim.uncorking(drive::uncork));
                // A callback of the flush may have sent, and corked, more.
                let waits = self.endpoint.unsent().count() > 0 && !self.endpoint.is_corked();
                assert!(!waits || self.is_awaited(), "kept back what could be sent");
            }
            Op::Close => self.handle(Self::close),
            Op::Abort => self.handle(Self::abort),
            Op::Fail => self.handle(|sim| {
                let error = sim.break_off(Raised::Os(EMSGSIZE));
                drive::fail(sim, error)
            }),
            Op::PauseReading => self.pause_reading(),
            Op::ResumeReading => self.handle(Self::resume_reading),
            Op::SetLimits { high, low } => self.handle(|sim| sim.set_limits(high, low)),
            Op::React(reaction) => self.reactions.push_back(reaction),
            Op::Arrive(count) => self.socket.arrive(count),
            Op::Drain(count) => self.socket.drain(count.into()),
            Op::Refuse(ahead) => drop(self.socket.refused.insert(self.sent + u64::from(ahead))),
            Op::Misaddress(ahead) => drop(self.socket.misaddressed.insert(self.sent + u64::from(ahead))),
            Op::ErrorQueue(some) => {
                self.socket.error_queue = some;
                self.socket.edge |= some;
            }
            Op::Icmp => {
                // Only who sends to one address is told.
                self.socket.icmp |= self.policy.fixed;
                self.socket.edge |= self.policy.fixed;
            }
            Op::Bound(capacity) => {
                self.socket.capacity = usize::from(capacity).max(self.socket.held).max(1);
                self.socket.tell_of_room();
            }
            Op::Turn => self.run_turn(),
            Op::Stop => self.end_turn(),
            Op::Coalesce(on) => self.handle(|sim| coalesce::switch(sim, on)),
            Op::Fork => {
                if self.endpoint.is_corked() {
                    self.queue.clear();
                    if self.closed {
                        self.broken = true;
                    }
                }
                self.forked = true;
                self.follow_fork();
            }
        }
    }

    /// The kernel takes all there is, the user ends what it left open: whatever is owed must come.
    fn finish(&mut self) {
        self.reactions.clear();
        self.handle(Self::resume_reading);
        self.settle();
        if !self.endpoint.is_lost() {
            assert_eq!((self.queue.len(), self.paused), (0, false), "the kernel takes all, and yet nothing moves");
            assert_eq!(self.delivered, self.socket.arrived, "arrived, and never delivered");
            assert!(!self.socket.icmp || !self.endpoint.errors().are_trusted(), "an error that nobody was told of");
        }
        self.handle(Self::close);
        self.settle();
        assert!(self.lost && self.socket.closed, "closed, but never lost");
        for op in [Op::Send(1), Op::Close, Op::Abort, Op::PauseReading, Op::ResumeReading, Op::Turn] {
            self.apply(op);
        }
        let step = self.endpoint.handle_writable() | self.endpoint.uncork() | self.endpoint.handle_forked();
        let step = step | self.endpoint.poll_settled();
        assert!(step.is_none(), "a lost endpoint wants {step:?}");
    }

    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let before = self.events.len();
            self.socket.drain(usize::MAX);
            self.run_turn();
            self.check();
            if self.events.len() == before && self.ready.is_empty() && !self.socket.edge {
                return;
            }
        }
        unreachable!("the loop does not come to rest");
    }

    fn check(&mut self) {
        assert_eq!(self.unreported, 0, "an exception that nobody hears of");
        let dropped = self.endpoint.take_dropped();
        // What was sent is dropped with the flush, what was received and is of no use with the step that says so.
        assert!(dropped.received.is_empty() && dropped.sent.is_empty(), "datagrams that nobody drops");
        let endpoint = &self.endpoint;
        assert_eq!(endpoint.is_closing(), self.closed);
        assert_eq!(endpoint.is_reading(), !self.closed && !self.reading_paused);
        assert_eq!(endpoint.wants_read(), endpoint.is_reading());
        assert_eq!(endpoint.is_paused(), self.reading_paused);
        let left = if self.closed { 0..0 } else { self.delivered..self.socket.received };
        assert!(endpoint.undelivered().copied().eq(left.clone()), "of what was received, {left:?} is not delivered");
        if endpoint.is_lost() {
            assert!(endpoint.buffered() == 0 && self.closed && (self.losing || self.lost));
            assert!(!endpoint.is_watching_write() && !endpoint.has_undelivered());
            return;
        }
        let queued: Vec<_> = endpoint.unsent().map(|packet| (packet.number, packet.bytes.len())).collect();
        assert_eq!(queued, Vec::from(self.queue.clone()), "queued is what was neither sent nor refused, in order");
        let buffered: usize = queued.iter().map(|(_, len)| len + self.policy.header).sum();
        assert_eq!(endpoint.buffered(), buffered);
        let (low, high) = endpoint.limits();
        assert_eq!(endpoint.is_write_paused(), self.paused);
        assert!(self.paused || buffered <= high, "{buffered} queued over {high} and not paused");
        assert!(!self.paused || self.limits_moved || buffered > low, "{buffered} queued and not resumed at {low}");
        if queued.is_empty() {
            assert!(!self.closed, "closed with nothing to send, and not lost");
            // The child of a fork leaves its parent's registration alone until the next flush.
            assert!(self.forked || !endpoint.is_watching_write(), "waits for writability with nothing to send");
            assert!(self.forked || !self.socket.tells_of_room, "hears of room with nothing to send");
        } else {
            let corked = !self.coalesce.corked().is_empty() && endpoint.is_corked();
            assert!(corked || self.is_awaited(), "nobody will send what is queued");
            assert!(!corked || self.coalesces_now(), "kept back what nobody wants coalesced");
        }
        let hears = self.source.is_read_armed() || self.is_queued(Dir::Read);
        assert!(!endpoint.wants_read() || hears, "reads, and hears of nothing");
    }

    fn is_queued(&self, dir: Dir) -> bool {
        self.ready.iter().any(|&entry| entry == Entry::Io(dir))
    }

    /// The next turn, or room in the kernel, has what is queued sent.
    fn is_awaited(&self) -> bool {
        let told = self.socket.tells_of_room && self.source.is_write_armed();
        self.is_queued(Dir::Write) || (self.endpoint.is_watching_write() && told)
    }

    // ---- the loop

    /// Runs what is called from outside of any callback.
    fn handle(&mut self, call: impl FnOnce(&mut Self) -> Run) {
        let exits = self.exits;
        self.tried = Some(0);
        match call(self) {
            Ok(()) => assert_eq!(self.exits, exits, "an exit that nobody hears of"),
            Err(raised) => assert!(raised == Raised::Exit && self.exits > exits, "{raised:?} was handed up"),
        }
    }

    fn run_turn(&mut self) {
        self.end_turn();
        self.begin_turn();
        (self.batches, self.delivered_in_turn) = (1, 0);
        if let Some(edge) = self.socket.take_edge() {
            for dir in self.source.handle_edge(edge) {
                self.ready.push(Entry::Io(dir));
            }
        }
        let turn = self.ready.begin();
        while let Some(entry) = self.ready.pop(turn) {
            match entry {
                // Nothing is left in the table.
                _ if self.lost => {}
                Entry::Io(dir) => {
                    self.batches += usize::from(dir == Dir::Write);
                    self.handle(if dir == Dir::Read { drive::handle_readable } else { drive::handle_writable });
                }
                Entry::Lost => self.handle(drive::handle_lost),
            }
        }
    }

    fn begin_turn(&mut self) {
        self.turns += 1;
        let (outer, before) = coalesce::begin(self);
        assert!(before.is_ok() && self.turn.replace(outer).is_none(), "a turn within a turn");
    }

    fn end_turn(&mut self) {
        if let Some(outer) = self.turn.take() {
            self.handle(|sim| coalesce::end(sim, outer));
        }
    }

    /// The process goes on as the child of a fork that another thread made than the loop's.
    fn follow_fork(&mut self) {
        self.thread = self.thread.saturating_add(1);
        self.turn = None;
        self.handle(coalesce::handle_forked);
    }

    // ---- the user calls the transport

    fn send(&mut self, len: u32) -> Run {
        if self.endpoint.is_lost() && (self.policy.fixed || self.lost) {
            let warned = self.warned;
            self.late += 1;
            let packet = Packet { number: u64::MAX, bytes: Vec::new() };
            assert_eq!(drive::send(self, packet), Ok(()));
            let warn = self.warned > warned;
            assert_eq!(warn, self.late >= 5, "asyncio warns from the fifth send on");
            self.events.push(Event::Dropped(warn));
            return Ok(());
        }
        let packet = Packet { number: self.sent, bytes: vec![0; len as usize] };
        self.sent += 1;
        let coalesces = self.coalesces_now() && self.policy.batches && !self.endpoint.is_lost();
        if coalesces || !self.queue.is_empty() {
            assert!(!self.endpoint.is_lost(), "a send after the loss was queued");
            self.events.push(Event::Queued(len));
        }
        drive::send(self, packet)
    }

    fn close(&mut self) -> Run {
        if !self.closed {
            self.fault = Some(Fault::Closed);
        }
        self.closed = true;
        let result = self.uncorking(drive::close);
        assert!(self.endpoint.is_closing(), "an exit broke it off");
        result
    }

    fn abort(&mut self) -> Run {
        if !self.endpoint.is_lost() {
            (self.broken, self.fault) = (true, Some(Fault::Closed));
        }
        self.closed = true;
        let result = self.uncorking(drive::abort);
        assert!(self.endpoint.is_lost(), "an exit broke it off");
        self.queue.clear();
        result
    }

    /// Calls what has to have what is coalesced leave first.
    fn uncorking<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        let (corked, offers) = (self.endpoint.is_corked() && self.endpoint.buffered() > 0, self.offers);
        let result = call(self);
        assert!(!corked || self.offers > offers, "kept back what is coalesced");
        result
    }

    /// What is raised is the end of the endpoint.
    fn break_off(&mut self, raised: Raised) -> Raised {
        if !self.endpoint.is_lost() {
            self.closed = true;
            self.broken = true;
            self.fault = Some(<Self as drive::Host>::fault(&raised));
            self.queue.clear();
        }
        raised
    }

    fn pause_reading(&mut self) {
        let closing = self.endpoint.is_closing();
        let was = self.endpoint.pause_reading();
        assert_eq!(was, !closing && !self.reading_paused);
        self.reading_paused |= was;
    }

    fn resume_reading(&mut self) -> Run {
        self.reading_paused &= self.endpoint.is_closing();
        drive::resume_reading(self)
    }

    fn set_limits(&mut self, high: u8, low: u8) -> Run {
        let mark = |mark: u8| (mark > 0).then_some(usize::from(mark) * 8);
        self.limits_moved = true;
        let _contradict = self.uncorking(|sim| drive::set_limits(sim, mark(high), mark(low)))?;
        Ok(())
    }
}
