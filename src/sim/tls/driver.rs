//! What the layer above `core::tls` does: with what the stream below says, and with each step, in the order of its flags.
//!
//! A connection has a level: 0 is over the stream, 1 is inside the connection of level 0. What is above is the connection
//! of the next level or the user. [`Raised`] is an exception of `connection_made` on its way to the stream below.

use super::engine::{Engine, EngineError};
use super::ops::{Setup, Side, What};
use super::{Event, Sim, Task};
use crate::core::records::Records;
use crate::core::tls::{Admit, Outcome, Phase, RecordEngine, Step, Tls, Told};

/// Ciphertext is fed in parts of this many bytes.
const PART: usize = 600;
/// Plaintext that one call of the engine is given, bytes.
const RECORD: usize = 300;
/// The marks of the stream below are no higher than this, bytes.
const LOWER_HIGH: usize = 1024;

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    pub side: Side,
    pub level: usize,
}

#[derive(Debug)]
pub struct Raised;

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
    records: Records,
    pub timer: Option<Timer>,
}

impl Layer {
    pub fn new(setup: Setup, side: Side, made: bool) -> Self {
        let engine = Engine::new(setup, side);
        Self { tls: Tls::new(made), engine, records: Records::default(), timer: None }
    }
}

/// What one pass over the ciphertext yielded.
#[derive(Debug, Default)]
struct Yield {
    bytes: Vec<u8>,
    closed: bool,
    error: Option<EngineError>,
}

