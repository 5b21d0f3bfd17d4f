//! A datagram endpoint between a scripted user and a simulated socket.
//!
//! The driver does what the layers above `core::datagram` do with each `Step`, and calls the user's protocol, whose
//! callbacks take the next queued [`Reaction`]: sends, closes and pauses from within any callback.
//!
//! The socket holds a bounded number of datagrams. It refuses some for good, each time they are offered, as a datagram
//! that is too long is refused; and it tells once of what an earlier one met (ECONNREFUSED), to whatever call comes next.
//! As `sendmmsg(2)`, it forgets such an error when it comes after the first datagram of a batch; the simulation then ends,
//! as an endpoint whose errors matter may not be sent to in batches.
//!
//! Invariants:
//! - each datagram that was admitted is sent once, refused once, or discarded by `abort`, a fault or the loss, in the
//!   order of the sends; a close without a fault discards none;
//! - what arrives is delivered in order, without a gap, one batch per turn at most, and nothing while the user paused,
//!   nor after `close`;
//! - the protocol sees each error once, and nothing after `lost` returned, which is never called from within a method;
//! - `pause` and `resume` alternate; an endpoint that is not paused queues at most its high mark;
//! - whatever is queued has somebody who will send it: a wait for writability, the next turn, or the cork where sends are
//!   coalesced; what is not coalesced is offered to the kernel before `sendto` returns, unless something waits;
//! - the child of a fork sends nothing that its parent has corked;
//! - no flush sends more than its share, none runs inside another.

mod ops;

use std::collections::{BTreeSet, VecDeque};

pub use ops::{Event, Op, Reaction};

use crate::core::datagram::{Admit, BATCH, Datagram, FLUSH_MAX, Policy, Step};
use crate::core::fault::Fault;

/// EMSGSIZE of Linux; in a simulation only its identity matters.
pub const EMSGSIZE: i32 = 90;
/// ECONNREFUSED of Linux.
pub const ECONNREFUSED: i32 = 111;

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
    icmp: bool,
    arrived: u64,
    received: u64,
    closed: bool,
}

impl Socket {
    fn send<'a>(&mut self, packets: impl Iterator<Item = &'a Packet>) -> Result<usize, i32> {
        assert!(!self.closed, "sent on a closed socket");
        let mut sent = 0;
        for packet in packets {
            if std::mem::take(&mut self.icmp) {
                assert_eq!(sent, 0, "an error of an earlier datagram was lost in a batch");
                return Err(ECONNREFUSED);
            }
            if self.refused.contains(&packet.number) {
                return if sent > 0 { Ok(sent) } else { Err(EMSGSIZE) };
            }
            if self.held == self.capacity {
                break;
            }
            self.held += 1;
            sent += 1;
        }
        Ok(sent)
    }

    fn is_writable(&self) -> bool {
        self.held < self.capacity || self.icmp
    }
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
    let step = sim.endpoint.handle_open();
    sim.carry_out(step);
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
    running: bool,
    coalesces: bool,
    /// How often the endpoint is on the list of the corked.
    corked: u32,
    /// Another flush is due in the next turn.
    again: bool,
    /// `connection_lost` is scheduled.
    losing: bool,
    reactions: VecDeque<Reaction>,
    /// Depth of calls into user code, and of flushes.
    depth: u32,
    flushing: bool,

    /// The model.
    sent: u64,
    /// What was admitted and is neither sent nor refused: number and length.
    queue: VecDeque<(u64, usize)>,
    delivered: u64,
    delivered_in_turn: usize,
    paused: bool,
    reading_paused: bool,
    limits_moved: bool,
    closed: bool,
    /// Ended by `abort` or a fault: what is queued need not be sent.
    broken: bool,
    fault: Option<Fault>,
    late: u32,
    lost: bool,
    events: Vec<Event>,
}

