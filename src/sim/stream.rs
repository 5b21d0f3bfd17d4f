//! A stream transport between a scripted user and a simulated link.
//!
//! The driver does what the layers above `core::stream` do with each `Step`, in the order of its flags, and calls the
//! user's protocol, whose callbacks take the next queued [`Reaction`]: writes, closes and aborts from within any callback.
//!
//! Invariants:
//! - what the link receives is what was written, in order; a close without a fault delivers all of it, anything else a
//!   prefix (the link itself checks each byte);
//! - the protocol sees `(data | pause | resume)* eof? (pause | resume)* lost`, and nothing after `lost`, which is never
//!   called from within a method of the transport;
//! - `pause` and `resume` alternate; a stream that is not paused buffers at most its high mark;
//! - no data while reading is paused, after the end, or after `close`;
//! - whatever is buffered has somebody who will send it: a wait for writability, or the cork where writes are coalesced;
//! - what is not coalesced is offered to the link before `write` returns, unless something waits for writability;
//! - the child of a fork sends nothing that its parent has corked;
//! - the writing half is shut down once, after the last byte;
//! - a reading end is lost with the end of its input, a writing end with its reader; neither has a half that stays;
//! - the fault that `lost` sees is the first one.

mod ops;
mod user;

use std::collections::VecDeque;

use super::link::{Link, Received};
use super::patterned;
pub use ops::{Event, Op, Reaction};

use crate::core::fault::Fault;
use crate::core::stream::{Admit, Policy, Step, Stream, WriteError};

/// Bytes that one read takes.
const READ_MAX: usize = 4096;
/// Reads per look.
const READS_MAX: usize = 4;
/// Chunks that one send takes.
pub const SLICES_MAX: usize = 3;
/// Stands for an errno that the user's `abort` has not.
const OTHER_ERRNO: i32 = 5;

/// Carries out `ops` on a TCP stream that is open.
///
/// # Panics
/// When an invariant does not hold.
#[must_use]
pub fn run(ops: &[Op]) -> Vec<Event> {
    run_as(Policy::TCP, ops)
}

/// Carries out `ops` on a stream of some kind that is open. What the kind has no part in does nothing.
///
/// # Panics
/// When an invariant does not hold.
#[must_use]
pub fn run_as(policy: Policy, ops: &[Op]) -> Vec<Event> {
    let mut sim = Sim::new(policy);
    let step = sim.stream.handle_open();
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
    stream: Stream<Vec<u8>>,
    link: Link,
    running: bool,
    coalesces: bool,
    /// How often the stream is on the list of the corked.
    corked: u32,
    /// `connection_lost` is scheduled.
    losing: bool,
    reactions: VecDeque<Reaction>,
    keep_open: bool,
    /// Depth of calls into user code.
    depth: u32,

    /// The model.
    written: u64,
    received: u64,
    paused: bool,
    reading_paused: bool,
    limits_moved: bool,
    ended: bool,
    eof_written: bool,
    closed: bool,
    /// Ended by `abort` or a fault: what is buffered need not be delivered.
    broken: bool,
    fault: Option<Fault>,
    drain_awaited: bool,
    eof_held: bool,
    dropped: u32,
    lost: bool,
    events: Vec<Event>,
}

