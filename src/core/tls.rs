//! The TLS machine: the record pump between a stream of ciphertext below and the user's protocol above.
//!
//! ```text
//!                handle_made()          handle_handshake(Done)      close(), handle_eof()        begin_unwrap()
//!   Unwrapped ------------------> Handshake ------------------> Wrapped ------------> Flushing --------------> Shutdown
//!       ^                             |                            |                     |                        |
//!       '---------------------------- failure, abort(), handle_lost() ------------------------------------------'
//! ```
//!
//! The cryptography is a [`RecordEngine`]'s, which knows no socket: ciphertext is fed to it and taken from it. The machine
//! says when to call it and what its answers mean; it holds plaintext that waits for the handshake, flow control both ways,
//! and what the user was told.
//!
//! Rules (CPython `asyncio.sslproto`, and RFC 8446, section 6.1, for the closing alerts):
//! - As with `core::stream`, a method returns a [`Step`] that the caller carries out after its borrow ended, so that user
//!   code run by a step may call straight back.
//! - `connection_made` comes after the handshake, once; `connection_lost` comes once and only after `connection_made`.
//! - What was written before the handshake ended is encrypted after it, in order; what is written after `close` is dropped.
//! - `close` drops what has arrived and was not handed out, sends `close_notify` and waits for the peer's, no longer than the
//!   time-out allows: that counts until the stream below is lost, as a peer that reads nothing could hold it for ever.
//! - The peer's `close_notify`, and the end of the stream below without one, are `eof_received`, once, and then a close.
//! - What counts against the user's marks is all that the kernel has not taken, what the stream below has buffered, too.
//! - Nothing is decrypted while reading is paused; ciphertext then piles up to a mark, and the stream below is paused. What
//!   is the beginning of a record needs the stream below for its rest, and so does a closing connection for the peer's
//!   `close_notify`: neither counts.

mod engine;
mod step;

use std::collections::VecDeque;

pub use engine::{Outcome, RecordEngine};
pub use step::{Admit, FlowSignal, Step};

use super::flow::{Flow, LimitsError};
use super::outbox::Outbox;
use super::records::{RECORD_MAX, Records};
use super::stream::WRITES_BEFORE_WARNING;

/// Asyncio's `constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE`, bytes.
pub const WRITE_HIGH: usize = 512 * 1024;

/// Asyncio's `constants.FLOW_CONTROL_HIGH_WATER_SSL_READ`, bytes.
pub const READ_HIGH: usize = 256 * 1024;

/// Where the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the handshake, and after the end.
    Unwrapped,
    Handshake,
    Wrapped,
    /// Closing: what has arrived is handed out, or dropped after `close`, then `close_notify` goes out.
    Flushing,
    /// `close_notify` is out, or need not be.
    Shutdown,
}

/// What the user's protocol was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum App {
    Init,
    Made,
    Eof,
    Lost,
}

/// One TLS connection. `C` is a chunk of plaintext.
#[derive(Debug)]
pub struct Tls<C> {
    phase: Phase,
    app: App,
    backlog: Outbox<C>,
    discarded: VecDeque<C>,
    records: Records,
    /// Ciphertext that the stream below does not want yet, bytes.
    held: usize,
    /// What the stream below has buffered, bytes; 0 unless it asked for a pause.
    below: usize,
    flow: Flow,
    read_flow: Flow,
    /// A write of the engine is under way: user code that it runs may write, too.
    writing: bool,
    /// It did.
    written_inside: bool,
    /// The protocol's buffer was filled: the engine may have more.
    more: bool,
    /// The stream below asked for a pause.
    send_paused: bool,
    read_paused: bool,
    /// The stream below ended.
    ended: bool,
    closed: bool,
    /// The time of the closing counts.
    timed: bool,
    /// The closing handshake is over.
    unwrapped: bool,
    lost: bool,
    writes_after_close: u32,
}

