//! The two users: what they call, and what their protocols see and do.

use std::collections::VecDeque;

use super::host::{At, Raised, Run};
use super::ops::{Event, Reaction, Side, What};
use super::{Sim, patterned};
use crate::core::tls::Phase;

/// What a user writes in all, bytes: keeps runs short.
const WRITTEN_MAX: u64 = 1 << 16;
/// Where the server's bytes begin in the pattern.
const SERVER_FROM: u64 = 1 << 20;

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a model is plain facts")]
pub struct User {
    pub reactions: VecDeque<Reaction>,
    /// Bytes of the protocol's buffer; 0: it has none.
    pub buffer: usize,
    /// What user code does that the engine runs.
    pub inside: VecDeque<Reaction>,
    pub written: u64,
    pub received: u64,
    pub made: bool,
    pub eof: bool,
    pub lost: bool,
    pub paused: bool,
    pub reading_paused: bool,
    pub closed: bool,
    /// Ended by `abort` or by an exception of a callback.
    pub ended: bool,
    /// No `close_notify` had gone out by then.
    pub silent: bool,
    pub dropped: u32,
    pub warned: u32,
    /// The machine owes a `connection_lost`.
    pub owed: bool,
    /// What was written before a `close` that the other end has to see.
    pub promised: Option<u64>,
    /// It did not take everything at once, always.
    pub slow: bool,
    /// It had a buffer, at times.
    pub lent: bool,
}

impl Sim {
    // ---- the user calls the transport

    pub(super) fn write(&mut self, side: Side, len: u32) {
        let from = self.user(side).written;
        if len == 0 || from > WRITTEN_MAX {
            return;
        }
        let bytes = patterned(from + if side == Side::Server { SERVER_FROM } else { 0 }, len as usize);
        let at = self.top(side);
        self.write_now(at, &bytes);
    }

    /// The engine runs user code. What that raises is the engine's; as to an `abort`, see `react_in_flow`.
    pub(super) fn run_inside(&mut self, at: At) -> Run {
        if at != self.top(at.side) {
            return Ok(());
        }
        let ended = self.user(at.side).ended;
        let reaction = self.user(at.side).inside.pop_front().unwrap_or(Reaction::Nothing);
        let result = self.run_reaction(at.side, reaction);
        self.user(at.side).ended = ended;
        result
    }

    pub(super) fn close_by_user(&mut self, side: Side) {
        let at = self.top(side);
        let open = self.layer(at).tls.phase() == Phase::Wrapped && !self.user(side).eof;
        let user = &mut self.ends[side as usize].user;
        let (written, received) = (user.written, user.received);
        let first = open && !user.closed;
        user.closed = true;
        let peer = self.user(side.other());
        if peer.promised.is_some_and(|promised| received < promised) {
            // Who closes need not receive.
            peer.promised = None;
        }
        if first && !peer.closed && !peer.ended {
            self.user(side).promised = Some(written);
        }
        self.close(at);
    }

    pub(super) fn abort_by_user(&mut self, side: Side) {
        let at = self.top(side);
        let silent = !self.layer(at).engine.notify_sent();
        let user = self.user(side);
        (user.closed, user.ended) = (true, true);
        user.silent |= silent;
        self.abort(at);
    }

    pub(super) fn pause_reading(&mut self, side: Side) {
        self.user(side).reading_paused = true;
        self.user(side).slow = true;
        let at = self.top(side);
        self.layer(at).tls.pause_reading();
    }

    pub(super) fn resume_by_user(&mut self, side: Side) {
        self.user(side).reading_paused = false;
        let at = self.top(side);
        self.resume_reading(at);
    }

    pub(super) fn set_marks(&mut self, side: Side, high: u8, low: u8) {
        let at = self.top(side);
        self.set_limits(at, usize::from(high) * 16, usize::from(low) * 16);
    }

    pub(super) fn set_read_marks(&mut self, side: Side, high: u8, low: u8) {
        let at = self.top(side);
        self.set_read_limits(at, usize::from(high) * 4, usize::from(low) * 4);
    }

    // ---- the protocol is called

    pub(super) fn connection_made(&mut self, side: Side) -> Run {
        let at = self.top(side);
        assert!(self.layer(at).engine.is_made(), "made before the handshake is over");
        let user = self.user(side);
        assert!(!std::mem::replace(&mut user.made, true) && !user.lost, "made twice");
        self.events.push(Event(side, What::Made));
        self.react(side)
    }

