//! TLS connections between two scripted users, over streams that cut the ciphertext anywhere.
//!
//! Both ends are `core::drive::tls` over `core::tls`, as it ships, with a fake [`engine`], one inside another if so set up; the
//! simulation is their [`host`]: the streams below, the loop and the users' protocols, whose callbacks take the next queued
//! [`Reaction`].
//!
//! Invariants:
//! - a protocol receives what the other one wrote, in order and once; where nothing broke, all of it, up to a `close`;
//! - it sees `made (data | pause | resume)* eof? (pause | resume)* lost`, `made` after the handshake, nothing after `lost`;
//! - after `abort`, or an exception of `data_received` or `eof_received`, it sees no data and no eof, unless that `abort` was
//!   called in `pause_writing` or `resume_writing`, or by what the engine runs; `abort` sends no `close_notify`;
//! - no data while reading is paused or after `close`, and none that arrived is left behind when it sees the end;
//! - what was written before the handshake, or while the engine could not write, is sent in order and before a close;
//!   `close_notify` is the last record;
//! - `pause` and `resume` alternate; a protocol that is not paused has at most its high mark buffered, with what the
//!   stream below has if that is paused, which then gets nothing more; nothing stays in the
//!   engine that the stream below would take;
//! - where reading is not paused, no whole record waits, unless the next turn takes it, and the stream below is not paused;
//!   where it is, the stream below is paused as soon as more ciphertext waits than its mark allows;
//! - the handshake and the closing are timed, and nothing else; a connection where nothing broke needs no time-out to end;
//! - the engines only see what the other one sent, and are asked for nothing that is an error.
//!
//! A connection inside another is lost with it, whatever it has not handed out.

mod engine;
mod host;
mod lower;
mod ops;
mod user;

use std::collections::VecDeque;

use super::patterned;
use engine::EngineError;
pub use engine::Said;
use host::{At, Layer, Timer};
use lower::Lower;
pub use ops::{Event, Op, Reaction, Setup, Side, What};
use user::User;

use crate::core::records;
use crate::core::tls::Phase;

/// Rounds in which everything must come to rest.
const ROUNDS_MAX: u32 = 1 << 17;

/// Carries out `ops` on two ends.
///
/// # Panics
/// When an invariant does not hold.
#[must_use]
pub fn run(setup: Setup, ops: &[Op]) -> Vec<Event> {
    let mut sim = Sim::new(setup);
    if sim.setup.late {
        // Their users have no other transport before.
        for side in Side::BOTH {
            sim.start(side);
        }
    }
    for &op in ops {
        sim.apply(op);
        sim.check();
    }
    sim.finish();
    sim.events
}

/// A call that the loop has scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Resumed(At),
    /// `connection_lost` of what is above.
    Lost(At),
    LowerLost(Side),
    /// The other end was aborted.
    Reset(Side),
}

/// One end.
#[derive(Debug)]
struct End {
    layers: Vec<Layer>,
    lower: Lower,
    user: User,
    /// Something happened that need not deliver everything.
    broken: bool,
}

#[derive(Debug)]
struct Sim {
    setup: Setup,
    ends: [End; 2],
    tasks: VecDeque<Task>,
    /// What came is not what was sent.
    tainted: bool,
    /// Depth of calls into user code.
    depth: u32,
    /// Exceptions of flow control that were not reported yet; what ends the run of the loop, raised and handed up, since the
    /// last operation.
    unreported: u32,
    exits: u32,
    heard: u32,
    events: Vec<Event>,
}

impl Sim {
    fn new(setup: Setup) -> Self {
        let setup = Setup { late: setup.late && setup.made && !setup.stacked, ..setup };
        let levels = if setup.stacked { 2 } else { 1 };
        let ends = Side::BOTH.map(|side| End {
            layers: (1..=levels).map(|level| Layer::new(setup, side, setup.made && level == levels)).collect(),
            lower: Lower::new(setup.late),
            user: User {
                made: setup.made,
                paused: setup.late,
                buffer: setup.buffers[side as usize].into(),
                slow: setup.buffers[side as usize] > 0,
                lent: setup.buffers[side as usize] > 0,
                ..User::default()
            },
            broken: false,
        });
        Self {
            setup,
            ends,
            tasks: VecDeque::new(),
            tainted: false,
            depth: 0,
            unreported: 0,
            exits: 0,
            heard: 0,
            events: Vec::new(),
        }
    }

    fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    fn user(&mut self, side: Side) -> &mut User {
        &mut self.end(side).user
    }

    fn levels(&self) -> usize {
        self.ends[0].layers.len()
    }

    /// The user's connection.
    fn top(&self, side: Side) -> At {
        At { side, level: self.levels() - 1 }
    }

    /// Every connection of an end, the one over the stream first.
    fn all(&self, side: Side) -> impl Iterator<Item = At> + use<> {
        (0..self.levels()).map(move |level| At { side, level })
    }

    /// Bytes of the buffer of the protocol above; 0: it has none.
    fn buffer_size(&mut self, at: At) -> usize {
        if at == self.top(at.side) { self.user(at.side).buffer } else { 0 }
    }

    fn is_broken(&self) -> bool {
        self.tainted || self.ends.iter().any(|end| end.broken)
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Start(side) => self.start(side),
            Op::Write(side, len) => self.write(side, len),
            Op::Close(side) => self.close_by_user(side),
            Op::Abort(side) => self.abort_by_user(side),
            Op::PauseReading(side) => self.pause_reading(side),
            Op::ResumeReading(side) => self.resume_by_user(side),
            Op::SetLimits(side, high, low) => self.set_marks(side, high, low),
            Op::SetReadLimits(side, high, low) => self.set_read_marks(side, high, low),
            Op::SetBuffer(side, size) => {
                self.user(side).buffer = size.into();
                self.user(side).slow |= size > 0;
                self.user(side).lent |= size > 0;
            }
            Op::React(side, reaction) => self.user(side).reactions.push_back(reaction),
            Op::Inside(side, reaction) => self.user(side).inside.push_back(reaction),
            Op::Say(side, said) => {
                for at in self.all(side) {
                    if self.layer(at).tls.phase() == Phase::Wrapped && self.layer(at).engine.say(said) {
                        self.send(at);
                    }
                }
            }
            Op::Deliver(side, max) => drop(self.deliver(side, max as usize)),
            Op::Bound(side, high, low) => {
                self.lower_limit(side, usize::from(high) * 16, usize::from(low) * 16);
            }
            Op::Cut(side) => {
                self.end(side).broken = true;
                self.lower_end(side);
            }
            Op::Break(side) => self.end(side).lower.breaks = true,
            Op::Reset => Side::BOTH.into_iter().for_each(|side| self.break_stream(side)),
            Op::Flip(side, at) => {
                let outbox = &mut self.end(side).lower.outbox;
                if let Some(byte) = usize::from(at).checked_rem(outbox.len()).and_then(|at| outbox.get_mut(at)) {
                    *byte = !*byte;
                    self.tainted = true;
                }
            }
            Op::Garbage(side, len) => {
                let lower = &mut self.end(side).lower;
                // What a paused stream has buffered counts against the marks above, who would not know of these.
                if lower.started && !lower.losing && !lower.cut && !lower.paused {
                    lower.outbox.extend(patterned(len.into(), len.into()));
                    self.tainted = true;
                }
            }
            Op::Clock(side) => self.all(side).for_each(|at| self.handle_overdue(at)),
            Op::Turn => drop(self.run_turn()),
        }
    }

    fn start(&mut self, side: Side) {
        if !std::mem::replace(&mut self.end(side).lower.started, true) {
            let raised = self.handle_made(At { side, level: 0 });
            assert!(!self.is_broken_by(raised), "the handshake has only begun");
        }
    }

    fn break_stream(&mut self, side: Side) {
        if self.end(side).lower.started {
            self.lower_fail(side);
        }
    }

    /// Runs what was scheduled before this turn; true when there was something.
    fn run_turn(&mut self) -> bool {
        let tasks = std::mem::take(&mut self.tasks);
        let some = !tasks.is_empty();
        for task in tasks {
            match task {
                Task::Resumed(at) => self.handle_resumed(at),
                Task::LowerLost(side) => self.lower_lost(side),
                Task::Reset(side) => self.break_stream(side),
                Task::Lost(at) if at == self.top(at.side) => self.connection_lost(at.side),
                Task::Lost(at) => self.handle_lost(At { level: at.level + 1, ..at }),
            }
        }
        some
    }

    /// Everything arrives; whoever paused goes on, if `resume`.
    fn settle(&mut self, resume: bool) {
        for _ in 0..ROUNDS_MAX {
            let mut moved = self.run_turn();
            for side in Side::BOTH {
                if resume {
                    self.resume_by_user(side);
                }
                moved |= self.deliver(side, usize::MAX);
            }
            self.check();
            if !moved && self.tasks.is_empty() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn finish(&mut self) {
        for side in Side::BOTH {
            self.user(side).reactions.clear();
            self.start(side);
        }
        self.settle(false);
        for side in Side::BOTH {
            let closed = self.user(side).closed;
            let lower = &self.end(side).lower;
            let over = closed && lower.end_told && !lower.paused;
            assert!(!over || lower.closing, "closed at both ends, and open");
        }
        self.settle(true);
        let open = |end: &End| !end.user.closed && !end.user.eof && !end.lower.cut;
        if !self.is_broken() && self.ends.iter().all(open) {
            let [client, server] = &self.ends;
            assert!(client.user.made && server.user.made, "everything arrived, and no connection is made");
            assert_eq!(client.user.received, server.user.written, "everything arrived, and not all is received");
            assert_eq!(server.user.received, client.user.written, "everything arrived, and not all is received");
            assert!(!client.user.paused && !server.user.paused, "everything is sent, and yet paused");
        }
        for side in Side::BOTH {
            self.close_by_user(side);
            self.settle(true);
        }
        let broken = self.is_broken();
        if broken {
            for _ in 0..self.levels() {
                for side in Side::BOTH {
                    self.apply(Op::Clock(side));
                }
                self.settle(true);
            }
        }
        for side in Side::BOTH {
            assert!(self.end(side).lower.lost, "closed, but the stream below never is");
            let (made, owed, lost) = (self.user(side).made, self.user(side).owed, self.user(side).lost);
            assert_eq!(lost, owed, "made: {made}, and lost?");
            let promised = self.user(side).promised;
            let peer = &self.ends[side.other() as usize].user;
            // A connection inside another is lost with it, whatever was not taken.
            let dropped = self.setup.stacked && self.setup.quick != [false; 2] && peer.slow;
            if let Some(promised) = promised.filter(|_| !broken && !dropped) {
                assert_eq!((peer.received, peer.eof), (promised, true), "closed, but not all was received");
            }
            for op in [Op::Write(side, 1), Op::Close(side), Op::Abort(side), Op::PauseReading(side), Op::Turn] {
                self.apply(op);
            }
            self.apply(Op::ResumeReading(side));
            self.settle(true);
        }
    }

    // ---- what holds between operations

    fn check(&mut self) {
        assert_eq!(self.unreported, 0, "an exception that nobody hears of");
        let (exits, heard) = (std::mem::take(&mut self.exits), std::mem::take(&mut self.heard));
        assert_eq!(exits > 0, heard > 0, "{exits} exits, of which {heard} are heard of");
        for side in Side::BOTH {
            for at in self.all(side) {
                let discarded = self.layer(at).tls.take_discarded();
                assert!(discarded.is_empty(), "chunks that nobody drops");
                self.check_one(at);
            }
            let lower = &self.ends[side as usize].lower;
            let over = lower.losing || !lower.started || self.ends[side as usize].layers[0].tls.is_lost();
            assert!(over || lower.paused == self.ends[side as usize].layers[0].tls.is_send_paused());
        }
    }

    fn check_one(&mut self, at: At) {
        let resuming = self.tasks.contains(&Task::Resumed(at));
        let broken = self.end(at.side).lower.losing;
        let paused = self.is_paused_below(at);
        let lower = &self.end(at.side).lower;
        let below = if at.level == 0 && lower.paused { lower.buffered() } else { 0 };
        let end_told = at.level == 0 && self.end(at.side).lower.end_told;
        let started = self.end(at.side).lower.started;
        let closed = self.user(at.side).closed;
        let top = (at == self.top(at.side)).then(|| (self.user(at.side).paused, self.user(at.side).closed));
        let Layer { tls, engine, timer, .. } = self.layer(at);
        let phase = tls.phase();
        if let Some((paused, closed)) = top {
            assert!(!started || tls.is_lost() || tls.is_write_paused() == paused);
            assert!(!closed || tls.is_closed(), "closed, and not closing");
        }
        assert!(!tls.is_closed() || !matches!(phase, Phase::Handshake | Phase::Wrapped), "closed, and not closing");
        if tls.is_lost() {
            assert!(tls.buffered() == 0 && timer.is_none() && phase == Phase::Unwrapped && tls.is_closed());
            return;
        }
        assert!(phase != Phase::Handshake || broken || *timer == Some(Timer::Handshake), "a handshake is timed");
        assert!(*timer != Some(Timer::Handshake) || !engine.is_made() || broken, "the handshake is over, and timed");
        if broken {
            return;
        }
        let closing = phase == Phase::Shutdown || (phase == Phase::Flushing && closed && !end_told);
        assert!(!closing || *timer == Some(Timer::Shutdown), "a closing is timed");
        assert!(*timer != Some(Timer::Shutdown) || matches!(phase, Phase::Flushing | Phase::Shutdown));
        assert!(!tls.may_send() || engine.held() == 0, "{} bytes that nobody will send", engine.held());
        let backlog: usize = tls.backlog().map(<[u8]>::len).sum();
        assert_eq!(tls.buffered(), backlog + engine.held());
        let (low, high) = tls.limits();
        let in_all = tls.buffered() + below;
        let fits = in_all <= high || phase == Phase::Handshake || phase == Phase::Unwrapped;
        assert!(fits || tls.is_write_paused(), "{in_all} buffered and not paused");
        let goes_on = tls.is_send_paused() || tls.buffered() > low;
        assert!(!tls.is_write_paused() || goes_on, "{} buffered and not resumed", tls.buffered());
        let blocked = engine.is_blocked() || !matches!(phase, Phase::Wrapped | Phase::Flushing);
        assert!(backlog == 0 || blocked, "{backlog} bytes that nobody will encrypt");
        if tls.wants_read() {
            assert!(resuming || !engine.has_record(), "a record that nobody will decrypt");
            assert!(resuming || !paused, "the stream below is paused, and nothing will resume it");
        }
        assert!(!paused || phase != Phase::Shutdown, "close_notify of the peer will never come");
        let written = backlog > 0 && !engine.notify_received() && !end_told;
        assert!(
            phase != Phase::Flushing || resuming || (tls.is_read_paused() && !closed) || written,
            "everything is handed out, and not closed"
        );
    }

    /// Bytes were fed; `paused`: reading was, before.
    fn check_fed(&mut self, at: At, paused: bool) {
        let below = self.is_paused_below(at);
        let Layer { tls, engine, .. } = self.layer(at);
        let unread = engine.unread();
        let (_, high) = tls.read_limits();
        let part = if paused { 0 } else { records::RECORD_MAX };
        let same = tls.phase() == Phase::Wrapped && tls.is_read_paused() == paused;
        assert!(!same || below || unread <= high + part, "{unread} bytes unread, and more may come");
    }

    /// The stream below was told to pause.
    fn is_paused_below(&mut self, at: At) -> bool {
        match at.level.checked_sub(1) {
            None => self.end(at.side).lower.read_paused,
            Some(level) => self.layer(At { level, ..at }).tls.is_read_paused(),
        }
    }

    /// Makes a write of `len` bytes, which is taken or dropped as the model has it.
    fn note_written(&mut self, at: At, len: usize, write: impl FnOnce(&mut Self)) {
        if at != self.top(at.side) {
            return write(self);
        }
        let Layer { tls, .. } = self.layer(at);
        let (closing, lost) = (tls.is_closing(), tls.is_lost());
        let user = self.user(at.side);
        if !closing {
            assert!(!user.closed && !lost, "a write after the end was admitted");
            user.written += len as u64;
            return write(self);
        }
        let warned = user.warned;
        write(self);
        let user = self.user(at.side);
        let warn = user.warned > warned;
        assert_eq!(warn, user.dropped >= 5, "asyncio warns from the sixth write on, or the fifth after the loss");
        user.dropped += 1;
        self.events.push(Event(at.side, What::Dropped(warn)));
    }

    /// The stream below is about to be lost.
    fn note_lost(&mut self, at: At) {
        if at == self.top(at.side) && !self.layer(at).tls.is_lost() {
            let user = self.user(at.side);
            user.owed = user.made;
            user.dropped += 1;
        }
    }

    fn note_failure(&mut self, at: At, error: EngineError) {
        assert!(error != EngineError::WriteAfterNotify, "written after close_notify");
        let Layer { tls, engine, .. } = self.layer(at);
        let excused = match error {
            // OpenSSL cannot shut down in a new handshake; who has something to write waits for that.
            EngineError::InHandshake => engine.notify_received() || tls.backlog().next().is_none(),
            EngineError::DataAfterNotify => true,
            EngineError::Alert => engine.failure().is_some(),
            _ => false,
        };
        assert!(excused || self.tainted, "{error:?}, though what came is what was sent");
    }
}
