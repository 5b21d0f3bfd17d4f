//! The streams below: what a stream transport does with what it is given, and the way to the other end.
//!
//! What is sent waits in the sender's `outbox` until it is delivered, in pieces of any size; nothing is delivered to an end
//! that paused, or that has no protocol yet, and what comes to one that closed is dropped.

use std::collections::VecDeque;

use super::host::{At, Raised, Run};
use super::ops::{Side, What};
use super::{Sim, Task};
use crate::core::tls::Phase;

/// One end's stream.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a model is plain facts")]
pub struct Lower {
    pub outbox: VecDeque<u8>,
    /// Plain data in front of it, bytes.
    pub plain: usize,
    high: usize,
    low: usize,
    /// The protocol above was told to pause.
    pub paused: bool,
    pub read_paused: bool,
    /// One write is handed over in slices: all of it, whatever is asked for meanwhile.
    pub sliced: bool,
    pub started: bool,
    pub closing: bool,
    pub lost: bool,
    /// `connection_lost` is scheduled, or was called.
    pub losing: bool,
    /// Nothing follows what is in the outbox.
    ended: bool,
    /// What is sent does not arrive.
    pub cut: bool,
    /// The end of what the other side sends was told.
    pub end_told: bool,
    /// It was broken, or aborted.
    pub failed: bool,
    /// The next write finds it broken.
    pub breaks: bool,
}

impl Default for Lower {
    fn default() -> Self {
        Self {
            outbox: VecDeque::new(),
            plain: 0,
            high: 1024,
            low: 256,
            paused: false,
            read_paused: false,
            sliced: false,
            started: false,
            closing: false,
            lost: false,
            losing: false,
            ended: false,
            cut: false,
            end_told: false,
            failed: false,
            breaks: false,
        }
    }
}

impl Lower {
    /// Lets a protocol be paused that came before.
    pub fn new(late: bool) -> Self {
        let lower = Self::default();
        if late { Self { plain: lower.high + 1, paused: true, ..lower } } else { lower }
    }

    pub fn buffered(&self) -> usize {
        self.plain + self.outbox.len()
    }

    fn reads(&self) -> bool {
        self.started && !self.closing && !self.read_paused && !self.end_told
    }
}

impl Sim {
    // ---- the connection above calls

    pub(super) fn lower_write(&mut self, side: Side, bytes: &[u8]) {
        let lower = &mut self.end(side).lower;
        if lower.losing {
            return;
        }
        assert!(!lower.paused || lower.sliced, "more is sent than was asked for");
        if std::mem::take(&mut lower.breaks) {
            return self.lower_fail(side);
        }
        if !lower.cut {
            lower.outbox.extend(bytes);
        }
        self.events.push(super::Event(side, What::Sent(bytes.len())));
        self.lower_poll(side);
    }

    pub(super) fn lower_limit(&mut self, side: Side, high: usize, low: usize) {
        let lower = &mut self.end(side).lower;
        (lower.high, lower.low) = (high, low.min(high));
        self.lower_poll(side);
    }

    pub(super) fn lower_close(&mut self, side: Side) {
        let lower = &mut self.end(side).lower;
        if !std::mem::replace(&mut lower.closing, true) {
            self.events.push(super::Event(side, What::Closed));
            self.lower_settle(side);
        }
    }

    pub(super) fn lower_abort(&mut self, side: Side) {
        if !self.end(side).lower.losing {
            self.events.push(super::Event(side, What::Aborted));
            self.tasks.push_back(Task::Reset(side.other()));
        }
        self.lower_fail(side);
    }

    // ---- the network

    /// The connection is broken.
    pub(super) fn lower_fail(&mut self, side: Side) {
        self.end(side).broken = true;
        self.end(side.other()).broken = true;
        let lower = &mut self.end(side).lower;
        (lower.closing, lower.failed) = (true, true);
        lower.outbox.clear();
        lower.plain = 0;
        self.lower_settle(side);
    }

    /// Bytes reach the other end; true when something happened.
    pub(super) fn deliver(&mut self, from: Side, max: usize) -> bool {
        let to = from.other();
        let (reads, dead) = (self.end(to).lower.reads(), self.end(to).lower.closing);
        let sender = &mut self.end(from).lower;
        let plain = max.min(sender.plain);
        if plain > 0 {
            sender.plain -= plain;
            self.lower_poll(from);
            return true;
        }
        let n = max.min(sender.outbox.len());
        if n > 0 && (reads || dead) {
            let bytes: Vec<u8> = sender.outbox.drain(..n).collect();
            if reads {
                self.handle_bytes(to, &bytes);
            }
            self.lower_poll(from);
            self.lower_settle(from);
            return true;
        }
        let sender = &mut self.end(from).lower;
        if reads && sender.ended && sender.buffered() == 0 {
            self.end(to).lower.end_told = true;
            let at = At { side: to, level: 0 };
            let raised = self.handle_end(at);
            assert!(self.layer(at).tls.phase() != Phase::Handshake, "the handshake goes on without a peer");
            if self.is_broken_by(raised) {
                self.lower_abort(to);
            } else if !self.end(to).layers[0].tls.keeps_open() {
                self.lower_close(to);
            }
            return true;
        }
        false
    }

    fn handle_bytes(&mut self, to: Side, bytes: &[u8]) {
        let raised = self.handle_ciphertext(At { side: to, level: 0 }, bytes);
        if self.is_broken_by(raised) {
            self.lower_abort(to);
        }
    }

    /// What the connection above raised ends the stream, unless it ends the run of the loop.
    pub(super) fn is_broken_by(&mut self, raised: Run) -> bool {
        self.heard += u32::from(raised == Err(Raised::Exit));
        matches!(raised, Err(error) if error != Raised::Exit)
    }

    /// Nothing more comes from this end.
    pub(super) fn lower_end(&mut self, side: Side) {
        let lower = &mut self.end(side).lower;
        lower.ended = true;
        lower.cut = true;
    }

    pub(super) fn lower_lost(&mut self, side: Side) {
        let lower = &mut self.end(side).lower;
        assert!(!std::mem::replace(&mut lower.lost, true), "the stream below is lost twice");
        (lower.ended, lower.cut) = (true, true);
        self.handle_lost(At { side, level: 0 });
    }

    /// What is buffered may call for a pause of the connection above, or the end of one.
    fn lower_poll(&mut self, side: Side) {
        let lower = &mut self.end(side).lower;
        let size = lower.buffered();
        let at = At { side, level: 0 };
        if !lower.paused && size > lower.high {
            lower.paused = true;
            self.handle_paused(at);
        } else if lower.paused && size <= lower.low && !lower.losing {
            lower.paused = false;
            self.handle_unpaused(at);
        }
    }

    fn lower_settle(&mut self, side: Side) {
        let lower = &mut self.end(side).lower;
        if lower.closing && lower.buffered() == 0 && !std::mem::replace(&mut lower.losing, true) {
            self.tasks.push_back(Task::LowerLost(side));
        }
    }
}
