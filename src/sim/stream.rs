//! A stream transport between a scripted user and a simulated link.
//!
//! The transport is `core::drive::stream` over `core::stream`, as it ships; the simulation is its [`host`]: the kernel, with
//! edge-triggered readiness, the loop's queue and the user's protocol, whose callbacks take the next queued [`Reaction`]:
//! writes, closes and aborts from within any callback.
//!
//! Invariants:
//! - what the link receives is what was written, in order; a close without a fault delivers all of it, anything else a
//!   prefix (the link itself checks each byte);
//! - the protocol sees `(data | pause | resume)* eof? (pause | resume)* lost`, and nothing after `lost`, which is never
//!   called from within a method of the transport;
//! - `pause` and `resume` alternate; a stream that is not paused buffers at most its high mark;
//! - no data while reading is paused, after the end, or after `close`;
//! - what arrives at a stream that reads is delivered, and the end behind it; it reads once in a turn;
//! - a stream that reads has an event armed or queued that tells of more, and so has one that waits for writability;
//! - whatever is buffered has somebody who will send it: a wait for writability, or the cork where writes are coalesced;
//! - what is not coalesced is offered to the link before `write` returns, unless something waits for writability;
//! - what is coalesced is offered to the link before anything that the user wants behind it;
//! - the child of a fork sends nothing that its parent has corked;
//! - the writing half is shut down once, after the last byte;
//! - a reading end is lost with the end of its input, a writing end with its reader; neither has a half that stays;
//! - the fault that `lost` sees is the first one;
//! - what user code raises is reported once, or handed up where it ends the run of the loop;
//! - no system call is made on a file that was closed under the transport.

mod host;
mod ops;
mod user;

use std::collections::VecDeque;

use super::link::Link;
use super::patterned;
use super::source::Source;
pub use ops::{Event, Op, Reaction};

use crate::core::coalesce::{Coalesce, State, Thread};
use crate::core::drive::{Dir, coalesce, stream as drive};
use crate::core::fault::Fault;
use crate::core::ready::Ready;
use crate::core::stream::{Policy, Stream, WriteError};

/// Bytes that one read takes.
const READ_MAX: usize = 4096;
/// Chunks that one send takes.
pub const SLICES_MAX: usize = 3;
/// Stands for an errno that the user's `abort` has not.
const OTHER_ERRNO: i32 = 5;
/// EBADF of Linux.
const EBADF: i32 = 9;
/// ENOTCONN of Linux.
const ENOTCONN: i32 = 107;
/// Turns in which everything must come to rest.
const TURNS_MAX: u32 = 1 << 17;

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
    sim.begin_turn();
    sim.handle(drive::handle_made);
    for &op in ops {
        sim.apply(op);
        sim.check();
    }
    sim.finish();
    sim.events
}

/// What is on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Raised {
    Os(i32),
    /// An exception of a callback.
    User,
    /// An exception that ends the run of the loop.
    Exit,
    Refused(WriteError),
}

type Run = Result<(), Raised>;

/// An entry of the loop's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// An event of the kernel, or what the driver queued in its place.
    Io(Dir),
    Lost,
    /// The user is called.
    User(Reaction),
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a model is plain facts")]
struct Sim {
    policy: Policy,
    stream: Stream<Vec<u8>>,
    link: Link,
    source: Source,
    ready: Ready<Entry>,
    coalesce: Coalesce<()>,
    /// The thread that acts. What it does is done in a turn of the loop, except between a stop and the next turn.
    thread: Thread,
    /// What the open turn goes back to.
    turn: Option<State>,
    /// The number of the last turn.
    turns: u64,
    /// `connection_lost` is scheduled.
    losing: bool,
    reactions: VecDeque<Reaction>,
    keep_open: bool,
    /// The protocol lends its own buffers.
    buffered: bool,
    /// The user closed the file under the transport.
    file_closed: bool,
    /// The kernel says so of each shutdown.
    shutdown_fails: bool,
    kept: Option<Raised>,
    /// Depth of calls into user code.
    depth: u32,

    /// The model.
    written: u64,
    received: u64,
    /// How often the link was offered something.
    offers: u32,
    /// Something was read in this turn.
    has_read: bool,
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
    /// Who waits is to be told once the outbox is empty, or the socket that it was lent has room.
    drain_owed: bool,
    eof_held: bool,
    dropped: u32,
    warned: u32,
    /// Exceptions that were not reported yet, and those that ended the run of the loop.
    unreported: u32,
    exits: u32,
    lost: bool,
    events: Vec<Event>,
}