impl Sim {
    fn new(policy: Policy) -> Self {
        let socket = Socket {
            capacity: 64,
            held: 0,
            refused: BTreeSet::new(),
            icmp: false,
            arrived: 0,
            received: 0,
            closed: false,
        };
        Self {
            policy,
            endpoint: Datagram::new(policy),
            socket,
            running: true,
            coalesces: false,
            corked: 0,
            again: false,
            losing: false,
            reactions: VecDeque::new(),
            depth: 0,
            flushing: false,
            sent: 0,
            queue: VecDeque::new(),
            delivered: 0,
            delivered_in_turn: 0,
            paused: false,
            reading_paused: false,
            limits_moved: false,
            closed: false,
            broken: false,
            fault: None,
            late: 0,
            lost: false,
            events: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Connect { .. } => {}
            Op::Send(len) => self.send(len),
            Op::Burst(count) => (0..count).for_each(|len| self.send(len.into())),
            Op::Size => {
                self.uncork();
                // A callback of the flush may have sent, and corked, more.
                let waits = self.endpoint.unsent().count() > 0 && !self.endpoint.is_corked();
                assert!(!waits || self.endpoint.is_watching_write() || self.again, "kept back what could be sent");
            }
            Op::Close => self.close(),
            Op::Abort => self.abort(),
            Op::Fail => self.fail(Fault::Os(EMSGSIZE)),
            Op::PauseReading => self.pause_reading(),
            Op::ResumeReading => self.resume_reading(),
            Op::SetLimits { high, low } => self.set_limits(high, low),
            Op::React(reaction) => self.reactions.push_back(reaction),
            Op::Arrive(count) => self.socket.arrived += u64::from(count),
            Op::Drain(count) => self.socket.held = self.socket.held.saturating_sub(count.into()),
            Op::Refuse(ahead) => drop(self.socket.refused.insert(self.sent + u64::from(ahead))),
            // Only who sends to one address is told.
            Op::Icmp => self.socket.icmp |= self.policy.fixed,
            Op::Bound(capacity) => self.socket.capacity = usize::from(capacity).max(self.socket.held).max(1),
            Op::Turn => self.run_turn(),
            Op::Stop => {
                self.end_turn();
                self.running = false;
            }
            Op::Coalesce(coalesces) => {
                self.coalesces = coalesces;
                if !coalesces {
                    self.uncork();
                }
            }
            Op::Fork => {
                if self.endpoint.is_corked() {
                    self.queue.clear();
                    if self.closed {
                        self.broken = true;
                    }
                }
                let step = self.endpoint.handle_forked();
                self.carry_out(step);
            }
        }
    }

    /// The kernel takes all there is, the user ends what it left open: whatever is owed must come.
    fn finish(&mut self) {
        self.reactions.clear();
        self.resume_reading();
        self.settle();
        if !self.endpoint.is_lost() {
            assert_eq!((self.queue.len(), self.paused), (0, false), "the kernel takes all, and yet nothing moves");
            assert_eq!(self.delivered, self.socket.arrived, "arrived, and never delivered");
        }
        self.close();
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
        while !self.lost {
            let before = (self.delivered, self.queue.len(), self.losing, self.socket.icmp);
            self.socket.held = 0;
            self.run_turn();
            self.check();
            if before == (self.delivered, self.queue.len(), self.losing, self.socket.icmp) {
                return;
            }
        }
    }