    pub(super) fn data_received(&mut self, side: Side, bytes: &[u8]) -> Run {
        let at = self.top(side);
        assert!(self.layer(at).tls.wants_read(), "data out of turn");
        let user = self.user(side);
        assert!(user.made && !user.eof && !user.lost && !user.ended, "data out of turn");
        assert!(!user.closed && !user.reading_paused, "data after close, or while reading is paused");
        let from = user.received + if side == Side::Client { SERVER_FROM } else { 0 };
        user.received += bytes.len() as u64;
        assert_eq!(bytes, patterned(from, bytes.len()), "bytes were lost, repeated or moved");
        let received = self.user(side).received;
        assert!(received <= self.user(side.other()).written);
        self.events.push(Event(side, What::Data(bytes.len())));
        self.react_or_end(side)
    }

    pub(super) fn eof_received(&mut self, side: Side) -> Run {
        let at = self.top(side);
        let left = self.layer(at).engine.has_plaintext();
        let user = self.user(side);
        assert!(user.made && !user.lost && !user.ended, "eof out of turn");
        assert!(!std::mem::replace(&mut user.eof, true), "eof twice");
        assert!(user.closed || !left, "eof before the last byte");
        self.events.push(Event(side, What::Eof));
        self.react_or_end(side)
    }

    pub(super) fn pause_writing(&mut self, side: Side) -> Run {
        let user = self.user(side);
        assert!(user.made && !user.lost, "paused out of turn");
        assert!(!std::mem::replace(&mut user.paused, true), "paused twice");
        self.events.push(Event(side, What::Pause));
        self.react_in_flow(side)
    }

    pub(super) fn resume_writing(&mut self, side: Side) -> Run {
        let user = self.user(side);
        assert!(user.made && !user.lost, "resumed out of turn");
        assert!(std::mem::replace(&mut user.paused, false), "resumed without a pause");
        self.events.push(Event(side, What::Resume));
        self.react_in_flow(side)
    }

    pub(super) fn connection_lost(&mut self, side: Side) {
        assert_eq!(self.depth, 0, "lost from within a callback");
        let at = self.top(side);
        let told = self.layer(at).engine.notify_sent();
        let lower = &self.end(side).lower;
        let ended = at.level == 0 && lower.end_told && !lower.failed;
        let user = self.user(side);
        assert!(user.made && user.owed && !std::mem::replace(&mut user.lost, true), "lost twice, or never made");
        assert!(user.eof || !ended, "the stream below ended, and the protocol does not know");
        assert!(!user.silent || !told, "aborted, and yet close_notify was sent");
        self.events.push(Event(side, What::Lost));
        let _reported = self.react(side);
    }

    /// User code runs; fails when it raised.
    fn react(&mut self, side: Side) -> Run {
        match self.run_next(side) {
            Err(Raised::Exit) => Ok(()),
            result => result,
        }
    }

    fn run_next(&mut self, side: Side) -> Run {
        let reaction = self.user(side).reactions.pop_front().unwrap_or(Reaction::Nothing);
        self.run_reaction(side, reaction)
    }

    fn run_reaction(&mut self, side: Side, reaction: Reaction) -> Run {
        self.depth += 1;
        match reaction {
            Reaction::Nothing | Reaction::Raise | Reaction::Exit => {}
            Reaction::Write(len) => self.write(side, len),
            Reaction::WriteTwice(len) => {
                self.write(side, len);
                self.write(side, len);
            }
            Reaction::Close => self.close_by_user(side),
            Reaction::Abort => self.abort_by_user(side),
            Reaction::PauseReading => self.pause_reading(side),
            Reaction::ResumeReading => self.resume_by_user(side),
            Reaction::SetLimits(high, low) => self.set_marks(side, high, low),
            Reaction::SetReadLimits(high, low) => self.set_read_marks(side, high, low),
        }
        self.depth -= 1;
        match reaction {
            Reaction::Raise => Err(Raised::User),
            Reaction::Exit => Err(Raised::Exit),
            _ => Ok(()),
        }
    }

    /// User code runs whose exception is reported, and no more. It is called in the middle of a step: what that tells after
    /// an `abort` is told.
    fn react_in_flow(&mut self, side: Side) -> Run {
        let ended = self.user(side).ended;
        let result = self.run_next(side);
        self.user(side).ended = ended;
        self.unreported += u32::from(result == Err(Raised::User));
        self.exits += u32::from(result == Err(Raised::Exit));
        result
    }

    /// User code runs whose exception is the end of the connection.
    fn react_or_end(&mut self, side: Side) -> Run {
        let result = self.react(side);
        self.user(side).ended |= result.is_err();
        result
    }
}
