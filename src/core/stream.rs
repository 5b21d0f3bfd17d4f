//! THE transport machine: one for every kind of byte stream.
//!
//! ```text
//!              open()            handle_end()
//!   Connecting ------> Open ---------------------> Open, read side ended
//!                       | close(), fail()            |
//!                       v                            v
//!                     Closing --(outbox empty)---> Lost
//! ```
//!
//! Rules (CPython `selector_events._SelectorSocketTransport`, and the asyncio documentation of transports):
//! - A method mutates and returns a [`Step`]: what the caller now has to do, in the order of the flags. The caller lets
//!   go of its borrow first, so that user code run by a step may call straight back into the machine.
//! - `Step::LOSE` comes exactly once. After it no other callback of the protocol is asked for.
//! - What was admitted by `write` before a clean `close` is sent before `LOSE`. `abort` and faults discard it.
//! - While nothing is queued a write is sent at once, every time. What the kernel refuses waits in the outbox for
//!   writability and leaves by vectored sends.
//! - The user may have writes coalesced instead: what is written in a turn, the first write too, is corked, which is to
//!   wait in the outbox for the turn's end, and leaves in one vectored send. The high-water mark ends the cork early, so
//!   that flow control stays the same.

use std::collections::VecDeque;

use super::fault::Fault;
use super::flow::{Flow, LimitsError};
use super::outbox::Outbox;

/// What a kind of stream can do. A kind is one row of this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub readable: bool,
    pub writable: bool,
    /// `write_eof` closes the writing half only. Without a half that is left, it is `close`, and what is written after
    /// that is dropped, even while the outbox is flushed.
    pub half_close: bool,
    /// The end of what is read is the end of the stream, whatever `eof_received` answers.
    pub end_closes: bool,
    /// An exception of `data_received` is reported and ends nothing: CPython's pipe transports do not guard it.
    pub survives_data: bool,
    /// That the far end is gone is noticed though nothing is read.
    pub hangup_closes: bool,
    /// A read shorter than asked for means that the kernel's buffer is drained: true of TCP, not of Unix sockets, where
    /// ancillary data splits reads.
    pub short_read_drains: bool,
}

impl Policy {
    pub const TCP: Self = Self {
        readable: true,
        writable: true,
        half_close: true,
        end_closes: false,
        survives_data: false,
        hangup_closes: false,
        short_read_drains: true,
    };
    pub const SOCKET: Self = Self { short_read_drains: false, ..Self::TCP };
    /// CPython `unix_events._UnixReadPipeTransport`. A terminal hands out a line at a time: a short read drains nothing.
    pub const READ_PIPE: Self =
        Self { writable: false, half_close: false, end_closes: true, survives_data: true, ..Self::SOCKET };
    /// CPython `unix_events._UnixWritePipeTransport` of a pipe or socket.
    pub const WRITE_PIPE: Self = Self { readable: false, half_close: false, hangup_closes: true, ..Self::SOCKET };
    /// The same of a character device, which is not watched for its far end.
    pub const WRITE_DEVICE: Self = Self { hangup_closes: false, ..Self::WRITE_PIPE };

    /// Whether a read that took `n` bytes, with room for more than that, has emptied the kernel's buffer: the next one would
    /// only say `EAGAIN` (306 ns). Not so once the peer `closed`: read on to the end; nor once it sent `urgent` data: a read
    /// ends short where that was.
    #[inline]
    #[must_use]
    pub fn is_drained(self, n: usize, room: usize, closed: bool, urgent: impl FnOnce() -> bool) -> bool {
        self.short_read_drains && n < room && !closed && !urgent()
    }

    /// Whether an error of the kernel goes without a report: always on sockets and writing ends; on reading ends only
    /// `EIO`, which is how a terminal ends.
    #[must_use]
    pub fn is_quiet(self, errno: Option<i32>) -> bool {
        self.writable || errno == Some(EIO)
    }
}

/// The errno of a terminal whose other end is gone; the same on every Unix.
const EIO: i32 = 5;
/// The errno of a pipe that nobody reads; the same on every Unix.
const EPIPE: i32 = 32;