impl Yield {
    fn is_over(&self) -> bool {
        self.closed || self.error.is_some()
    }
}

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

    fn below(at: At) -> Option<At> {
        at.level.checked_sub(1).map(|level| At { level, ..at })
    }

    fn step(&mut self, at: At, f: impl FnOnce(&mut Tls<Vec<u8>>) -> Step) -> Run {
        let step = f(self.tls(at));
        self.run_step(at, step)
    }

    // ---- the stream below

    pub(super) fn handle_made(&mut self, at: At) -> Run {
        let paused = match Self::below(at) {
            None => self.end(at.side).lower.paused,
            Some(outer) => self.tls(outer).is_write_paused(),
        };
        if paused {
            let below = self.buffered_below(at);
            self.tls(at).inherit_pause(below);
        }
        self.step(at, Tls::handle_made)
    }

    pub(super) fn handle_ciphertext(&mut self, at: At, data: &[u8]) -> Run {
        let paused = self.tls(at).is_read_paused();
        let plain = self.buffer_size(at) == 0;
        let mut found = Yield::default();
        for part in data.chunks(PART) {
            let layer = self.layer(at);
            let Ok(()) = layer.engine.feed(part) else { unreachable!("the engine takes what it is fed") };
            layer.records.handle_fed(part);
            if plain && layer.tls.wants_read() && !found.is_over() {
                self.decrypt(at, &mut found);
            }
        }
        let step = self.tls(at).handle_fed();
        if step.has(Step::READ) {
            self.hand_out(at, found)?;
            self.check_fed(at, paused);
            return self.step(at, |tls| if step.has(Step::FLUSHED) { tls.begin_unwrap() } else { Step::NONE });
        }
        self.run_step(at, step)
    }

    pub(super) fn handle_end(&mut self, at: At) -> Run {
        if let Some(step) = self.tls(at).handle_end() {
            return self.run_step(at, step);
        }
        self.handshake_failed(at);
        Ok(())
    }

    pub(super) fn handle_paused(&mut self, at: At) {
        let below = self.buffered_below(at);
        let told = self.tls(at).handle_paused(below);
        self.tell(at, told);
    }

    pub(super) fn handle_unpaused(&mut self, at: At) {
        let step = self.tls(at).handle_unpaused();
        self.run_plain(at, step);
    }

    pub(super) fn handle_lost(&mut self, at: At) {
        self.note_lost(at);
        let unwritten = self.tls(at).backlog().next().is_some();
        let step = self.tls(at).handle_lost();
        assert!(step.has(Step::DISCARD) || !unwritten, "chunks are dropped within the machine");
        self.run_plain(at, step);
    }

    // ---- the handshake and the clock

    fn handshake(&mut self, at: At) -> Run {
        match self.layer(at).engine.handshake() {
            Outcome::Again => self.step(at, |tls| tls.handle_handshake(false)),
            Outcome::Done(()) => self.step(at, |tls| tls.handle_handshake(true)),
            Outcome::Failed(_) => {
                self.handshake_failed(at);
                Ok(())
            }
        }
    }

    fn handshake_failed(&mut self, at: At) {
        if self.tls(at).fail_handshake() {
            self.send(at);
            self.fatal(at);
        }
    }

    /// The time of what is watched is over.
    pub(super) fn handle_overdue(&mut self, at: At) {
        match self.layer(at).timer.take() {
            Some(Timer::Handshake) if self.tls(at).phase() == Phase::Handshake => self.fatal(at),
            Some(Timer::Shutdown) if self.tls(at).is_shutdown_overdue() => self.abort_lower(at),
            _ => {}
        }
    }

    // ---- reading

    fn decrypt(&mut self, at: At, found: &mut Yield) {
        let layer = self.layer(at);
        let mut more = layer.tls.begin_read();
        let tail = layer.records.tail();
        loop {
            let max = match layer.engine.unread() {
                Ok(_) if std::mem::take(&mut more) => RECORD + 1,
                Ok(unread) if unread > tail => unread.min(RECORD + 1),
                Ok(_) => return,
                Err(error) => return found.error = Some(error),
            };
            loop {
                match layer.engine.read(max) {
                    Outcome::Done(bytes) if bytes.is_empty() => return found.closed = true,
                    Outcome::Done(bytes) => {
                        found.bytes.extend(&bytes);
                        if bytes.len() < max {
                            break;
                        }
                    }
                    Outcome::Again => return,
                    Outcome::Failed(error) => return found.error = Some(error),
                }
            }
        }
    }

    fn hand_out(&mut self, at: At, mut found: Yield) -> Run {
        let hands_out = self.tls(at).hands_out();
        if self.buffer_size(at) > 0 && hands_out {
            found = self.fill(at);
        } else {
            if !found.is_over() && self.tls(at).wants_read() {
                self.decrypt(at, &mut found);
            }
            if hands_out && !found.bytes.is_empty() && self.deliver_plaintext(at, &found.bytes).is_err() {
                self.fatal(at);
            }
        }
        if let Some(error) = found.error {
            self.note_failure(at, error);
            self.fatal(at);
        }
        if found.closed {
            self.step(at, Tls::handle_close_notify)?;
            self.step(at, Tls::close)?;
        }
        let unread = self.unread(at);
        let (step, told) = self.tls(at).end_read(unread);
        // User code that the step runs may have more told.
        self.tell_lower(at, told);
        self.run_step(at, step)
    }

    fn deliver_plaintext(&mut self, at: At, bytes: &[u8]) -> Run {
        match self.above(at) {
            Some(inner) => self.handle_ciphertext(inner, bytes),
            None => self.data_received(at.side, bytes),
        }
    }

    fn fill(&mut self, at: At) -> Yield {
        let mut found = Yield::default();
        if !self.tls(at).wants_read() {
            return found;
        }
        let size = self.buffer_size(at);
        let layer = self.layer(at);
        let _more = layer.tls.begin_read();
        if layer.engine.unread().unwrap_or_default() <= layer.records.tail() && layer.engine.pending() == 0 {
            return found;
        }
        while found.bytes.len() < size {
            match self.layer(at).engine.read(size - found.bytes.len()) {
                Outcome::Done(bytes) if bytes.is_empty() => found.closed = true,
                Outcome::Done(bytes) => {
                    found.bytes.extend(bytes);
                    continue;
                }
                Outcome::Again => {}
                Outcome::Failed(error) => found.error = Some(error),
            }
            break;
        }
        if found.bytes.len() == size && !found.is_over() {
            self.tls(at).handle_full();
            self.tasks.push_back(Task::Resumed(at));
        }
        if !found.bytes.is_empty() && self.data_received(at.side, &found.bytes).is_err() {
            self.fatal(at);
            return Yield::default();
        }
        found
    }

    fn unread(&mut self, at: At) -> usize {
        self.layer(at).engine.unread().unwrap_or_default()
    }

    pub(super) fn tell_unread(&mut self, at: At) {
        let unread = self.unread(at);
        let told = self.tls(at).poll_unread(unread);
        self.tell_lower(at, told);
    }

    fn tell_lower(&mut self, at: At, told: Told) {
        let pause = match told {
            Told::Nothing => return,
            Told::Pause => true,
            Told::Resume => false,
        };
        match (Self::below(at), pause) {
            (None, _) => self.end(at.side).lower.read_paused = pause,
            (Some(outer), true) => self.tls(outer).pause_reading(),
            (Some(outer), false) => self.resume_reading(outer),
        }
    }

    pub(super) fn resume_reading(&mut self, at: At) {
        if self.tls(at).resume_reading() {
            self.tasks.push_back(Task::Resumed(at));
        }
    }

    pub(super) fn handle_resumed(&mut self, at: At) {
        let step = self.tls(at).handle_resumed();
        self.run_plain(at, step);
    }

    // ---- writing

    pub(super) fn write_now(&mut self, at: At, data: &[u8]) {
        let admitted = self.tls(at).admit();
        self.note_admitted(at, data.len(), admitted);
        match admitted {
            Admit::Encrypt => {
                let (done, error) = self.write_all(at, data);
                if done < data.len() && error.is_none() {
                    let step = self.tls(at).enqueue_rest(data.to_vec(), done);
                    self.run_plain(at, step);
                }
                let step = self.tls(at).end_write();
                self.run_plain(at, step);
                self.write_failed(at, error);
            }
            Admit::Queue => {
                self.queue(at, data);
                let told = self.tls(at).poll_buffered();
                self.tell(at, told);
            }
            Admit::Drop { .. } => {}
        }
    }

    fn queue(&mut self, at: At, data: &[u8]) {
        let step = self.tls(at).enqueue(data.to_vec());
        self.run_plain(at, step);
    }

    fn encrypt(&mut self, at: At) {
        if !self.tls(at).begin_write() {
            return;
        }
        let mut failure = None;
        loop {
            let front = self.tls(at).backlog().next().map(|front| front[..front.len().min(RECORD)].to_vec());
            let Some(front) = front else { break };
            match self.write_all(at, &front) {
                (_, Some(error)) => failure = Some(error),
                (0, None) => {}
                (n, None) => {
                    self.tls(at).handle_written(n);
                    continue;
                }
            }
            break;
        }
        let step = self.tls(at).end_write();
        self.run_plain(at, step);
        self.write_failed(at, failure);
    }

    /// Has the engine encrypt all that it takes. User code runs in it.
    fn write_all(&mut self, at: At, data: &[u8]) -> (usize, Option<EngineError>) {
        let mut done = 0;
        while done < data.len() {
            self.run_inside(at);
            match self.layer(at).engine.write(&data[done..data.len().min(done + RECORD)]) {
                Outcome::Done(n) => done += n,
                Outcome::Again => break,
                Outcome::Failed(error) => return (done, Some(error)),
            }
        }
        (done, None)
    }

    fn write_failed(&mut self, at: At, error: Option<EngineError>) {
        if let Some(error) = error {
            self.note_failure(at, error);
            self.fatal(at);
        }
    }

    pub(super) fn send(&mut self, at: At) {
        if self.tls(at).may_send() {
            let bytes = self.layer(at).engine.take().unwrap_or_default();
            if !bytes.is_empty() {
                match Self::below(at) {
                    None => self.lower_write(at.side, &bytes),
                    Some(outer) => self.write_now(outer, &bytes),
                }
            }
        }
        // The stream below may have asked for a pause, and the user written.
        let held = if self.tls(at).may_send() { 0 } else { self.layer(at).engine.held() };
        let below = if self.tls(at).is_send_paused() { self.buffered_below(at) } else { 0 };
        let told = self.tls(at).handle_taken(held, below);
        self.tell(at, told);
    }

    pub(super) fn set_limits(&mut self, at: At, high: usize, low: usize) {
        if self.tls(at).set_limits(high, low).is_err() {
            return;
        }
        let (high, low) = (high.min(LOWER_HIGH), low.min(LOWER_HIGH / 4));
        match Self::below(at) {
            None => self.lower_limit(at.side, high, low),
            Some(outer) => self.set_limits(outer, high, low),
        }
        let told = self.tls(at).poll_buffered();
        self.tell(at, told);
    }

    fn buffered_below(&mut self, at: At) -> usize {
        match Self::below(at) {
            None => self.end(at.side).lower.buffered(),
            Some(outer) => self.tls(outer).buffered(),
        }
    }

    fn tell(&mut self, at: At, told: Told) {
        match (told, self.above(at)) {
            (Told::Nothing, _) => {}
            (Told::Pause, Some(inner)) => self.handle_paused(inner),
            (Told::Resume, Some(inner)) => self.handle_unpaused(inner),
            (Told::Pause, None) => self.pause_writing(at.side),
            (Told::Resume, None) => self.resume_writing(at.side),
        }
    }

    // ---- the end

    pub(super) fn close(&mut self, at: At) {
        let step = self.tls(at).close();
        self.run_plain(at, step);
    }

    pub(super) fn abort(&mut self, at: At) {
        if self.tls(at).abort().has(Step::ABORT) {
            self.abort_lower(at);
        }
    }

    fn shut_down(&mut self, at: At) -> Run {
        let engine = &self.layer(at).engine;
        let left = !engine.notify_sent() && engine.has_plaintext();
        assert!(!left, "data that arrived before close_notify was sent would be an error behind it");
        match self.layer(at).engine.shutdown() {
            Outcome::Done(()) => self.step(at, |tls| tls.handle_unwrapped(true)),
            Outcome::Again => self.step(at, |tls| tls.handle_unwrapped(false)),
            Outcome::Failed(error) => {
                self.note_failure(at, error);
                self.fatal(at);
                Ok(())
            }
        }
    }

    fn deliver_eof(&mut self, at: At) -> Run {
        if let Some(inner) = self.above(at) {
            return self.handle_end(inner);
        }
        if self.eof_received(at.side).is_err() {
            self.fatal(at);
        }
        Ok(())
    }

    fn close_lower(&mut self, at: At) {
        match Self::below(at) {
            None => self.lower_close(at.side),
            Some(outer) => self.close(outer),
        }
    }

    fn abort_lower(&mut self, at: At) {
        self.tls(at).handle_aborted();
        match Self::below(at) {
            None if self.end(at.side).lower.started => self.lower_abort(at.side),
            None => {}
            Some(outer) => self.abort(outer),
        }
    }

    /// An exception ends the connection.
    pub(super) fn fatal(&mut self, at: At) {
        self.events.push(Event(at.side, What::Failed));
        self.abort_lower(at);
    }

    // ---- steps

    /// A step that cannot raise: only a handshake makes connections.
    fn run_plain(&mut self, at: At, step: Step) {
        assert!(!step.has(Step::HANDSHAKE | Step::MADE));
        if self.run_step(at, step).is_err() {
            self.fatal(at);
        }
    }

    fn run_step(&mut self, at: At, step: Step) -> Run {
        if step.has(Step::UNWATCH) {
            self.layer(at).timer = None;
        }
        if step.has(Step::WATCH_HANDSHAKE) {
            self.watch(at, Timer::Handshake);
        }
        if step.has(Step::WATCH_SHUTDOWN) {
            self.watch(at, Timer::Shutdown);
        }
        if step.has(Step::HANDSHAKE) {
            self.handshake(at)?;
        }
        if step.has(Step::MADE) {
            match self.above(at) {
                Some(inner) => self.handle_made(inner)?,
                None => self.connection_made(at.side)?,
            }
        }
        if step.has(Step::READY) {
            assert!(self.layer(at).engine.is_made(), "ready before the handshake is over");
        }
        if step.has(Step::READ) {
            self.hand_out(at, Yield::default())?;
        }
        if step.has(Step::WRITE) {
            self.encrypt(at);
        }
        if step.has(Step::SEND) {
            self.send(at);
        }
        if step.has(Step::FLUSHED) {
            self.step(at, Tls::begin_unwrap)?;
        }
        if step.has(Step::UNWRAP) {
            self.shut_down(at)?;
        }
        if step.has(Step::EOF) {
            self.deliver_eof(at)?;
        }
        if step.has(Step::CLOSE) {
            self.close_lower(at);
        }
        if step.has(Step::ABORT) {
            self.abort_lower(at);
        }
        if step.has(Step::DISCARD) {
            assert!(!self.tls(at).take_discarded().is_empty(), "nothing to discard");
        }
        if step.has(Step::LOSE) {
            self.tasks.push_back(Task::Lost(at));
        }
        Ok(())
    }

    fn watch(&mut self, at: At, timer: Timer) {
        self.layer(at).timer = Some(timer);
    }
}