impl<C: AsRef<[u8]>> Tls<C> {
    /// `made`: the user's protocol has its `connection_made` behind it (`start_tls`).
    #[must_use]
    pub fn new(made: bool) -> Self {
        let marked = |high| {
            let mut flow = Flow::default();
            // One mark cannot contradict another that follows it.
            let _never = flow.set_limits(Some(high), None);
            flow
        };
        Self {
            phase: Phase::Unwrapped,
            app: if made { App::Made } else { App::Init },
            backlog: Outbox::default(),
            discarded: VecDeque::new(),
            records: Records::default(),
            held: 0,
            below: 0,
            flow: marked(WRITE_HIGH),
            read_flow: marked(READ_HIGH),
            writing: false,
            written_inside: false,
            more: false,
            send_paused: false,
            read_paused: false,
            ended: false,
            closed: false,
            timed: false,
            unwrapped: false,
            lost: false,
            writes_after_close: 0,
        }
    }

    // ---- getters

    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Plaintext is to be decrypted now.
    #[must_use]
    pub fn wants_read(&self) -> bool {
        let open = matches!(self.phase, Phase::Wrapped | Phase::Flushing) && self.app == App::Made;
        open && (self.closed || !self.read_paused)
    }

    /// What is decrypted is handed out, not dropped.
    #[must_use]
    pub fn hands_out(&self) -> bool {
        !self.closed
    }