impl Sim {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            stream: Stream::new(policy),
            link: Link::default(),
            running: true,
            coalesces: false,
            corked: 0,
            losing: false,
            reactions: VecDeque::new(),
            keep_open: true,
            depth: 0,
            written: 0,
            received: 0,
            paused: false,
            reading_paused: false,
            limits_moved: false,
            ended: false,
            eof_written: false,
            closed: false,
            broken: false,
            fault: None,
            drain_awaited: false,
            eof_held: false,
            dropped: 0,
            lost: false,
            events: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Write(len) => self.write(len),
            Op::WriteLines(lens) => self.write_lines(lens),
            Op::Size => {
                self.uncork();
                let blocked = self.stream.buffered() > 0;
                assert!(!blocked || self.stream.is_watching_write(), "kept back what could be sent");
            }
            Op::WriteEof => self.write_eof(),
            Op::Close => self.close(),
            Op::Abort => self.abort(),
            Op::Fail => self.fail(Fault::Os(OTHER_ERRNO)),
            Op::PauseReading => self.pause_reading(),
            Op::ResumeReading => self.resume_reading(),
            Op::SetLimits { high, low } => self.set_limits(high, low),
            Op::DrainWait(true) => {
                self.uncork();
                let empty = self.stream.begin_drain_wait();
                assert_eq!(empty, self.stream.buffered() == 0);
                self.drain_awaited = true;
            }
            Op::DrainWait(false) => {
                let step = self.stream.end_drain_wait();
                self.drain_awaited = false;
                self.eof_held = false;
                self.carry_out(step);
            }
            Op::KeepOpen(keep_open) => self.keep_open = keep_open,
            Op::React(reaction) => self.reactions.push_back(reaction),
            Op::PeerSend(len) => self.link.peer_send(len.into()),
            Op::PeerRead(len) => self.link.peer_read(len.into()),
            Op::PeerEnd => self.link.peer_end(),
            Op::PeerReset => self.link.peer_reset(),
            Op::Bound { capacity, per_call } => self.link.bound(capacity.into(), usize::from(per_call) * 64),
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
            Op::Fork => self.fork(),
        }
    }

    /// The peer reads all there is, the user ends what it left open: whatever is owed must come.
    fn finish(&mut self) {
        self.reactions.clear();
        self.link.bound(usize::MAX, usize::MAX);
        self.settle();
        if !self.stream.is_lost() {
            assert_eq!((self.stream.buffered(), self.paused), (0, false), "the peer reads, and yet nothing moves");
        }
        self.close();
        self.settle();
        assert!(self.lost && self.link.is_closed(), "closed, but never lost");
        for op in [Op::Write(1), Op::WriteEof, Op::Close, Op::Abort, Op::PauseReading, Op::ResumeReading, Op::Turn] {
            self.apply(op);
        }
        let step = self.stream.handle_writable() | self.stream.uncork() | self.stream.handle_forked();
        let step = step | self.stream.handle_end() | self.stream.handle_hangup();
        assert!(step.is_none(), "a lost stream wants {step:?}");
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            self.run_turn();
            self.link.peer_read(u64::MAX);
            self.check();
        }
    }

    fn check(&self) {
        let stream = &self.stream;
        let buffered = stream.buffered();
        assert_eq!((stream.is_closing(), stream.eof_asked()), (self.closed, self.eof_written));
        assert_eq!(stream.is_reading(), !self.closed && !self.reading_paused);
        assert_eq!(stream.wants_read(), self.policy.readable && stream.is_reading() && !self.ended);
        if stream.is_lost() {
            assert!(buffered == 0 && self.closed && (self.losing || self.lost));
            return;
        }
        assert_eq!(buffered as u64, self.written - self.link.accepted(), "buffered is what the link has not yet");
        let (low, high) = stream.limits();
        assert_eq!(stream.is_write_paused(), self.paused);
        assert!(self.paused || buffered <= high, "{buffered} buffered over {high} and not paused");
        assert!(!self.paused || self.limits_moved || buffered > low, "{buffered} buffered and not resumed at {low}");
        if buffered > 0 {
            let flushed = self.corked > 0 && stream.is_corked();
            assert!(flushed || stream.is_watching_write(), "nobody will send what is buffered");
            assert!(!(flushed && stream.is_watching_write()), "corked, and refused by the kernel");
            assert!(!flushed || (self.running && self.coalesces), "kept back what nobody wants coalesced");
        } else {
            assert!(!self.closed, "closed with nothing to send, and not lost");
            assert_eq!(self.link.is_shut(), self.eof_written && !self.eof_held);
        }
    }

    // ---- the loop

    fn run_turn(&mut self) {
        self.end_turn();
        self.running = true;
        if std::mem::take(&mut self.losing) {
            self.connection_lost();
        }
        self.read_ready();
        if self.policy.hangup_closes && self.link.is_reset() {
            self.hang_up();
        }
        if self.stream.is_watching_write() && !self.link.is_closed() && self.link.is_writable() {
            let step = self.stream.handle_writable();
            self.carry_out(step);
        }
    }

    fn end_turn(&mut self) {
        for _ in 0..std::mem::take(&mut self.corked) {
            self.uncork();
        }
    }

    fn read_ready(&mut self) {
        for _ in 0..READS_MAX {
            if !self.stream.wants_read() || !self.link.is_readable() {
                return;
            }
            match self.link.recv(READ_MAX) {
                Ok(Received::Data(bytes)) => self.data_received(&bytes),
                Ok(Received::End) => {
                    if self.policy.end_closes {
                        (self.closed, self.fault) = (true, Some(Fault::Closed));
                    }
                    let step = self.stream.handle_end();
                    self.carry_out(step);
                }
                Ok(Received::Nothing) => return,
                Err(errno) => self.fail(Fault::Os(errno)),
            }
        }
    }

    /// The peer of a stream that is only written is found to be gone.
    fn hang_up(&mut self) {
        self.uncork();
        if !self.stream.is_lost() {
            self.broken = self.stream.buffered() > 0;
            self.fault = Some(if self.broken { Fault::Os(super::link::EPIPE) } else { Fault::Closed });
            self.closed = true;
        }
        let step = self.stream.handle_hangup();
        self.carry_out(step);
        assert!(self.stream.is_lost());
    }

    /// Does what a step asks for, in the order of its flags.
    fn carry_out(&mut self, step: Step) {
        if step.has(Step::SEND) {
            self.flush();
        }
        if step.has(Step::CORK) {
            assert!(self.running && self.coalesces, "corked with no turn that will end");
            self.corked += 1;
        }
        if step.has(Step::WATCH_WRITE) {
            assert!(self.stream.is_watching_write());
        }
        if step.has(Step::PAUSE) {
            self.pause_writing();
        }
        if step.has(Step::RESUME) {
            self.resume_writing();
        }
        if step.has(Step::EOF) {
            self.eof_received();
        }
        if step.has(Step::DRAINED) {
            assert!(self.drain_awaited && self.stream.buffered() == 0);
            self.events.push(Event::Drained);
        }
        if step.has(Step::SHUTDOWN) {
            assert!(self.eof_written && !self.link.is_shut(), "the writing half is shut down once");
            assert_eq!(self.link.accepted(), self.written, "shut down before the last byte");
            self.link.shutdown();
            self.events.push(Event::Shutdown);
        }
        if step.has(Step::DISCARD) {
            assert!(!self.stream.take_discarded().is_empty());
        }
        if step.has(Step::LOSE) {
            assert!(!self.losing && !self.lost, "lost twice");
            self.losing = true;
        }
    }

    /// Sends what is queued, as far as the link takes it.
    fn flush(&mut self) {
        let mut more = true;
        // A callback may have flushed what was left, too.
        while more && self.stream.buffered() > 0 {
            let offered = self.stream.unsent().take(SLICES_MAX).map(<[u8]>::len).sum();
            let sent = match self.link.send(self.stream.unsent().take(SLICES_MAX)) {
                Ok(sent) => sent,
                Err(errno) => return self.fail(Fault::Os(errno)),
            };
            self.events.push(Event::Sent(sent, offered));
            let resume = self.stream.handle_sent(sent);
            if sent < offered {
                let watch = self.stream.handle_blocked() | self.stream.poll_grown();
                self.carry_out(resume);
                self.carry_out(watch);
                break;
            }
            // Asked before the user runs: who writes then sees to it.
            more = self.stream.buffered() > 0;
            self.carry_out(resume);
        }
        let step = self.stream.poll_settled();
        self.carry_out(step);
    }

    /// What was written in this turn leaves early.
    fn uncork(&mut self) {
        let step = self.stream.uncork();
        self.carry_out(step);
    }

    /// The process goes on as the child of a fork whose parent could not send what is corked: another thread runs the loop.
    fn fork(&mut self) {
        if self.stream.is_corked() {
            // The link goes on with what the child writes.
            self.written = self.link.accepted();
            if self.eof_written {
                self.link.shutdown();
            }
        }
        let step = self.stream.handle_forked();
        self.carry_out(step);
    }

    // ---- the user calls the transport

    fn write(&mut self, len: u32) {
        if len == 0 || !self.policy.writable {
            return;
        }
        let coalesce = self.running && self.coalesces;
        let admitted = match self.stream.admit(coalesce) {
            Ok(admitted) => admitted,
            Err(error) => return self.handle_refused(error),
        };
        assert!(!self.eof_written && !self.drain_awaited, "a write that must be refused was admitted");
        assert!(
            matches!(admitted, Admit::Drop { .. }) || !self.stream.is_lost(),
            "a write after the loss was admitted"
        );
        assert!(
            matches!(admitted, Admit::Drop { .. }) || !self.closed || self.policy.half_close,
            "a write after the end was admitted"
        );
        let bytes = patterned(self.written, len as usize);
        match admitted {
            Admit::Send => {
                self.written += u64::from(len);
                assert!(!coalesce && self.stream.buffered() == 0, "sent past the queue");
                match self.link.send(std::iter::once(bytes.as_slice())) {
                    Ok(sent) => {
                        self.events.push(Event::Sent(sent, bytes.len()));
                        if sent < bytes.len() {
                            let step = self.stream.enqueue_rest(bytes, sent);
                            self.carry_out(step);
                        }
                    }
                    Err(errno) => self.fail(Fault::Os(errno)),
                }
            }
            Admit::Queue => {
                self.written += u64::from(len);
                self.events.push(Event::Queued(len));
                let step = self.stream.enqueue([bytes], coalesce);
                self.carry_out(step);
            }
            Admit::Drop { warn } => self.handle_dropped(warn),
        }
    }

    fn write_lines(&mut self, lens: [u8; 3]) {
        let mut from = self.written;
        let chunks = lens.map(|len| {
            let chunk = patterned(from, len.into());
            from += u64::from(len);
            chunk
        });
        if from == self.written || !self.policy.writable {
            return;
        }
        let coalesce = self.running && self.coalesces;
        match self.stream.admit(coalesce) {
            Ok(Admit::Send | Admit::Queue) => {
                self.written = from;
                let step = self.stream.enqueue(chunks, coalesce);
                self.carry_out(step);
            }
            Ok(Admit::Drop { warn }) => self.handle_dropped(warn),
            Err(error) => self.handle_refused(error),
        }
    }

    fn handle_dropped(&mut self, warn: bool) {
        assert!(self.stream.is_lost() || (self.closed && !self.policy.half_close));
        self.dropped += 1;
        assert_eq!(warn, self.dropped >= 5, "asyncio warns from the fifth write on");
        self.events.push(Event::Dropped(warn));
    }

    fn handle_refused(&mut self, error: WriteError) {
        let expected = if self.eof_written { WriteError::AfterEof } else { WriteError::DrainAwaited };
        assert_eq!((error, self.eof_written || self.drain_awaited), (expected, true));
        assert_eq!(self.stream.check_write(), Err(error));
        self.events.push(Event::Refused(error));
    }

    fn abort(&mut self) {
        self.uncork();
        self.fail(Fault::Closed);
    }

    fn write_eof(&mut self) {
        self.uncork();
        if !self.policy.half_close {
            if self.policy.writable {
                self.close_by(Stream::write_eof);
            }
            return;
        }
        if !self.closed && !self.eof_written {
            self.eof_written = true;
            self.eof_held = self.drain_awaited;
        }
        let step = self.stream.write_eof();
        self.carry_out(step);
        assert_eq!(self.stream.eof_asked(), self.eof_written);
    }

    fn close(&mut self) {
        self.uncork();
        self.close_by(Stream::close);
    }

    fn close_by(&mut self, method: fn(&mut Stream<Vec<u8>>) -> Step) {
        if !self.closed {
            self.fault = Some(Fault::Closed);
        }
        self.closed = true;
        let step = method(&mut self.stream);
        self.carry_out(step);
        assert!(self.stream.is_closing());
    }

    fn fail(&mut self, fault: Fault) {
        if !self.stream.is_lost() {
            self.fault = Some(fault);
            self.broken = true;
        }
        self.closed = true;
        let step = self.stream.fail(fault);
        self.carry_out(step);
        assert!(self.stream.is_lost() && self.stream.buffered() == 0);
    }

    fn pause_reading(&mut self) {
        let paused = self.stream.pause_reading();
        assert_eq!(paused, !self.reading_paused && !self.closed);
        self.reading_paused |= paused;
    }

    fn resume_reading(&mut self) {
        let step = self.stream.resume_reading();
        let resumed = self.reading_paused && !self.closed;
        self.reading_paused &= !resumed;
        assert_eq!(step.has(Step::WATCH_READ), resumed && !self.ended && self.policy.readable);
        self.carry_out(step);
    }

    fn set_limits(&mut self, high: u8, low: u8) {
        self.uncork();
        let given = |mark: u8| (mark > 0).then_some(usize::from(mark) * 128);
        let before = self.stream.limits();
        match self.stream.set_limits(given(high), given(low)) {
            Ok(step) => {
                self.limits_moved = true;
                let (low, high) = self.stream.limits();
                assert!(low <= high);
                self.carry_out(step);
            }
            Err(error) => {
                assert!(error.low > error.high && self.stream.limits() == before);
            }
        }
    }
}
