//! The user's protocol: its callbacks, and what it does in them.

use super::{Event, Reaction, Sim};
use crate::core::fault::Fault;
use crate::sim::patterned;

impl Sim {
    pub fn data_received(&mut self, bytes: &[u8]) {
        assert!(!self.lost && !self.ended && !self.closed && !self.reading_paused, "data out of turn");
        assert_eq!(bytes, patterned(self.received, bytes.len()));
        self.received += bytes.len() as u64;
        self.events.push(Event::Data(bytes.len()));
        if self.react() == Reaction::Raise && !self.policy.survives_data {
            self.fail(Fault::User);
        }
    }

    pub fn eof_received(&mut self) {
        let closed = self.closed && !self.policy.end_closes;
        assert!(!self.lost && !closed && !self.reading_paused, "eof out of turn");
        assert!(!std::mem::replace(&mut self.ended, true), "eof twice");
        assert!(self.link.is_reset() || self.link.unread() == 0, "eof before the last byte");
        let told = self.events.len();
        self.events.push(Event::Eof);
        match self.react() {
            Reaction::Raise => return self.fail(Fault::User),
            Reaction::Exit => {
                self.events[told] = Event::EofUntold;
                self.ended = false;
                let step = self.stream.handle_eof_untold();
                return self.carry_out(step);
            }
            _ => {}
        }
        if !self.keep_open && !self.closed {
            self.closed = true;
            self.fault = Some(Fault::Closed);
        }
        let step = self.stream.handle_eof_answer(self.keep_open);
        self.carry_out(step);
    }

    pub fn pause_writing(&mut self) {
        assert!(!self.lost && !self.losing, "paused after the loss");
        assert!(!std::mem::replace(&mut self.paused, true), "paused twice");
        self.limits_moved = false;
        self.events.push(Event::Pause);
        self.react();
    }

    pub fn resume_writing(&mut self) {
        assert!(!self.lost && !self.losing, "resumed after the loss");
        assert!(std::mem::replace(&mut self.paused, false), "resumed without a pause");
        self.events.push(Event::Resume);
        self.react();
    }

    pub fn connection_lost(&mut self) {
        assert_eq!(self.depth, 0, "lost from within a callback");
        assert!(!std::mem::replace(&mut self.lost, true), "lost twice");
        assert_eq!(Some(self.stream.fault()), self.fault, "the first fault counts");
        if !self.broken {
            assert_eq!(self.link.accepted(), self.written, "closed before the last byte was sent");
        }
        self.events.push(Event::Lost(self.stream.fault()));
        self.react();
        self.link.close();
        self.stream.handle_lost();
    }

    /// User code runs; what it did.
    fn react(&mut self) -> Reaction {
        let reaction = self.reactions.pop_front().unwrap_or(Reaction::Nothing);
        self.depth += 1;
        match reaction {
            Reaction::Nothing | Reaction::Raise | Reaction::Exit => {}
            Reaction::Write(len) => self.write(len),
            Reaction::WriteTwice(len) => (0..2).for_each(|_| self.write(len)),
            Reaction::WriteEof => self.write_eof(),
            Reaction::Close => self.close(),
            Reaction::Abort => self.abort(),
            Reaction::PauseReading => self.pause_reading(),
            Reaction::ResumeReading => self.resume_reading(),
        }
        self.depth -= 1;
        reaction
    }
}
