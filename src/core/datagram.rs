//! The datagram transport machine: UDP and Unix datagram sockets.
//!
//! ```text
//!            handle_open()          close(), fail()            (outbox empty)          handle_lost()
//!   Opening ---------------> Open ------------------> Closing ---------------> Lost ---------------> Finished
//!
//!   who sends what is queued (`Drive`):
//!
//!        coalescing             uncork, batch full              kernel full
//!     Idle ----------> Corked -------------------------> flush -------------> Blocked --(handle_writable)--> flush
//!      | ^                                                | |  budget spent      ^
//!      | '------------------- outbox empty ---------------' '---------------> Again ----(next turn)--------> flush
//!      '---------------------------- sent at once, kernel full ------------------'
//! ```
//!
//! Rules (CPython `selector_events._SelectorDatagramTransport`, and the asyncio documentation of transports):
//! - A datagram goes out whole or not at all, in the order of `sendto`; each is sent once, refused once (the protocol's
//!   `error_received`), or discarded with the transport.
//! - A refused datagram costs only itself: the transport stays open and the next one is tried.
//! - Datagrams that came in one batch are delivered in their order, as long as the user wants them: `pause_reading`
//!   keeps the rest for later, `close` drops it, an exception that ends the run of the loop leaves it for the next one.
//! - While nothing is queued a datagram is sent at once, every time. What the kernel has no room for waits for writability.
//! - The user may have sends coalesced instead: those of a turn, the first too, are corked and leave in one batch, when the
//!   turn ends, when the batch is full, or at the high-water mark. Not so on sockets where that would lose errors.
//! - A turn takes one batch in and a bounded number out, so that a flood leaves time for others.
//! - As with `core::stream`, a method returns a [`Step`] that the caller carries out after its borrow ended, and
//!   `Step::LOSE` comes exactly once.

mod errors;

use std::collections::VecDeque;

pub use errors::Errors;

use super::fault::Fault;
use super::flow::{Flow, LimitsError};

/// Datagrams taken from the kernel in one turn, and sent by one call.
pub const BATCH: usize = 16;

/// Datagrams sent by one flush; the rest waits for the next turn.
pub const FLUSH_MAX: usize = 4 * BATCH;

/// Asyncio's `constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES`.
pub const SENDS_BEFORE_WARNING: u32 = 5;

/// What kind of endpoint it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Bytes that each queued datagram counts besides its own: asyncio counts 8 since Python 3.13.
    pub header: usize,
    /// Several datagrams may leave by one call. Not so where one datagram's error shows at the next one's send, as on a
    /// connected socket: a call that sends several loses it (`sendmmsg(2)`).
    pub batches: bool,
    /// The endpoint has one remote address: what is sent after the loss is dropped at once. Others may send as long as
    /// the socket is open, as with asyncio.
    pub fixed: bool,
}

step_flags! {
    /// What the caller has to do, in the order of the flags.
    Step(u16) {
        /// Send what is queued: [`Datagram::begin_flush`].
        SEND,
        /// Put the transport on the list of the corked, to be flushed when the turn ends.
        CORK,
        /// Tell when the socket gets writable.
        WATCH_WRITE,
        /// Nothing waits for writability any more.
        UNWATCH_WRITE,
        /// Call [`Datagram::handle_writable`] in the next turn.
        AGAIN,
        /// Start, or go on, reading: look at once, as something may have come while nobody watched.
        WATCH_READ,
        /// Call `protocol.pause_writing`.
        PAUSE,
        /// Call `protocol.resume_writing`.
        RESUME,
        /// Drop [`Datagram::take_dropped`] outside the borrow.
        DISCARD,
        /// Schedule `protocol.connection_lost` for the next turn, never inline.
        LOSE,
    }
}

/// What becomes of a datagram that the user sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Try the socket at once; what it has no room for goes to [`Datagram::enqueue_blocked`].
    Send,
    /// Hand it to [`Datagram::enqueue`].
    Queue,
    /// The endpoint is lost: it goes nowhere. `warn` from the fifth time on, as asyncio does.
    Drop { warn: bool },
}

/// What an event of reading is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    Nothing,
    /// What was received before waits to be delivered.
    Deliver,
    /// Ask the kernel: with `force` whatever is known of the socket's readiness, with `errored` for an error.
    Receive {
        force: bool,
        errored: bool,
    },
}

/// Who will send what is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drive {
    /// Nothing is queued, or a flush is under way.
    Idle,
    /// The end of the turn.
    Corked,
    /// The next turn: the last flush sent as much as one may.
    Again,
    /// The socket, when it gets writable.
    Blocked,
}