step_flags! {
    /// What the caller has to do, in the order of the flags.
    Step(u16) {
        /// Send from the outbox now.
        SEND,
        /// Put the stream on the list of the corked, to be flushed when the turn ends.
        CORK,
        /// Tell when the socket gets writable.
        WATCH_WRITE,
        /// Start, or go on, reading: look at readiness at once, as it may have come while nobody watched.
        WATCH_READ,
        /// Tell when the far end is gone.
        WATCH_HANGUP,
        /// Call `protocol.pause_writing`.
        PAUSE,
        /// Call `protocol.resume_writing`.
        RESUME,
        /// Call `protocol.eof_received` and hand the answer to [`Stream::handle_eof_answer`].
        EOF,
        /// The outbox is empty: whoever waits for that is to be told.
        DRAINED,
        /// Shut down the writing half.
        SHUTDOWN,
        /// Chunks were discarded: drop [`Stream::take_discarded`] outside the borrow.
        DISCARD,
        /// Schedule `protocol.connection_lost` for the next turn, never inline.
        LOSE,
    }
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Try the socket at once; what it does not take goes to [`Stream::enqueue_rest`].
    Send,
    /// Hand the data to [`Stream::enqueue`].
    Queue,
    /// The connection is lost: the data goes nowhere. `warn` from the fifth time on, as asyncio does.
    Drop { warn: bool },
}

/// A write that the caller must not make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// `write` after `write_eof`.
    AfterEof,
    /// Somebody (sendfile) waits for the outbox to drain and owns the socket until then.
    DrainAwaited,
}

/// Asyncio's `constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES`.
pub const WRITES_BEFORE_WARNING: u32 = 5;

/// One byte stream. `C` is a chunk of queued bytes.
#[derive(Debug)]
pub struct Stream<C> {
    policy: Policy,
    outbox: Outbox<C>,
    flow: Flow,
    discarded: VecDeque<C>,
    /// What is queued waits for the end of the turn. The kernel has refused none of it.
    corked: bool,
    opened: bool,
    paused: bool,
    ended: bool,
    eof_asked: bool,
    shut: bool,
    closing: bool,
    watching_write: bool,
    drain_awaited: bool,
    /// `write_eof` came while the socket was lent: it waits for the end of that.
    eof_held: bool,
    lost: bool,
    /// A read waits in the ready queue.
    read_queued: bool,
    /// The turn of the last event of reading.
    read_in: u64,
    fault: Fault,
    writes_after_lost: u32,
}

