//! The simulation as the surroundings of the TLS driver.
//!
//! A connection has a level: 0 is over the stream, 1 is inside the connection of level 0. What is above is the connection
//! of the next level or the user.

use super::engine::{Engine, EngineError};
use super::ops::{Setup, Side, What};
use super::{Event, Sim, Task};
use crate::core::drive::tls::{self as drive, Culprit, Host};
use crate::core::tls::{Outcome, Phase, RecordEngine, Tls};

/// Plaintext that one call of the engine is given, bytes.
const RECORD: usize = 300;
/// Of a longer write, so many bytes go to the stream below at once.
const SLICE: usize = 4 * RECORD;
/// The marks of the stream below are no higher than this, bytes.
const LOWER_HIGH: usize = 1024;

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    pub side: Side,
    pub level: usize,
}

/// What is on its way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    Engine(EngineError),
    /// An exception of a callback.
    User,
    /// An exception that ends the run of the loop.
    Exit,
    /// The stream below ended in the handshake.
    Reset,
    Overdue(Timer),
}

pub type Run = Result<(), Raised>;

/// The time that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    Handshake,
    Shutdown,
}

/// One connection.
#[derive(Debug)]
pub struct Layer {
    pub tls: Tls<Vec<u8>>,
    pub engine: Engine,
    pub timer: Option<Timer>,
    /// What is in the buffer that the protocol lends.
    lent: Vec<u8>,
    /// Ciphertext that was unread when the last came, bytes.
    waited: usize,
    /// The stream below took ciphertext when the write began.
    sends: bool,
}

impl Layer {
    pub fn new(setup: Setup, side: Side, made: bool) -> Self {
        let engine = Engine::new(setup, side);
        Self { tls: Tls::new(made), engine, timer: None, lent: Vec::new(), waited: 0, sends: false }
    }
}

/// A connection in its surroundings.
#[derive(Debug)]
pub struct Connection<'a> {
    sim: &'a mut Sim,
    at: At,
}

impl At {
    fn below(self) -> Option<Self> {
        self.level.checked_sub(1).map(|level| Self { level, ..self })
    }
}

fn outcome<T>(outcome: Outcome<T, EngineError>) -> Outcome<T, Raised> {
    match outcome {
        Outcome::Done(value) => Outcome::Done(value),
        Outcome::Again => Outcome::Again,
        Outcome::Failed(error) => Outcome::Failed(Raised::Engine(error)),
    }
}

/// What the stream below, the user and the loop call.
impl Sim {
    pub(super) fn layer(&mut self, at: At) -> &mut Layer {
        &mut self.end(at.side).layers[at.level]
    }

    fn tls(&mut self, at: At) -> &mut Tls<Vec<u8>> {
        &mut self.layer(at).tls
    }

    /// The connection above, or else the user.
    fn above(&self, at: At) -> Option<At> {
        (at.level + 1 < self.levels()).then_some(At { level: at.level + 1, ..at })
    }