    fn check(&self) {
        let endpoint = &self.endpoint;
        assert_eq!(endpoint.is_closing(), self.closed);
        assert_eq!(endpoint.is_reading(), !self.closed && !self.reading_paused);
        assert_eq!(endpoint.wants_read(), endpoint.is_reading());
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
            assert!(!endpoint.is_watching_write(), "waits for writability with nothing to send");
        } else {
            let corked = self.corked > 0 && endpoint.is_corked();
            assert!(corked || self.again || endpoint.is_watching_write(), "nobody will send what is queued");
            assert!(!corked || (self.running && self.coalesces), "kept back what nobody wants coalesced");
        }
    }

    // ---- the loop

    fn run_turn(&mut self) {
        self.end_turn();
        self.running = true;
        self.delivered_in_turn = 0;
        if std::mem::take(&mut self.losing) {
            self.connection_lost();
        }
        self.read_ready();
        let again = std::mem::take(&mut self.again);
        if again || (self.endpoint.is_watching_write() && !self.socket.closed && self.socket.is_writable()) {
            let step = self.endpoint.handle_writable();
            self.carry_out(step);
        }
    }

    fn end_turn(&mut self) {
        for _ in 0..std::mem::take(&mut self.corked) {
            self.uncork();
        }
    }

    fn read_ready(&mut self) {
        if !self.endpoint.wants_read() {
            return;
        }
        if !self.endpoint.has_undelivered() {
            assert!(!self.socket.closed, "read from a closed socket");
            if std::mem::take(&mut self.socket.icmp) {
                self.error_received(ECONNREFUSED);
                return;
            }
            let batch = (self.socket.arrived - self.socket.received).min(BATCH as u64);
            let first = self.socket.received;
            self.socket.received += batch;
            self.endpoint.handle_received(first..first + batch);
        }
        while let Some(number) = self.endpoint.poll_deliver() {
            assert!(!self.closed && !self.reading_paused && !self.lost, "delivered what nobody wants");
            assert_eq!(number, self.delivered, "delivered out of order");
            self.delivered += 1;
            self.delivered_in_turn += 1;
            assert!(self.delivered_in_turn <= BATCH, "more than a batch in one turn");
            self.events.push(Event::Datagram(number));
            if self.react() {
                return;
            }
        }
    }

    /// Does what a step asks for, in the order of its flags.
    fn carry_out(&mut self, step: Step) {
        if step.has(Step::SEND) {
            self.flush();
        }
        if step.has(Step::CORK) {
            assert!(self.running && self.coalesces && self.policy.batches, "corked with no turn that will end");
            self.corked += 1;
        }
        assert!(!step.has(Step::WATCH_WRITE) || self.endpoint.is_watching_write());
        if step.has(Step::AGAIN) {
            self.again = true;
        }
        if step.has(Step::PAUSE) {
            self.pause_writing();
        }
        if step.has(Step::RESUME) {
            self.resume_writing();
        }
        if step.has(Step::DISCARD) {
            // Empty at times: a callback of this step may have sent and discarded, too.
            drop(self.endpoint.take_dropped());
        }
        if step.has(Step::LOSE) {
            assert!(!self.losing && !self.lost, "lost twice");
            self.losing = true;
        }
    }

    /// Sends what is queued, as far as the kernel takes it.
    fn flush(&mut self) {
        if !self.endpoint.begin_flush() {
            return;
        }
        assert!(!std::mem::replace(&mut self.flushing, true), "a flush inside a flush");
        let mut tried = 0;
        loop {
            let batch = self.endpoint.poll_flush();
            if batch == 0 {
                break;
            }
            match self.socket.send(self.endpoint.unsent().take(batch)) {
                Ok(0) => self.endpoint.handle_blocked(),
                Ok(sent) => {
                    self.events.push(Event::Sent(sent, batch));
                    self.queue.drain(..sent);
                    tried += sent;
                    self.endpoint.handle_sent(sent);
                }
                Err(errno) => {
                    self.queue.pop_front();
                    tried += 1;
                    self.endpoint.handle_refused();
                    self.error_received(errno);
                }
            }
        }
        assert!(tried <= FLUSH_MAX, "a flush of {tried}");
        self.flushing = false;
        let step = self.endpoint.end_flush();
        self.carry_out(step);
        let settled = self.endpoint.poll_settled();
        if settled.has(Step::LOSE) {
            self.fault.get_or_insert(Fault::Closed);
        }
        self.carry_out(settled);
    }

    /// What was sent in this turn leaves early.
    fn uncork(&mut self) {
        let step = self.endpoint.uncork();
        self.carry_out(step);
    }

    // ---- the user calls the transport

    fn send(&mut self, len: u32) {
        let coalesce = self.running && self.coalesces;
        let packet = Packet { number: self.sent, bytes: vec![0; len as usize] };
        match self.endpoint.admit(coalesce) {
            Admit::Send => {
                self.sent += 1;
                assert!(self.queue.is_empty(), "sent past the queue");
                assert!(!coalesce || !self.policy.batches || self.endpoint.is_lost(), "sent what was to be coalesced");
                match self.socket.send(std::iter::once(&packet)) {
                    Ok(0) => self.enqueue(packet, Datagram::enqueue_blocked),
                    Ok(sent) => self.events.push(Event::Sent(sent, 1)),
                    Err(errno) => {
                        self.error_received(errno);
                    }
                }
            }
            Admit::Queue => {
                assert!(!self.endpoint.is_lost(), "a send after the loss was queued");
                self.sent += 1;
                self.events.push(Event::Queued(len));
                self.enqueue(packet, |endpoint, packet| endpoint.enqueue(packet, coalesce));
            }
            Admit::Drop { warn } => {
                assert!(self.lost || (self.losing && self.policy.fixed));
                self.late += 1;
                assert_eq!(warn, self.late >= 5, "asyncio warns from the fifth send on");
                self.events.push(Event::Dropped(warn));
            }
        }
    }

    fn enqueue(&mut self, packet: Packet, method: impl FnOnce(&mut Datagram<u64, Packet>, Packet) -> Step) {
        if !self.endpoint.is_lost() {
            self.queue.push_back((packet.number, packet.bytes.len()));
        }
        let step = method(&mut self.endpoint, packet);
        self.carry_out(step);
    }

    fn close(&mut self) {
        self.uncork();
        if !self.closed {
            self.closed = true;
            self.fault.get_or_insert(Fault::Closed);
        }
        let step = self.endpoint.close();
        self.carry_out(step);
    }

    fn abort(&mut self) {
        self.uncork();
        self.fail(Fault::Closed);
    }

    fn fail(&mut self, fault: Fault) {
        if !self.endpoint.is_lost() {
            self.closed = true;
            self.broken = true;
            self.fault = Some(fault);
            self.queue.clear();
        }
        let step = self.endpoint.fail(fault);
        self.carry_out(step);
    }

    fn pause_reading(&mut self) {
        let was = self.endpoint.pause_reading();
        assert_eq!(was, !self.closed && !self.reading_paused);
        self.reading_paused |= was;
    }

    fn resume_reading(&mut self) {
        self.reading_paused &= self.closed;
        let step = self.endpoint.resume_reading();
        self.carry_out(step);
    }

    fn set_limits(&mut self, high: u8, low: u8) {
        self.uncork();
        let mark = |mark: u8| (mark > 0).then_some(usize::from(mark) * 8);
        if let Ok(step) = self.endpoint.set_limits(mark(high), mark(low)) {
            self.limits_moved = true;
            self.carry_out(step);
        }
    }

    // ---- the protocol

    /// True when the callback raised what ends the run of the loop.
    fn error_received(&mut self, errno: i32) -> bool {
        assert!(!self.socket.closed, "an error after the loss");
        self.events.push(Event::Error(errno));
        self.react()
    }

    fn pause_writing(&mut self) {
        assert!(!self.lost && !self.losing, "paused after the loss");
        assert!(!std::mem::replace(&mut self.paused, true), "paused twice");
        self.limits_moved = false;
        self.events.push(Event::Pause);
        self.react();
    }

    fn resume_writing(&mut self) {
        assert!(!self.lost && !self.losing, "resumed after the loss");
        assert!(std::mem::replace(&mut self.paused, false), "resumed without a pause");
        self.events.push(Event::Resume);
        self.react();
    }

    fn connection_lost(&mut self) {
        assert_eq!(self.depth, 0, "lost from within a callback");
        assert!(!std::mem::replace(&mut self.lost, true), "lost twice");
        assert_eq!(Some(self.endpoint.fault()), self.fault, "the first fault counts");
        assert!(self.broken || self.queue.is_empty(), "closed before the last datagram was sent");
        // Who has no fixed address may send as long as the socket is open: the last time from within this callback.
        self.react();
        self.events.push(Event::Lost(self.endpoint.fault()));
        self.socket.closed = true;
        self.endpoint.handle_lost();
    }

    /// User code runs; true when it raised what ends the run of the loop.
    fn react(&mut self) -> bool {
        let reaction = self.reactions.pop_front().unwrap_or(Reaction::Nothing);
        self.depth += 1;
        match reaction {
            Reaction::Nothing | Reaction::Interrupt => {}
            Reaction::Send(len) => self.send(len),
            Reaction::SendTwice(len) => {
                self.send(len);
                self.send(len);
            }
            Reaction::Close => self.close(),
            Reaction::Abort => self.abort(),
            Reaction::PauseReading => self.pause_reading(),
            Reaction::ResumeReading => self.resume_reading(),
        }
        self.depth -= 1;
        reaction == Reaction::Interrupt
    }
}