    /// Ciphertext may be handed to the stream below.
    #[must_use]
    pub fn may_send(&self) -> bool {
        !self.send_paused && !self.lost
    }

    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// It is closed, or closing because the stream below ended: what is written goes nowhere.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closed || matches!(self.phase, Phase::Flushing | Phase::Shutdown)
    }

    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    #[must_use]
    pub fn is_read_paused(&self) -> bool {
        self.read_paused
    }

    #[must_use]
    pub fn is_write_paused(&self) -> bool {
        self.flow.is_paused()
    }

    /// Plaintext that waits to be encrypted and ciphertext that waits for the stream below, bytes.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.backlog.size() + self.held
    }

    /// The stream below asked for a pause.
    #[must_use]
    pub fn is_send_paused(&self) -> bool {
        self.send_paused
    }

    /// `(low, high)` of writing, bytes.
    #[must_use]
    pub fn limits(&self) -> (usize, usize) {
        self.flow.limits()
    }

    /// `(low, high)` of the ciphertext that may wait to be read, bytes.
    #[must_use]
    pub fn read_limits(&self) -> (usize, usize) {
        self.read_flow.limits()
    }

    /// The plaintext to encrypt next, front first.
    pub fn backlog(&self) -> impl Iterator<Item = &[u8]> {
        self.backlog.slices()
    }

    // ---- the stream below

    /// The stream below is there: the handshake begins.
    pub fn handle_made(&mut self) -> Step {
        if self.phase != Phase::Unwrapped || self.closed || self.lost {
            return Step::ABORT.when(self.closed && !self.lost);
        }
        self.phase = Phase::Handshake;
        Step::WATCH_HANDSHAKE | Step::HANDSHAKE
    }

    /// The stream below had paused the user's protocol before it was this machine's: it has `below` bytes buffered.
    pub fn inherit_pause(&mut self, below: usize) {
        self.send_paused = true;
        self.below = below;
        if self.app == App::Made {
            self.flow.inherit_pause();
        }
    }

    /// A part of the ciphertext that came was fed to the engine.
    pub fn handle_part(&mut self, part: &[u8]) {
        self.records.handle_fed(part);
    }

    /// Ciphertext that was fed and is the beginning of a record that is not whole, bytes.
    #[must_use]
    pub fn tail(&self) -> usize {
        self.records.tail()
    }

    /// All of the ciphertext that came was fed to the engine.
    pub fn handle_fed(&mut self) -> Step {
        match self.phase {
            Phase::Unwrapped => Step::NONE,
            Phase::Handshake => Step::HANDSHAKE,
            Phase::Wrapped | Phase::Flushing => Step::READ,
            Phase::Shutdown => self.shut_down(),
        }
    }

    /// The stream below ended. `None`: in the handshake, which has failed: [`Tls::fail_handshake`].
    pub fn handle_end(&mut self) -> Option<Step> {
        self.ended = true;
        match self.phase {
            Phase::Unwrapped => Some(Step::NONE),
            Phase::Handshake => None,
            Phase::Wrapped => {
                self.phase = Phase::Flushing;
                Some(self.flush())
            }
            Phase::Flushing => {
                self.phase = Phase::Shutdown;
                Some(Step::WRITE.when(!self.backlog.is_empty()) | self.shut_down())
            }
            Phase::Shutdown => Some(self.shut_down()),
        }
    }

    /// Whether the stream below stays open though it ended: what has arrived waits for the user.
    #[must_use]
    pub fn keeps_open(&self) -> bool {
        self.phase == Phase::Flushing && !self.closed && (self.read_paused || self.more)
    }

    /// The stream below wants no more ciphertext for now: it has `below` bytes buffered.
    pub fn handle_paused(&mut self, below: usize) -> FlowSignal {
        self.send_paused = true;
        self.below = below;
        self.poll_buffered()
    }

    /// The stream below wants ciphertext again.
    pub fn handle_unpaused(&mut self) -> Step {
        self.send_paused = false;
        self.below = 0;
        Step::SEND.when(!self.lost) | Step::CLOSE.when(self.phase == Phase::Shutdown && self.unwrapped)
    }

    /// The stream below is lost.
    pub fn handle_lost(&mut self) -> Step {
        if self.lost {
            return Step::NONE;
        }
        self.lost = true;
        self.closed = true;
        (self.held, self.below) = (0, 0);
        self.discarded.append(&mut self.backlog.take());
        self.writes_after_close = self.writes_after_close.saturating_add(1);
        let tell = matches!(self.app, App::Made | App::Eof);
        if tell {
            self.app = App::Lost;
        }
        self.phase = Phase::Unwrapped;
        Step::UNWATCH | Step::DISCARD.when(!self.discarded.is_empty()) | Step::LOSE.when(tell)
    }

    // ---- the engine answered

    /// The handshake went as far as it can; `done`: to its end.
    pub fn handle_handshake(&mut self, done: bool) -> Step {
        if self.phase != Phase::Handshake {
            return Step::NONE;
        }
        if !done {
            return Step::SEND;
        }
        self.phase = Phase::Wrapped;
        let made = self.app == App::Init;
        if made {
            self.app = App::Made;
        }
        Step::UNWATCH | Step::MADE.when(made) | Step::READY | Step::READ
    }

    /// The handshake failed, at one end or by the clock. True unless it was over.
    pub fn fail_handshake(&mut self) -> bool {
        let failed = self.phase == Phase::Handshake;
        if failed {
            self.phase = Phase::Unwrapped;
            self.closed = true;
        }
        failed
    }

    /// What there was to read was read; `unread` is what is left of the ciphertext, bytes.
    pub fn end_read(&mut self, unread: usize) -> (Step, FlowSignal) {
        let send = if self.lost {
            Step::NONE
        } else if self.backlog.is_empty() {
            Step::SEND
        } else {
            Step::WRITE.when(matches!(self.phase, Phase::Wrapped | Phase::Flushing))
        };
        (send, self.poll_unread(unread))
    }

    /// What of the ciphertext is unread may call for a pause of the stream below, or the end of one.
    pub fn poll_unread(&mut self, unread: usize) -> FlowSignal {
        let unread = match self.phase {
            Phase::Wrapped | Phase::Flushing if self.closed => 0,
            Phase::Wrapped | Phase::Flushing if self.read_paused => unread,
            Phase::Wrapped | Phase::Flushing => unread.saturating_sub(RECORD_MAX),
            Phase::Unwrapped | Phase::Handshake | Phase::Shutdown => 0,
        };
        if self.lost { FlowSignal::Nothing } else { FlowSignal::by(&mut self.read_flow, unread) }
    }

    /// The protocol's buffer is full: [`Tls::handle_resumed`] is to be called in the next turn, so that others get theirs
    /// first.
    pub fn handle_full(&mut self) {
        self.more = true;
    }

    /// The engine is about to be read: whether it may have plaintext though no ciphertext waits.
    #[must_use]
    pub fn begin_read(&mut self) -> bool {
        std::mem::take(&mut self.more)
    }

    /// The peer's `close_notify` came. After the step ran, [`Tls::close`].
    pub fn handle_close_notify(&mut self) -> Step {
        if matches!(self.phase, Phase::Wrapped | Phase::Flushing) { self.tell_eof() } else { Step::NONE }
    }

    /// A write of the queue begins; false while one is under way.
    #[must_use]
    pub fn begin_write(&mut self) -> bool {
        !std::mem::replace(&mut self.writing, true)
    }

    /// The engine encrypted `n` bytes of the backlog.
    pub fn handle_written(&mut self, n: usize) {
        if !self.lost {
            self.backlog.advance(n);
        }
    }

    /// The write is over: its ciphertext is to be sent, after that of what was written meanwhile. `broken_off`: the engine
    /// takes more of what is queued.
    pub fn end_write(&mut self, broken_off: bool) -> Step {
        self.writing = false;
        let more = (std::mem::take(&mut self.written_inside) || broken_off) && !self.backlog.is_empty();
        let wrapped = matches!(self.phase, Phase::Wrapped | Phase::Flushing);
        Step::WRITE.when(more && wrapped) | Step::SEND | Step::FLUSHED.when(self.phase == Phase::Flushing)
    }

    /// `held` bytes of ciphertext are left after a send, or as the stream below takes none for now, which has `below` bytes
    /// buffered.
    pub fn handle_taken(&mut self, held: usize, below: usize) -> FlowSignal {
        self.held = if self.lost { 0 } else { held };
        self.below = if self.send_paused { below } else { 0 };
        self.poll_buffered()
    }

    /// The closing handshake went as far as it can; `done`: to its end.
    pub fn handle_unwrapped(&mut self, done: bool) -> Step {
        if self.phase != Phase::Shutdown || self.unwrapped {
            return Step::NONE;
        }
        if !done {
            return Step::SEND;
        }
        self.unwrapped = true;
        // A connection below would drop what it is given after that.
        Step::SEND | self.tell_eof() | self.watch_shutdown() | Step::CLOSE.when(!self.send_paused)
    }

    // ---- the clock

    /// The time of the closing is over: true when the stream below is to be aborted.
    #[must_use]
    pub fn is_shutdown_overdue(&self) -> bool {
        matches!(self.phase, Phase::Flushing | Phase::Shutdown)
    }

    // ---- the user wants

    /// A write is about to be made; one that is to be encrypted at once has begun, until [`Tls::end_write`].
    pub fn admit(&mut self) -> Admit {
        match self.phase {
            Phase::Wrapped if self.backlog.is_empty() && !self.writing => {
                self.writing = true;
                Admit::Encrypt
            }
            Phase::Wrapped | Phase::Handshake => Admit::Queue,
            Phase::Unwrapped if !self.closed && !self.lost => Admit::Queue,
            Phase::Unwrapped | Phase::Flushing | Phase::Shutdown => {
                let warn = self.writes_after_close >= WRITES_BEFORE_WARNING;
                self.writes_after_close = self.writes_after_close.saturating_add(1);
                Admit::Drop { warn }
            }
        }
    }

    /// Queues plaintext.
    pub fn enqueue(&mut self, chunk: C) -> Step {
        if self.lost {
            self.discarded.push_back(chunk);
            return Step::DISCARD;
        }
        self.written_inside |= self.writing;
        self.backlog.push(chunk, 0);
        Step::WRITE.when(self.phase == Phase::Wrapped)
    }

    /// Queues what is left of plaintext that was to be encrypted at once, of which the engine took `done` bytes: it goes
    /// before what was written meanwhile.
    pub fn enqueue_rest(&mut self, chunk: C, done: usize) -> Step {
        if self.lost {
            self.discarded.push_back(chunk);
            return Step::DISCARD;
        }
        self.backlog.push_front(chunk, done);
        Step::NONE
    }

    /// What is buffered may call for a pause of the user's protocol, or the end of one.
    pub fn poll_buffered(&mut self) -> FlowSignal {
        let size = self.buffered() + self.below;
        if self.lost || self.app == App::Init { FlowSignal::Nothing } else { FlowSignal::by(&mut self.flow, size) }
    }

    /// Closes the connection: drops what has arrived, then sends `close_notify`. In the handshake: aborts.
    pub fn close(&mut self) -> Step {
        self.closed = true;
        match self.phase {
            Phase::Handshake => self.abort(),
            Phase::Wrapped => {
                self.phase = Phase::Flushing;
                self.watch_shutdown() | Step::READ | Step::FLUSHED
            }
            // What has arrived waits for the user, who does not want it.
            Phase::Flushing => Step::READ | Step::FLUSHED,
            Phase::Unwrapped | Phase::Shutdown => Step::NONE,
        }
    }

    /// What has arrived was handed out: `close_notify` is next, once what was written is encrypted; a peer that sent its
    /// own is not waited for.
    pub fn begin_unwrap(&mut self) -> Step {
        let written = self.writing || (self.app == App::Made && !self.ended && !self.backlog.is_empty());
        if self.phase != Phase::Flushing || written || self.keeps_open() {
            return Step::NONE;
        }
        self.phase = Phase::Shutdown;
        self.shut_down()
    }

    /// Ends the connection now.
    pub fn abort(&mut self) -> Step {
        self.closed = true;
        self.phase = Phase::Unwrapped;
        Step::ABORT.when(!self.lost)
    }

    /// The stream below is aborted: nothing is handed out any more, or taken.
    pub fn handle_aborted(&mut self) {
        self.closed = true;
        self.phase = Phase::Unwrapped;
    }

    /// Stops decrypting.
    pub fn pause_reading(&mut self) {
        self.read_paused = true;
    }

    /// True when reading was paused: [`Tls::handle_resumed`] is to be called in the next turn.
    #[must_use]
    pub fn resume_reading(&mut self) -> bool {
        std::mem::take(&mut self.read_paused)
    }

    /// Goes on with what was paused.
    pub fn handle_resumed(&mut self) -> Step {
        match self.phase {
            Phase::Wrapped => Step::READ,
            Phase::Flushing => self.flush(),
            Phase::Shutdown => self.shut_down(),
            Phase::Unwrapped | Phase::Handshake => Step::NONE,
        }
    }

    /// Sets the marks of writing. After it, [`Tls::poll_buffered`].
    ///
    /// # Errors
    /// [`LimitsError`] when they contradict each other.
    pub fn set_limits(&mut self, high: usize, low: usize) -> Result<(), LimitsError> {
        self.flow.set_limits(Some(high), Some(low))
    }

    /// Sets the marks of the ciphertext that may wait to be read. After it, [`Tls::poll_unread`].
    ///
    /// # Errors
    /// [`LimitsError`] when they contradict each other.
    pub fn set_read_limits(&mut self, high: usize, low: usize) -> Result<(), LimitsError> {
        self.read_flow.set_limits(Some(high), Some(low))
    }

    /// What was discarded, to be dropped outside the caller's borrow.
    #[must_use]
    pub fn take_discarded(&mut self) -> VecDeque<C> {
        std::mem::take(&mut self.discarded)
    }

    fn flush(&self) -> Step {
        (Step::READ | Step::FLUSHED).when(!self.read_paused)
    }

    /// After the end of the stream below nobody answers `close_notify`, or reads it.
    fn shut_down(&mut self) -> Step {
        if self.ended { self.handle_unwrapped(true) } else { Step::UNWRAP.when(!self.unwrapped) }
    }

    fn tell_eof(&mut self) -> Step {
        let tell = self.app == App::Made;
        if tell {
            self.app = App::Eof;
        }
        Step::EOF.when(tell)
    }

    fn watch_shutdown(&mut self) -> Step {
        Step::WATCH_SHUTDOWN.when(!std::mem::replace(&mut self.timed, true))
    }
}