    fn drive(&mut self, at: At, call: impl FnOnce(&mut Connection<'_>) -> Run) -> Run {
        call(&mut Connection { sim: self, at })
    }

    /// What cannot raise: only a handshake makes connections, and all else of the user's ends its own.
    fn drive_plain(&mut self, at: At, call: impl FnOnce(&mut Connection<'_>) -> Run) {
        match self.drive(at, call) {
            Err(Raised::Exit) => self.heard += 1,
            result => assert_eq!(result, Ok(()), "raised out of turn"),
        }
    }

    pub(super) fn handle_made(&mut self, at: At) -> Run {
        let paused = match at.below() {
            None => self.end(at.side).lower.paused,
            Some(outer) => self.tls(outer).is_write_paused(),
        };
        let paused = paused.then(|| self.buffered_below(at));
        self.drive(at, |host| drive::handle_made(host, paused))
    }

    pub(super) fn handle_ciphertext(&mut self, at: At, data: &[u8]) -> Run {
        let Layer { tls, engine, waited, .. } = self.layer(at);
        *waited = engine.unread();
        let (phase, paused) = (tls.phase(), tls.is_read_paused());
        self.drive(at, |host| drive::handle_ciphertext(host, data))?;
        // What the handshake leaves behind is not what was fed.
        if matches!(phase, Phase::Wrapped | Phase::Flushing) {
            self.check_fed(at, paused);
        }
        Ok(())
    }

    pub(super) fn handle_end(&mut self, at: At) -> Run {
        self.drive(at, |host| drive::handle_end(host))
    }

    pub(super) fn handle_paused(&mut self, at: At) {
        self.drive_plain(at, |host| drive::handle_paused(host));
    }

    pub(super) fn handle_unpaused(&mut self, at: At) {
        self.drive_plain(at, |host| drive::handle_unpaused(host));
    }

    pub(super) fn handle_lost(&mut self, at: At) {
        self.note_lost(at);
        self.drive_plain(at, |host| drive::handle_lost(host));
        assert!(self.tls(at).is_lost());
    }

    /// The time of what is watched is over.
    pub(super) fn handle_overdue(&mut self, at: At) {
        match self.layer(at).timer.take() {
            Some(Timer::Handshake) => self.drive_plain(at, |host| drive::handle_handshake_overdue(host)),
            Some(Timer::Shutdown) => self.drive_plain(at, |host| drive::handle_shutdown_overdue(host)),
            None => {}
        }
    }

    pub(super) fn handle_resumed(&mut self, at: At) {
        self.drive_plain(at, |host| drive::handle_resumed(host));
    }

    pub(super) fn write_now(&mut self, at: At, data: &[u8]) {
        let sliced = at.level == 0 && data.len() > SLICE && self.tls(at).may_send();
        let outer = std::mem::replace(&mut self.end(at.side).lower.sliced, sliced);
        self.note_written(at, data.len(), |sim| sim.drive_plain(at, |host| drive::write(host, data.to_vec())));
        self.end(at.side).lower.sliced = outer;
    }

    /// What the engine has to say by itself is sent.
    pub(super) fn send(&mut self, at: At) {
        self.drive_plain(at, |host| drive::send(host));
    }

    pub(super) fn set_limits(&mut self, at: At, high: usize, low: usize) {
        let before = self.tls(at).limits();
        // A callback may set others.
        let alone = self.user(at.side).reactions.is_empty();
        self.drive_plain(at, |host| drive::set_limits(host, high, low).map(drop));
        let limits = if low > high { before } else { (low, high) };
        assert!(!alone || self.tls(at).limits() == limits);
    }

    pub(super) fn set_read_limits(&mut self, at: At, high: usize, low: usize) {
        let before = self.tls(at).read_limits();
        let alone = self.user(at.side).reactions.is_empty();
        self.drive_plain(at, |host| drive::set_read_limits(host, high, low).map(drop));
        let limits = if low > high { before } else { (low, high) };
        assert!(!alone || self.tls(at).read_limits() == limits);
    }

    pub(super) fn resume_reading(&mut self, at: At) {
        self.drive_plain(at, |host| drive::resume_reading(host));
    }

    pub(super) fn close(&mut self, at: At) {
        self.drive_plain(at, |host| drive::close(host));
    }

    pub(super) fn abort(&mut self, at: At) {
        self.drive_plain(at, |host| drive::abort(host, None));
    }

    fn buffered_below(&mut self, at: At) -> usize {
        match at.below() {
            None => self.end(at.side).lower.buffered(),
            Some(outer) => self.tls(outer).buffered(),
        }
    }
}

impl RecordEngine for Connection<'_> {
    type Error = Raised;
    type Bytes = Vec<u8>;

    fn feed(&mut self, ciphertext: &[u8]) -> Run {
        let reads = self.takes_bytes() && !self.sim.tainted;
        let Layer { tls, engine, waited, .. } = self.sim.layer(self.at);
        let over = engine.notify_received() || engine.failure().is_some();
        let piled = engine.unread().saturating_sub(*waited);
        assert!(piled <= Self::PART || !reads || over || !tls.wants_read(), "{piled} bytes pile up in the engine");
        engine.feed(ciphertext);
        Ok(())
    }

    fn handshake(&mut self) -> Outcome<(), Raised> {
        outcome(self.sim.layer(self.at).engine.handshake())
    }

    fn read(&mut self, max: usize) -> Outcome<Vec<u8>, Raised> {
        self.check_read();
        outcome(self.sim.layer(self.at).engine.read(max))
    }

    fn shutdown(&mut self) -> Outcome<(), Raised> {
        let engine = &self.sim.layer(self.at).engine;
        let left = !engine.notify_sent() && engine.has_plaintext();
        assert!(!left, "data that arrived before close_notify was sent would be an error behind it");
        outcome(engine.shutdown())
    }

    fn unread(&mut self) -> Result<usize, Raised> {
        Ok(self.sim.layer(self.at).engine.unread())
    }

    fn pending(&mut self) -> Result<usize, Raised> {
        Ok(self.sim.layer(self.at).engine.pending())
    }

    fn held(&mut self) -> Result<usize, Raised> {
        Ok(self.sim.layer(self.at).engine.held())
    }

    fn take(&mut self) -> Result<Vec<u8>, Raised> {
        Ok(self.sim.layer(self.at).engine.take())
    }
}

impl Connection<'_> {
    /// The engine is asked for plaintext only where some may be, unless a buffer was too small for what there was.
    fn check_read(&mut self) {
        let excused = self.sim.tainted
            || self.sim.setup.greedy
            || (self.at == self.sim.top(self.at.side) && self.sim.user(self.at.side).lent);
        let engine = &self.sim.layer(self.at).engine;
        let over = engine.notify_received() || engine.failure().is_some();
        assert!(excused || over || engine.has_record(), "read in vain");
    }
}