impl Sim {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            stream: Stream::new(policy),
            link: Link::default(),
            source: Source::default(),
            ready: Ready::new(),
            coalesce: Coalesce::new(false),
            thread: Thread::MIN,
            turn: None,
            turns: 0,
            losing: false,
            reactions: VecDeque::new(),
            keep_open: true,
            buffered: false,
            file_closed: false,
            shutdown_fails: false,
            kept: None,
            depth: 0,
            written: 0,
            received: 0,
            offers: 0,
            has_read: false,
            paused: false,
            reading_paused: false,
            limits_moved: false,
            ended: false,
            eof_written: false,
            closed: false,
            broken: false,
            fault: None,
            drain_awaited: false,
            drain_owed: false,
            eof_held: false,
            dropped: 0,
            warned: 0,
            unreported: 0,
            exits: 0,
            lost: false,
            events: Vec::new(),
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Write(len) => self.handle(|sim| sim.write(len)),
            Op::WriteLines(lens) => self.handle(|sim| sim.write_lines(lens)),
            Op::Size => {
                self.handle(|sim| sim.uncorking(drive::uncork));
                let blocked = self.stream.buffered() > 0;
                assert!(!blocked || self.stream.is_watching_write(), "kept back what could be sent");
            }
            Op::WriteEof => self.handle(Self::write_eof),
            Op::Close => self.handle(Self::close),
            Op::Abort => self.handle(Self::abort),
            Op::Fail => self.handle(|sim| {
                let error = sim.break_off(Raised::Os(OTHER_ERRNO));
                drive::fail(sim, error)
            }),
            Op::PauseReading => self.pause_reading(),
            Op::ResumeReading => self.handle(Self::resume_reading),
            Op::SetLimits { high, low } => self.handle(|sim| sim.set_limits(high, low)),
            Op::DrainWait(true) => {
                self.handle(drive::uncork);
                let empty = self.stream.begin_drain_wait();
                assert_eq!(empty, self.stream.buffered() == 0);
                (self.drain_awaited, self.drain_owed) = (true, !empty);
            }
            Op::DrainWait(false) => {
                (self.drain_awaited, self.drain_owed, self.eof_held) = (false, false, false);
                self.handle(|sim| {
                    let result = drive::end_drain_wait(sim);
                    sim.excuse_shutdown(result)
                });
            }
            Op::Lent(len) => self.handle(|sim| sim.send_lent(len)),
            Op::KeepOpen(keep_open) => self.keep_open = keep_open,
            Op::Buffered(buffered) => self.buffered = buffered,
            Op::CloseFile => self.file_closed = true,
            Op::FailShutdown => self.shutdown_fails = true,
            Op::React(reaction) => self.reactions.push_back(reaction),
            // What it raised would be the loop's to report.
            Op::CallSoon(Reaction::Raise) => {}
            Op::CallSoon(reaction) => self.ready.push(Entry::User(reaction)),
            Op::PeerSend(len) => self.link.peer_send(len.into()),
            Op::PeerRead(len) => self.link.peer_read(len.into()),
            Op::PeerEnd => self.link.peer_end(),
            Op::PeerReset => self.link.peer_reset(),
            Op::Bound { capacity, per_call } => self.link.bound(capacity.into(), usize::from(per_call) * 64),
            Op::Turn => self.run_turn(),
            Op::Stop => self.end_turn(),
            Op::Coalesce(on) => self.handle(|sim| coalesce::switch(sim, on)),
            Op::Fork => self.fork(),
        }
    }

    /// The peer reads all there is, the user ends what it left open: whatever is owed must come.
    fn finish(&mut self) {
        self.reactions.clear();
        self.link.bound(usize::MAX, usize::MAX);
        self.handle(Self::resume_reading);
        self.settle();
        if !self.stream.is_lost() {
            assert_eq!((self.stream.buffered(), self.paused), (0, false), "the peer reads, and yet nothing moves");
            assert!(!self.stream.wants_read() || !self.link.is_readable(), "arrived, and never delivered");
            assert!(!self.drain_owed, "there is room, and who waits for that is not told");
        }
        self.handle(Self::close);
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
        for _ in 0..TURNS_MAX {
            let before = self.events.len();
            self.run_turn();
            self.link.peer_read(u64::MAX);
            self.check();
            if self.events.len() == before && self.ready.is_empty() && !self.link.has_edge() {
                return;
            }
        }
        unreachable!("the loop does not come to rest");
    }

    fn check(&mut self) {
        let discarded = self.stream.take_discarded();
        assert!(discarded.is_empty(), "chunks that nobody drops");
        assert_eq!(self.unreported, 0, "an exception that nobody hears of");
        let stream = &self.stream;
        let buffered = stream.buffered();
        assert_eq!((stream.is_closing(), stream.eof_asked()), (self.closed, self.eof_written));
        assert_eq!((stream.is_paused(), stream.is_drain_awaited()), (self.reading_paused, self.drain_awaited));
        assert_eq!(stream.is_reading(), !self.closed && !self.reading_paused);
        assert_eq!(stream.lost_count(), if stream.is_lost() { self.dropped + 1 } else { 0 });
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
            let flushed = !self.coalesce.corked().is_empty() && stream.is_corked();
            assert!(flushed || stream.is_watching_write(), "nobody will send what is buffered");
            assert!(!(flushed && stream.is_watching_write()), "corked, and refused by the kernel");
            assert!(!flushed || self.coalesces_now(), "kept back what nobody wants coalesced");
        } else {
            assert!(!self.closed, "closed with nothing to send, and not lost");
            assert!(self.file_closed || self.link.is_shut() == (self.eof_written && !self.eof_held));
            assert!(!self.drain_owed || stream.is_watching_write(), "empty, and who waits for that is not told");
        }
        let queued = |dir| self.ready.iter().any(|&entry| entry == Entry::Io(dir));
        assert!(
            !stream.wants_read() || self.source.is_read_armed() || queued(Dir::Read),
            "reads, and hears of nothing"
        );
        let waits = stream.is_watching_write();
        assert!(!waits || self.source.is_write_armed() || queued(Dir::Write), "waits for room, and hears of none");
    }

    // ---- the loop

    /// Runs what is called from outside of any callback.
    fn handle(&mut self, call: impl FnOnce(&mut Self) -> Run) {
        let exits = self.exits;
        match call(self) {
            Ok(()) => assert_eq!(self.exits, exits, "an exit that nobody hears of"),
            Err(raised) => assert!(raised == Raised::Exit && self.exits > exits, "{raised:?} was handed up"),
        }
    }

    fn run_turn(&mut self) {
        self.end_turn();
        self.begin_turn();
        self.has_read = false;
        if let Some(edge) = self.link.take_edge() {
            for dir in self.source.handle_edge(edge) {
                self.ready.push(Entry::Io(dir));
            }
        }
        let turn = self.ready.begin();
        while let Some(entry) = self.ready.pop(turn) {
            match entry {
                Entry::User(reaction) => self.handle(|sim| sim.run_reaction(reaction)),
                // Nothing is left in the table.
                _ if self.lost => {}
                Entry::Io(dir) => {
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

    /// The process forks while another thread runs the loop, so that what is corked is left to the parent.
    fn fork(&mut self) {
        if self.stream.is_corked() {
            // The link goes on with what the child writes.
            self.written = self.link.accepted();
            if self.eof_written {
                self.link.shutdown();
            }
        }
        self.follow_fork();
    }

    // ---- the user calls the transport

    fn write(&mut self, len: u32) -> Run {
        if len == 0 || !self.policy.writable {
            return Ok(());
        }
        let bytes = patterned(self.written, len as usize);
        let waits = self.coalesces_now() || self.stream.buffered() > 0;
        self.written_by(len.into(), waits.then_some(len), |sim| drive::write(sim, bytes))
    }

    fn write_lines(&mut self, lens: [u8; 3]) -> Run {
        let mut from = self.written;
        let chunks = lens.map(|len| {
            let chunk = patterned(from, len.into());
            from += u64::from(len);
            chunk
        });
        let len = from - self.written;
        if len == 0 || !self.policy.writable {
            return Ok(());
        }
        self.written_by(len, None, |sim| drive::write_lines(sim, chunks))
    }

    /// Writes `len` bytes, which are taken, refused or dropped as the model has it.
    fn written_by(&mut self, len: u64, queued: Option<u32>, call: impl FnOnce(&mut Self) -> Run) -> Run {
        let stream = &self.stream;
        let refusal = if stream.eof_asked() {
            Some(WriteError::AfterEof)
        } else {
            self.drain_awaited.then_some(WriteError::DrainAwaited)
        };
        if let Some(error) = refusal {
            self.events.push(Event::Refused(error));
            assert_eq!(call(self), Err(Raised::Refused(error)), "a write that must be refused was admitted");
            return Ok(());
        }
        if stream.is_lost() || (stream.is_closing() && !self.policy.half_close) {
            let warned = self.warned;
            assert_eq!(call(self), Ok(()));
            self.dropped += 1;
            let warn = self.warned > warned;
            assert_eq!(warn, self.dropped >= 5, "asyncio warns from the fifth write on");
            self.events.push(Event::Dropped(warn));
            return Ok(());
        }
        self.written += len;
        if let Some(len) = queued {
            self.events.push(Event::Queued(len));
        }
        call(self)
    }

    /// Who was lent the socket sends.
    fn send_lent(&mut self, len: u32) -> Run {
        let lent = self.drain_awaited && !self.drain_owed && !self.stream.is_lost();
        if !lent || self.link.is_shut() || self.file_closed {
            return Ok(());
        }
        let bytes = patterned(self.written, len as usize);
        let Ok(sent) = self.link.send(std::iter::once(&bytes[..])) else { return Ok(()) };
        self.written += sent as u64;
        if sent == bytes.len() {
            return Ok(());
        }
        self.drain_owed = true;
        drive::handle_blocked(self)
    }

    fn write_eof(&mut self) -> Run {
        if !self.policy.half_close {
            return if self.policy.writable { self.close_by(drive::write_eof) } else { Ok(()) };
        }
        let (closing, was) = (self.stream.is_closing(), self.eof_written);
        let result = self.uncorking(drive::write_eof);
        let result = self.excuse_shutdown(result);
        if !closing && !was && !self.eof_written {
            // A callback of what was coalesced may have closed the stream before.
            assert!(self.stream.eof_asked() || self.stream.is_closing(), "an exit broke it off");
            self.eof_written = self.stream.eof_asked();
            self.eof_held = self.eof_written && self.drain_awaited;
        }
        result
    }

    /// The shutdown fails, of a file that was closed under the transport, too.
    fn excuse_shutdown(&self, result: Run) -> Run {
        match result {
            Err(Raised::Os(EBADF)) if self.file_closed => Ok(()),
            Err(Raised::Os(ENOTCONN)) if self.shutdown_fails => Ok(()),
            result => result,
        }
    }

    fn close(&mut self) -> Run {
        self.close_by(drive::close)
    }

    fn abort(&mut self) -> Run {
        if !self.stream.is_lost() {
            (self.broken, self.fault) = (true, Some(Fault::Closed));
        }
        self.closed = true;
        let result = self.uncorking(drive::abort);
        assert!(self.stream.is_closing(), "an exit broke it off");
        result
    }

    fn close_by(&mut self, method: fn(&mut Self) -> Run) -> Run {
        if !self.closed {
            self.fault = Some(Fault::Closed);
        }
        self.closed = true;
        let result = self.uncorking(method);
        assert!(self.stream.is_closing(), "an exit broke it off");
        result
    }

    /// Calls what has to have what is coalesced leave first.
    fn uncorking<T>(&mut self, call: impl FnOnce(&mut Self) -> T) -> T {
        let (corked, offers) = (self.stream.is_corked() && self.stream.buffered() > 0, self.offers);
        let result = call(self);
        assert!(!corked || self.file_closed || self.offers > offers, "kept back what is coalesced");
        result
    }

    /// What is raised is the end of the connection.
    fn break_off(&mut self, raised: Raised) -> Raised {
        if !self.stream.is_lost() {
            self.fault = Some(<Self as drive::Host>::fault(&raised));
            self.broken = true;
        }
        self.closed = true;
        raised
    }

    fn pause_reading(&mut self) {
        let closing = self.stream.is_closing();
        let paused = self.stream.pause_reading();
        assert_eq!(paused, !self.reading_paused && !closing);
        self.reading_paused |= paused;
    }

    fn resume_reading(&mut self) -> Run {
        self.reading_paused &= self.stream.is_closing();
        drive::resume_reading(self)
    }

    fn set_limits(&mut self, high: u8, low: u8) -> Run {
        let given = |mark: u8| (mark > 0).then_some(usize::from(mark) * 128);
        let before = self.stream.limits();
        self.limits_moved = true;
        if let Err(error) = self.uncorking(|sim| drive::set_limits(sim, given(high), given(low)))? {
            assert!(error.low > error.high && self.stream.limits() == before);
        }
        Ok(())
    }
}