/// What was received and sent, and is of no more use.
#[derive(Debug)]
pub struct Dropped<R, P> {
    pub received: VecDeque<R>,
    pub sent: VecDeque<P>,
}

/// One endpoint. `R` is a datagram received, `P` one to be sent.
#[derive(Debug)]
pub struct Datagram<R, P> {
    policy: Policy,
    inbox: VecDeque<R>,
    outbox: VecDeque<P>,
    /// What the outbox counts against the marks, bytes.
    size: usize,
    flow: Flow,
    dropped: Dropped<R, P>,
    drive: Drive,
    /// The caller was asked to watch for writability.
    watching_write: bool,
    /// How many more datagrams the flush under way may send.
    flush_left: Option<usize>,
    errors: Errors,
    /// A read waits in the ready queue.
    read_queued: bool,
    /// The turn of the last event of reading.
    read_in: u64,
    /// The next read asks the kernel, whatever is known of the socket's readiness.
    force_recv: bool,
    opened: bool,
    paused: bool,
    closing: bool,
    lost: bool,
    finished: bool,
    fault: Fault,
    sends_after_lost: u32,
}

impl<R, P: AsRef<[u8]>> Datagram<R, P> {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            size: 0,
            flow: Flow::default(),
            dropped: Dropped { received: VecDeque::new(), sent: VecDeque::new() },
            drive: Drive::Idle,
            watching_write: false,
            flush_left: None,
            errors: Errors::default(),
            read_queued: false,
            read_in: 0,
            force_recv: false,
            opened: false,
            paused: false,
            closing: false,
            lost: false,
            finished: false,
            fault: Fault::Closed,
            sends_after_lost: 0,
        }
    }

    // ---- getters

    /// Datagrams are to be taken from the socket, or from what was taken, now.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        self.opened && !self.paused && !self.closing && !self.lost
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

    /// Datagrams were taken from the socket and wait to be delivered.
    #[must_use]
    pub fn has_undelivered(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// What was taken from the socket and waits to be delivered, front first.
    pub fn undelivered(&self) -> impl Iterator<Item = &R> {
        self.inbox.iter()
    }

    /// The next read is due now, whatever is known of the socket's readiness: an event may have come while reading was paused.
    #[must_use]
    pub fn forces_recv(&self) -> bool {
        self.force_recv
    }

    #[must_use]
    pub fn errors(&self) -> Errors {
        self.errors
    }

    /// What is queued counts this much, bytes.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.size
    }

    #[must_use]
    pub fn is_corked(&self) -> bool {
        self.drive == Drive::Corked
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

    /// What ended the endpoint.
    #[must_use]
    pub fn fault(&self) -> Fault {
        self.fault
    }

    /// The datagrams to send next, front first.
    pub fn unsent(&self) -> impl Iterator<Item = &P> + Clone {
        self.outbox.iter()
    }

    // ---- something happened

    /// `connection_made` returned (or raised: asyncio goes on all the same).
    pub fn handle_open(&mut self) -> Step {
        self.opened = true;
        Step::WATCH_READ.when(self.wants_read())
    }

    /// An event of reading came in this turn of the loop, or a read that was queued for it. One batch a turn, as an event
    /// may come beside a queued read; 0 is no turn.
    pub fn begin_read(&mut self, turn: u64) -> Read {
        if turn != 0 && turn == self.read_in {
            return Read::Nothing;
        }
        (self.read_queued, self.read_in) = (false, turn);
        if !self.wants_read() {
            Read::Nothing
        } else if self.has_undelivered() {
            Read::Deliver
        } else {
            let errored = self.errors.begin_read();
            Read::Receive { force: std::mem::take(&mut self.force_recv) || errored, errored }
        }
    }

    /// A program runs the loop's queue by hand: by turns of its own, so the next read is not of the same turn as the last.
    pub fn forget_turn(&mut self) {
        self.read_in = 0;
    }

    /// The kernel had something to say. True when the socket is to be registered anew, for errors and reading.
    pub fn handle_found(&mut self) -> bool {
        self.errors.handle_found()
    }

    /// A read has asked for an error. True when the socket is to be registered anew, for errors and reading.
    pub fn handle_asked(&mut self, found: bool) -> bool {
        self.errors.handle_asked(found)
    }

    /// The socket was registered anew; `for_write`: for writability, too.
    pub fn handle_registered(&mut self, for_write: bool) {
        self.errors.for_write = for_write;
    }

    /// An event of writing came; `None` when it is an error's, and the next read asks for that.
    pub fn handle_write_event(&mut self) -> Option<Step> {
        let step = self.handle_writable();
        (!step.is_none() || !self.errors.handle_write_event()).then_some(step)
    }

    /// A batch came in; [`Datagram::poll_deliver`] hands it out.
    pub fn handle_received(&mut self, batch: impl Iterator<Item = R>) {
        self.inbox.extend(batch);
    }

    /// The kernel took the first `n` datagrams of the outbox.
    pub fn handle_sent(&mut self, n: usize) {
        for _ in 0..n {
            let Some(packet) = self.outbox.pop_front() else { break };
            self.size -= self.counted(&packet);
            self.dropped.sent.push_back(packet);
        }
        self.flush_left = self.flush_left.map(|left| left.saturating_sub(n));
    }

    /// The kernel refused the first datagram of the outbox for good: the caller tells the protocol.
    pub fn handle_refused(&mut self) {
        self.handle_sent(1);
    }

    /// The kernel takes nothing more for now: the flush is over.
    pub fn handle_blocked(&mut self) {
        self.drive = Drive::Blocked;
    }

    /// The socket is writable, or the turn after a long flush has come.
    pub fn handle_writable(&mut self) -> Step {
        let send = matches!(self.drive, Drive::Blocked | Drive::Again) && !self.lost;
        Step::SEND.when(send)
    }

    /// The process is the child of a fork: what is corked is the parent's to send.
    pub fn handle_forked(&mut self) -> Step {
        if self.drive != Drive::Corked {
            return Step::NONE;
        }
        self.drive = Drive::Idle;
        self.dropped.sent.append(&mut self.outbox);
        self.size = 0;
        Step::DISCARD | if self.closing { self.lose(Fault::Closed) } else { Step::NONE }
    }

    /// `connection_lost` ran: nothing is left of the endpoint.
    pub fn handle_lost(&mut self) {
        self.finished = true;
    }

    // ---- what now

    /// There may be more to read: true when a read is to be queued for the next turn. Once, however often it is asked for.
    pub fn poll_read_on(&mut self) -> bool {
        self.wants_read() && !std::mem::replace(&mut self.read_queued, true)
    }

    /// The socket is registered for writability, too: it tells of room.
    #[must_use]
    pub fn is_registered_for_write(&self) -> bool {
        self.errors.for_write
    }

    /// The next datagram for the protocol, as long as it wants any.
    pub fn poll_deliver(&mut self) -> Option<R> {
        if self.wants_read() { self.inbox.pop_front() } else { None }
    }

    /// A flush begins. What the user sends from within it has no other one follow.
    pub fn begin_flush(&mut self) {
        debug_assert!(self.flush_left.is_none() && !self.outbox.is_empty(), "a flush under way, or of nothing");
        self.drive = Drive::Idle;
        self.flush_left = Some(FLUSH_MAX);
    }

    /// How many datagrams from the front the flush under way may send by its next call; 0 when it is over.
    #[must_use]
    pub fn poll_flush(&self) -> usize {
        if self.drive == Drive::Blocked || self.lost {
            return 0;
        }
        let batch = if self.policy.batches { BATCH } else { 1 };
        self.flush_left.unwrap_or(0).min(batch).min(self.outbox.len())
    }

    /// The flush is over. After the step ran, ask [`Datagram::poll_settled`].
    pub fn end_flush(&mut self) -> Step {
        self.flush_left = None;
        let dropped = Step::DISCARD.when(!self.dropped.sent.is_empty());
        if self.lost {
            return dropped;
        }
        let waits = if self.outbox.is_empty() {
            self.drive = Drive::Idle;
            Step::NONE
        } else if self.drive == Drive::Blocked {
            self.watching_write = true;
            Step::WATCH_WRITE
        } else {
            self.drive = Drive::Again;
            Step::AGAIN
        };
        let resume = Step::RESUME.when(self.flow.handle_shrunk(self.size));
        dropped | waits | resume | self.poll_grown()
    }

    /// After a flush: what the empty outbox was waited for.
    pub fn poll_settled(&mut self) -> Step {
        if !self.outbox.is_empty() || self.lost || self.flush_left.is_some() {
            return Step::NONE;
        }
        let unwatch = Step::UNWATCH_WRITE.when(std::mem::take(&mut self.watching_write));
        if self.closing { unwatch | self.lose(Fault::Closed) } else { unwatch }
    }

    /// What is left after a send may be over the mark.
    pub fn poll_grown(&mut self) -> Step {
        Step::PAUSE.when(!self.lost && self.flow.handle_grown(self.size))
    }

    /// What is of no more use, to be dropped outside the caller's borrow.
    #[must_use]
    pub fn take_dropped(&mut self) -> Dropped<R, P> {
        std::mem::replace(&mut self.dropped, Dropped { received: VecDeque::new(), sent: VecDeque::new() })
    }

    // ---- the caller wants

    /// A datagram is about to be sent; `coalesce`: the turn that runs is to send it when it ends.
    pub fn admit(&mut self, coalesce: bool) -> Admit {
        if self.lost && (self.policy.fixed || self.finished) {
            self.sends_after_lost = self.sends_after_lost.saturating_add(1);
            return Admit::Drop { warn: self.sends_after_lost >= SENDS_BEFORE_WARNING };
        }
        let corks = coalesce && self.policy.batches && !self.lost;
        if self.outbox.is_empty() && !corks { Admit::Send } else { Admit::Queue }
    }

    /// Queues a datagram that the kernel has no room for: only writability helps.
    pub fn enqueue_blocked(&mut self, packet: P) -> Step {
        match self.push(packet) {
            None => {
                self.drive = Drive::Blocked;
                self.watching_write = true;
                Step::WATCH_WRITE | self.poll_grown()
            }
            Some(step) => step,
        }
    }

    /// Queues a datagram: corked with `coalesce`, otherwise behind those that wait.
    pub fn enqueue(&mut self, packet: P, coalesce: bool) -> Step {
        if let Some(step) = self.push(packet) {
            return step;
        }
        if self.flush_left.is_some() {
            // The user called from within a flush, which goes on to it, or leaves it to the next turn.
            return self.poll_grown();
        }
        let full = self.outbox.len() >= BATCH || self.size > self.flow.high();
        match self.drive {
            Drive::Blocked | Drive::Again => self.poll_grown(),
            // Only what the kernel does not take counts against the mark.
            Drive::Corked | Drive::Idle if full || !coalesce => Step::SEND,
            Drive::Corked => Step::NONE,
            Drive::Idle => {
                self.drive = Drive::Corked;
                Step::CORK
            }
        }
    }

    /// The cork comes off: what was sent in this turn leaves now.
    pub fn uncork(&mut self) -> Step {
        Step::SEND.when(self.drive == Drive::Corked)
    }

    /// Closes the endpoint once the outbox is empty. What was received and not delivered is dropped.
    pub fn close(&mut self) -> Step {
        if self.closing {
            return Step::NONE;
        }
        self.closing = true;
        let discard = self.discard_inbox();
        if self.outbox.is_empty() { discard | self.lose(Fault::Closed) } else { discard }
    }

    /// Ends the endpoint now; what is queued is discarded.
    pub fn fail(&mut self, fault: Fault) -> Step {
        if self.lost {
            return Step::NONE;
        }
        self.closing = true;
        let discard = self.discard_inbox() | Step::DISCARD.when(!self.outbox.is_empty());
        self.dropped.sent.append(&mut self.outbox);
        self.size = 0;
        discard | self.lose(fault)
    }

    /// Stops delivering; true when it was on.
    pub fn pause_reading(&mut self) -> bool {
        let was = self.is_reading();
        self.paused |= was;
        // An event that came meanwhile is not repeated.
        self.force_recv |= was;
        was
    }

    /// Goes on delivering.
    pub fn resume_reading(&mut self) -> Step {
        if self.closing || !self.paused {
            return Step::NONE;
        }
        self.paused = false;
        Step::WATCH_READ.when(self.wants_read())
    }

    /// Sets the marks and applies them to what is queued now.
    ///
    /// # Errors
    /// [`LimitsError`] when they contradict each other.
    pub fn set_limits(&mut self, high: Option<usize>, low: Option<usize>) -> Result<Step, LimitsError> {
        self.flow.set_limits(high, low)?;
        Ok(self.poll_grown())
    }

    /// Appends a datagram; after the loss it is dropped, and what to do about that comes back.
    fn push(&mut self, packet: P) -> Option<Step> {
        if self.lost {
            self.dropped.sent.push_back(packet);
            return Some(Step::DISCARD);
        }
        self.size += self.counted(&packet);
        self.outbox.push_back(packet);
        None
    }

    fn counted(&self, packet: &P) -> usize {
        packet.as_ref().len() + self.policy.header
    }

    fn discard_inbox(&mut self) -> Step {
        let some = !self.inbox.is_empty();
        self.dropped.received.append(&mut self.inbox);
        Step::DISCARD.when(some)
    }

    fn lose(&mut self, fault: Fault) -> Step {
        self.lost = true;
        self.fault = fault;
        self.drive = Drive::Idle;
        let unwatch = Step::UNWATCH_WRITE.when(std::mem::take(&mut self.watching_write));
        unwatch | Step::LOSE
    }
}