impl Host for Connection<'_> {
    type Chunk = Vec<u8>;
    type Plain = Vec<u8>;
    /// The size of the buffer that it lends.
    type Protocol = usize;
    type Buffer = ();
    type Waiter = ();

    const RECORD: usize = RECORD;
    const SLICE: usize = SLICE;

    fn machine<R>(&mut self, f: impl FnOnce(&mut Tls<Vec<u8>>) -> R) -> R {
        f(self.sim.tls(self.at))
    }

    // ---- errors

    fn is_exit(&self, error: &Raised) -> bool {
        *error == Raised::Exit
    }

    fn is_exception(&self, error: &Raised) -> bool {
        *error != Raised::Exit
    }

    fn report_fatal(&mut self, error: &Raised, culprit: Culprit) -> Run {
        if let Raised::Engine(error) = *error
            && culprit != Culprit::Handshake
        {
            self.sim.note_failure(self.at, error);
        }
        Ok(())
    }

    fn report_flow(&mut self, error: &Raised, method: &'static str) -> Run {
        assert_eq!(*error, Raised::User, "{method} was reported");
        self.sim.unreported = self.sim.unreported.checked_sub(1).expect("reported twice");
        Ok(())
    }

    fn reset_error(&mut self) -> Raised {
        Raised::Reset
    }

    fn handshake_overdue(&mut self) -> Result<Raised, Raised> {
        Ok(Raised::Overdue(Timer::Handshake))
    }

    fn shutdown_overdue(&mut self) -> Raised {
        Raised::Overdue(Timer::Shutdown)
    }

    // ---- the engine, besides

    fn read_into(&mut self, (): &mut (), offset: usize, max: usize) -> Outcome<usize, Raised> {
        let Layer { engine, lent, .. } = self.sim.layer(self.at);
        assert_eq!(lent.len(), offset, "a gap in the buffer");
        match engine.read(max) {
            Outcome::Done(bytes) => {
                lent.extend(&bytes);
                Outcome::Done(bytes.len())
            }
            Outcome::Again => Outcome::Again,
            Outcome::Failed(error) => Outcome::Failed(Raised::Engine(error)),
        }
    }

    /// User code runs in it.
    fn write(&mut self, plain: &Vec<u8>, from: usize, to: usize) -> Outcome<usize, Raised> {
        if from == 0 {
            let sends = self.at.level == 0 && self.sim.tls(self.at).may_send();
            self.sim.layer(self.at).sends = sends;
        }
        let closing = self.sim.end(self.at.side).lower.closing;
        let Layer { sends, engine, .. } = self.sim.layer(self.at);
        let at_border = from > 0 && from.is_multiple_of(SLICE);
        assert!(!*sends || to.div_ceil(SLICE) == from / SLICE + 1, "more than a slice at once");
        assert!(!*sends || !at_border || engine.held() == 0, "a slice behind one that was not sent");
        assert!(!*sends || !at_border || !closing, "encrypted for nobody");
        assert!(to - from <= RECORD, "more than a record at once");
        let exits = self.sim.run_inside(self.at) == Err(Raised::Exit);
        match self.sim.layer(self.at).engine.write(&plain[from..to]) {
            // It looks for signals when it has taken a part.
            Outcome::Done(n) if exits && n == to - from => {
                self.sim.exits += 1;
                Outcome::Failed(Raised::Exit)
            }
            taken => outcome(taken),
        }
    }

    fn front(&mut self) -> Option<Vec<u8>> {
        self.sim.tls(self.at).backlog().next().map(|front| front[..front.len().min(RECORD)].to_vec())
    }

    fn join(&mut self, mut first: Vec<u8>, more: Vec<Vec<u8>>) -> Result<Vec<u8>, Raised> {
        first.extend(more.into_iter().flatten());
        Ok(first)
    }

    // ---- the stream below

    fn has_below(&mut self) -> bool {
        true
    }

    fn below_takes_slices(&mut self) -> bool {
        self.at.level == 0
    }

    fn is_below_closing(&mut self) -> bool {
        self.sim.end(self.at.side).lower.closing
    }

    fn buffered_below(&mut self) -> Result<usize, Raised> {
        Ok(self.sim.buffered_below(self.at))
    }

    fn write_below(&mut self, ciphertext: &Vec<u8>) -> Run {
        match self.at.below() {
            None => self.sim.lower_write(self.at.side, ciphertext),
            Some(outer) => {
                assert!(self.sim.tls(self.at).may_send(), "more is sent than was asked for");
                self.sim.write_now(outer, ciphertext);
            }
        }
        Ok(())
    }

    fn uncork_below(&mut self) -> Run {
        Ok(())
    }

    fn limit_below(&mut self, high: usize, low: usize) -> Run {
        let (high, low) = (high.min(LOWER_HIGH), low.min(LOWER_HIGH / 4));
        match self.at.below() {
            None => self.sim.lower_limit(self.at.side, high, low),
            Some(outer) => self.sim.set_limits(outer, high, low),
        }
        Ok(())
    }

    fn pause_below(&mut self) -> Run {
        match self.at.below() {
            None => self.sim.end(self.at.side).lower.read_paused = true,
            Some(outer) => self.sim.tls(outer).pause_reading(),
        }
        Ok(())
    }

    fn resume_below(&mut self) -> Run {
        match self.at.below() {
            None => self.sim.end(self.at.side).lower.read_paused = false,
            Some(outer) => self.sim.resume_reading(outer),
        }
        Ok(())
    }

    fn close_below(&mut self) -> Run {
        match self.at.below() {
            None => self.sim.lower_close(self.at.side),
            Some(outer) => self.sim.close(outer),
        }
        Ok(())
    }

    fn abort_below(&mut self, error: Option<&Raised>) -> Run {
        let At { side, .. } = self.at;
        if error.is_some_and(|error| *error != Raised::Overdue(Timer::Shutdown)) {
            self.sim.events.push(Event(side, What::Failed));
        }
        match self.at.below() {
            None if self.sim.end(side).lower.started => self.sim.lower_abort(side),
            None => {}
            Some(outer) => self.sim.abort(outer),
        }
        Ok(())
    }

    // ---- the protocol above

    fn protocol(&mut self) -> Option<usize> {
        Some(self.sim.buffer_size(self.at))
    }

    fn takes_bytes(&mut self) -> bool {
        self.sim.buffer_size(self.at) == 0
    }

    fn lends_buffers(size: &usize) -> bool {
        *size > 0
    }

    fn deliver(&mut self, _protocol: &usize, plaintext: Vec<u8>) -> Run {
        match self.sim.above(self.at) {
            Some(inner) => self.sim.handle_ciphertext(inner, &plaintext),
            None => self.sim.data_received(self.at.side, &plaintext),
        }
    }

    fn get_buffer(&mut self, size: &usize, hint: usize) -> Result<((), usize), Raised> {
        assert!(hint > 0, "a buffer is asked for in vain");
        self.sim.layer(self.at).lent.clear();
        Ok(((), *size))
    }

    fn buffer_updated(&mut self, _protocol: &usize, n: usize) -> Run {
        let bytes = std::mem::take(&mut self.sim.layer(self.at).lent);
        assert_eq!(bytes.len(), n);
        self.sim.data_received(self.at.side, &bytes)
    }

    fn connection_made(&mut self) -> Run {
        match self.sim.above(self.at) {
            Some(inner) => self.sim.handle_made(inner),
            None => self.sim.connection_made(self.at.side),
        }
    }

    fn eof_received(&mut self) -> Result<bool, Raised> {
        let Some(inner) = self.sim.above(self.at) else { return self.sim.eof_received(self.at.side).map(|()| false) };
        self.sim.handle_end(inner)?;
        Ok(self.sim.tls(inner).keeps_open())
    }

    fn pause_writing(&mut self) -> Run {
        match self.sim.above(self.at) {
            Some(inner) => self.sim.handle_paused(inner),
            None => self.sim.pause_writing(self.at.side)?,
        }
        Ok(())
    }

    fn resume_writing(&mut self) -> Run {
        match self.sim.above(self.at) {
            Some(inner) => self.sim.handle_unpaused(inner),
            None => self.sim.resume_writing(self.at.side)?,
        }
        Ok(())
    }

    fn queue_lost(&mut self) -> Run {
        self.sim.tasks.push_back(Task::Lost(self.at));
        Ok(())
    }

    // ---- others

    fn unwatch(&mut self) -> Run {
        self.sim.layer(self.at).timer = None;
        Ok(())
    }

    fn watch_handshake(&mut self) -> Run {
        self.sim.layer(self.at).timer = Some(Timer::Handshake);
        Ok(())
    }

    fn watch_shutdown(&mut self) -> Run {
        self.sim.layer(self.at).timer = Some(Timer::Shutdown);
        Ok(())
    }

    fn queue_resumed(&mut self) -> Run {
        self.sim.tasks.push_back(Task::Resumed(self.at));
        Ok(())
    }

    fn note_peer(&mut self) -> Run {
        assert!(self.sim.layer(self.at).engine.is_made());
        Ok(())
    }

    fn take_waiter(&mut self) -> Option<()> {
        Some(())
    }

    fn wake(&mut self, (): (), error: Option<&Raised>) -> Run {
        let made = self.sim.layer(self.at).engine.is_made();
        assert!(error.is_some() || made, "ready before the handshake is over");
        Ok(())
    }

    fn warn_kept_open(&mut self) -> Run {
        Ok(())
    }

    fn warn_closed(&mut self) -> Run {
        let user = self.sim.user(self.at.side);
        user.warned += 1;
        Ok(())
    }
}