impl<C: AsRef<[u8]>> Stream<C> {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            outbox: Outbox::default(),
            flow: Flow::default(),
            discarded: VecDeque::new(),
            corked: false,
            opened: false,
            paused: false,
            ended: false,
            eof_asked: false,
            shut: false,
            closing: false,
            watching_write: false,
            drain_awaited: false,
            eof_held: false,
            lost: false,
            read_queued: false,
            read_in: 0,
            fault: Fault::Closed,
            writes_after_lost: 0,
        }
    }

    // ---- getters

    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Where `write_eof` closes the stream, it can still be called.
    #[must_use]
    pub fn can_write_eof(&self) -> bool {
        self.policy.writable
    }

    /// Bytes are to be taken from the socket now.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        self.opened && self.policy.readable && !self.paused && !self.ended && !self.closing && !self.lost
    }

    /// The caller's view: neither paused nor closing (asyncio's `is_reading`).
    #[must_use]
    pub fn is_reading(&self) -> bool {
        !self.closing && !self.paused
    }

    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// The caller paused reading.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Asyncio's `_conn_lost`: 0 until the connection is lost, then one more for each write.
    #[must_use]
    pub fn lost_count(&self) -> u32 {
        if self.lost { self.writes_after_lost.saturating_add(1) } else { 0 }
    }

    #[must_use]
    pub fn eof_asked(&self) -> bool {
        self.eof_asked
    }

    /// Bytes that were written and not yet handed to the kernel.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.outbox.size()
    }

    #[must_use]
    pub fn is_corked(&self) -> bool {
        self.corked
    }

    #[must_use]
    pub fn is_watching_write(&self) -> bool {
        self.watching_write
    }

    #[must_use]
    pub fn is_write_paused(&self) -> bool {
        self.flow.is_paused()
    }

    /// `(low, high)`, bytes.
    #[must_use]
    pub fn limits(&self) -> (usize, usize) {
        self.flow.limits()
    }

    /// What ended the connection.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// The slices to send next, front first.
    pub fn unsent(&self) -> impl Iterator<Item = &[u8]> {
        self.outbox.slices()
    }

    // ---- something happened

    /// `connection_made` returned (or raised: asyncio goes on all the same).
    pub fn handle_open(&mut self) -> Step {
        self.opened = true;
        Step::WATCH_READ.when(self.wants_read()) | Step::WATCH_HANGUP.when(self.policy.hangup_closes)
    }

    /// An event of reading came in this turn of the loop, or a read that was queued for it: true when something is to be
    /// read. Once a turn, as an event may come beside a queued read; 0 is no turn.
    pub fn begin_read(&mut self, turn: u64) -> bool {
        if turn != 0 && turn == self.read_in {
            return false;
        }
        (self.read_queued, self.read_in) = (false, turn);
        self.wants_read()
    }

    /// A program runs the loop's queue by hand: by turns of its own, so the next read is not of the same turn as the last.
    pub fn forget_turn(&mut self) {
        self.read_in = 0;
    }

    /// There may be more to read: true when a read is to be queued for the next turn. Once, however often a protocol pauses
    /// and resumes meanwhile: each read asks for the next, so two would stay two.
    pub fn poll_read_on(&mut self) -> bool {
        self.wants_read() && !std::mem::replace(&mut self.read_queued, true)
    }

    /// The peer ended its half.
    pub fn handle_end(&mut self) -> Step {
        if !self.wants_read() {
            return Step::NONE;
        }
        self.ended = true;
        if self.policy.end_closes { Step::EOF | self.close() } else { Step::EOF }
    }

    /// The far end of a stream that is only written is gone: nobody will read what is buffered.
    pub fn handle_hangup(&mut self) -> Step {
        if self.outbox.is_empty() { self.close() } else { self.fail(Fault::Os(EPIPE)) }
    }

    /// What `eof_received` answered: false closes the transport (flushing what is buffered).
    pub fn handle_eof_answer(&mut self, keep_open: bool) -> Step {
        if keep_open { Step::NONE } else { self.close() }
    }

    /// `eof_received` was broken off by what passes through the loop, and answered nothing: the end is told again as soon
    /// as the stream reads.
    pub fn handle_eof_untold(&mut self) -> Step {
        self.ended = false;
        Step::WATCH_READ.when(self.wants_read())
    }

    /// The kernel took `n` bytes of the outbox. After the step ran, ask [`Stream::poll_settled`].
    pub fn handle_sent(&mut self, n: usize) -> Step {
        if self.lost {
            return Step::NONE;
        }
        self.outbox.advance(n);
        Step::RESUME.when(self.flow.handle_shrunk(self.outbox.size()))
    }

    /// The kernel's buffer is full.
    pub fn handle_blocked(&mut self) -> Step {
        self.corked = false;
        if self.lost {
            return Step::NONE;
        }
        Step::WATCH_WRITE.when(!std::mem::replace(&mut self.watching_write, true))
    }

    /// The socket is writable again.
    pub fn handle_writable(&mut self) -> Step {
        self.watching_write = false;
        if self.lost {
            Step::NONE
        } else if self.outbox.is_empty() {
            // Whom the socket is lent to has found it full ([`Stream::handle_blocked`]).
            Step::DRAINED.when(self.drain_awaited)
        } else {
            Step::SEND
        }
    }

    /// The process is the child of a fork: what is corked, and the end behind it, is the parent's to send.
    pub fn handle_forked(&mut self) -> Step {
        if !std::mem::take(&mut self.corked) {
            return Step::NONE;
        }
        let chunks = self.outbox.take();
        self.discarded.extend(chunks);
        Step::DISCARD | if self.closing { self.lose(Fault::Closed) } else { Step::NONE }
    }

    // ---- the caller wants

    /// Whether writes are taken at all.
    ///
    /// # Errors
    /// [`WriteError`] when not.
    pub fn check_write(&self) -> Result<(), WriteError> {
        if self.eof_asked {
            Err(WriteError::AfterEof)
        } else if self.drain_awaited {
            Err(WriteError::DrainAwaited)
        } else {
            Ok(())
        }
    }

    /// A write is about to be made; `coalesce`: the turn that runs is to send it when it ends.
    ///
    /// # Errors
    /// [`WriteError`] when the stream takes no more writes.
    pub fn admit(&mut self, coalesce: bool) -> Result<Admit, WriteError> {
        self.check_write()?;
        if self.lost || (self.closing && !self.policy.half_close) {
            self.writes_after_lost = self.writes_after_lost.saturating_add(1);
            let warn = self.writes_after_lost >= WRITES_BEFORE_WARNING;
            return Ok(Admit::Drop { warn });
        }
        Ok(if self.outbox.is_empty() && !coalesce { Admit::Send } else { Admit::Queue })
    }

    /// Queues a chunk of which the kernel took `sent` bytes and refused the rest: only writability helps.
    pub fn enqueue_rest(&mut self, chunk: C, sent: usize) -> Step {
        if self.lost {
            self.discarded.push_back(chunk);
            return Step::DISCARD;
        }
        self.outbox.push(chunk, sent);
        if self.outbox.is_empty() { Step::NONE } else { self.handle_blocked() | self.poll_grown() }
    }

    /// Queues chunks: corked with `coalesce`; otherwise they are sent at once, behind what is corked, unless the kernel's
    /// buffer is known to be full.
    pub fn enqueue(&mut self, chunks: impl IntoIterator<Item = C>, coalesce: bool) -> Step {
        if self.lost {
            self.discarded.extend(chunks);
            return Step::DISCARD;
        }
        for chunk in chunks {
            self.outbox.push(chunk, 0);
        }
        if self.watching_write {
            return self.poll_grown();
        }
        if coalesce && self.outbox.size() <= self.flow.high() {
            return Step::CORK.when(!self.outbox.is_empty() && !std::mem::replace(&mut self.corked, true));
        }
        // Only what the kernel does not take counts against the mark.
        self.corked = false;
        Step::SEND.when(!self.outbox.is_empty())
    }

    /// The cork comes off: what was written in this turn leaves now.
    pub fn uncork(&mut self) -> Step {
        Step::SEND.when(std::mem::take(&mut self.corked) && !self.outbox.is_empty())
    }

    /// After a send of queued data: what is left may be over the mark.
    pub fn poll_grown(&mut self) -> Step {
        Step::PAUSE.when(!self.lost && self.flow.handle_grown(self.outbox.size()))
    }

    /// After a send: what the empty outbox was waited for.
    pub fn poll_settled(&mut self) -> Step {
        if !self.outbox.is_empty() || self.lost {
            return Step::NONE;
        }
        let drained = Step::DRAINED.when(self.drain_awaited);
        if self.closing {
            drained | self.lose(Fault::Closed)
        } else if self.eof_asked && !self.shut && !self.eof_held {
            self.shut = true;
            drained | Step::SHUTDOWN
        } else {
            drained
        }
    }

    /// Closes the writing half once the outbox is empty.
    pub fn write_eof(&mut self) -> Step {
        if !self.policy.half_close {
            return self.close();
        }
        if self.closing || self.eof_asked {
            return Step::NONE;
        }
        self.eof_asked = true;
        self.eof_held = self.drain_awaited;
        if !self.outbox.is_empty() || self.shut || self.eof_held {
            return Step::NONE;
        }
        self.shut = true;
        Step::SHUTDOWN
    }

    /// Closes the stream once the outbox is empty.
    pub fn close(&mut self) -> Step {
        if self.closing {
            return Step::NONE;
        }
        self.closing = true;
        if self.outbox.is_empty() { self.lose(Fault::Closed) } else { Step::NONE }
    }

    /// Ends the stream now; what is buffered is discarded.
    pub fn fail(&mut self, fault: Fault) -> Step {
        if self.lost {
            return Step::NONE;
        }
        self.closing = true;
        let discard = !self.outbox.is_empty();
        if discard {
            let chunks = self.outbox.take();
            self.discarded.extend(chunks);
        }
        Step::DISCARD.when(discard) | self.lose(fault)
    }

    /// Stops reading; true when it was on.
    pub fn pause_reading(&mut self) -> bool {
        let was = self.is_reading();
        self.paused |= was;
        was
    }

    /// Goes on reading.
    pub fn resume_reading(&mut self) -> Step {
        if self.closing || !self.paused {
            return Step::NONE;
        }
        self.paused = false;
        Step::WATCH_READ.when(self.wants_read())
    }

    /// Sets the marks and applies them to what is buffered now.
    ///
    /// # Errors
    /// [`LimitsError`] when they contradict each other.
    pub fn set_limits(&mut self, high: Option<usize>, low: Option<usize>) -> Result<Step, LimitsError> {
        self.flow.set_limits(high, low)?;
        Ok(self.poll_grown())
    }

    /// Somebody waits for the outbox to drain and has the socket from then on: writes are refused until
    /// [`Stream::end_drain_wait`]. True when it is empty already.
    pub fn begin_drain_wait(&mut self) -> bool {
        self.drain_awaited = true;
        self.outbox.is_empty()
    }

    /// The socket is the stream's again.
    pub fn end_drain_wait(&mut self) -> Step {
        self.drain_awaited = false;
        if !std::mem::take(&mut self.eof_held) || self.closing || !self.outbox.is_empty() {
            return Step::NONE;
        }
        self.shut = true;
        Step::SHUTDOWN
    }

    #[must_use]
    pub fn is_drain_awaited(&self) -> bool {
        self.drain_awaited
    }

    /// What was discarded, to be dropped outside the caller's borrow.
    #[must_use]
    pub fn take_discarded(&mut self) -> VecDeque<C> {
        std::mem::take(&mut self.discarded)
    }

    fn lose(&mut self, fault: Fault) -> Step {
        self.lost = true;
        self.fault = fault;
        self.corked = false;
        Step::LOSE
    }
}
