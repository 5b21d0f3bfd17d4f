//! The user's protocol: its callbacks, and what it does in them.

use super::{Event, Raised, Reaction, Run, Sim};
use crate::core::fault::Fault;
use crate::sim::patterned;

impl Sim {
    pub(super) fn get_buffer(&mut self) -> Run {
        assert!(!self.lost && !self.ended && !self.closed && !self.reading_paused, "a buffer out of turn");
        self.events.push(Event::Buffer);
        self.react_or_break()
    }

    pub(super) fn data_received(&mut self, bytes: &[u8]) -> Run {
        assert!(!self.lost && !self.ended && !self.closed && !self.reading_paused, "data out of turn");
        assert_eq!(bytes, patterned(self.received, bytes.len()));
        self.received += bytes.len() as u64;
        self.events.push(Event::Data(bytes.len()));
        if self.policy.survives_data { self.react() } else { self.react_or_break() }
    }

    pub(super) fn eof_answer(&mut self) -> Result<bool, Raised> {
        let closed = self.closed && !self.policy.end_closes;
        assert!(!self.lost && !closed && !self.reading_paused, "eof out of turn");
        assert!(!std::mem::replace(&mut self.ended, true), "eof twice");
        assert!(self.link.is_reset() || self.link.unread() == 0, "eof before the last byte");
        let told = self.events.len();
        self.events.push(Event::Eof);
        let result = if self.policy.survives_data { self.react() } else { self.react_or_break() };
        if result == Err(Raised::Exit) {
            self.events[told] = Event::EofUntold;
            self.ended = false;
        }
        result?;
        if !self.keep_open && !self.closed {
            self.closed = true;
            self.fault = Some(Fault::Closed);
        }
        Ok(self.keep_open)
    }

    pub(super) fn paused_by_mark(&mut self) -> Run {
        assert!(!self.lost && !self.losing, "paused after the loss");
        assert!(!std::mem::replace(&mut self.paused, true), "paused twice");
        self.limits_moved = false;
        self.events.push(Event::Pause);
        self.react()
    }

    pub(super) fn resumed_by_mark(&mut self) -> Run {
        assert!(!self.lost && !self.losing, "resumed after the loss");
        assert!(std::mem::replace(&mut self.paused, false), "resumed without a pause");
        self.events.push(Event::Resume);
        self.react()
    }

    pub(super) fn lost_to_user(&mut self) -> Run {
        assert_eq!(self.depth, 0, "lost from within a callback");
        assert!(!std::mem::replace(&mut self.lost, true), "lost twice");
        assert_eq!(Some(self.stream.fault()), self.fault, "the first fault counts");
        if !self.broken {
            assert_eq!(self.link.accepted(), self.written, "closed before the last byte was sent");
        }
        self.events.push(Event::Lost(self.stream.fault()));
        self.react()
    }

    /// User code runs.
    pub(super) fn react(&mut self) -> Run {
        let reaction = self.reactions.pop_front().unwrap_or(Reaction::Nothing);
        self.run_reaction(reaction)
    }

    pub(super) fn run_reaction(&mut self, reaction: Reaction) -> Run {
        self.depth += 1;
        let result = match reaction {
            Reaction::Nothing => Ok(()),
            Reaction::Raise => {
                self.unreported += 1;
                Err(Raised::User)
            }
            Reaction::Exit => {
                self.exits += 1;
                Err(Raised::Exit)
            }
            Reaction::Write(len) => self.write(len),
            Reaction::WriteTwice(len) => self.write(len).and_then(|()| self.write(len)),
            Reaction::WriteEof => self.write_eof(),
            Reaction::Close => self.close(),
            Reaction::Abort => self.abort(),
            Reaction::PauseReading => {
                self.pause_reading();
                Ok(())
            }
            Reaction::ResumeReading => self.resume_reading(),
        };
        self.depth -= 1;
        result
    }

    /// User code runs whose exception is the end of the connection.
    fn react_or_break(&mut self) -> Run {
        let result = self.react();
        if result == Err(Raised::User) {
            self.break_off(Raised::User);
        }
        result
    }
}
